"""What a teacher says of the run's texts, kept: its likeliest tokens at every place, so that it is asked once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amauta.base.messages import say
from amauta.data.batches import Batch, PackedBatches
from amauta.losses.distill import Known, best, with_rest
from amauta.metrics import console, progress
from amauta.runs import write_folder
from amauta.train.distill.steps import Teacher, places_of

INDEX, IDS, LOGPROBS = "index.json", "ids.bin", "logprobs.bin"


class Kept:
    """``K`` ids and log-probs (f16) of every slot of every unit, on the disk; called as a ``Teacher``."""

    def __init__(self, folder: Path, lengths: np.ndarray) -> None:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shape = (int(lengths.sum()), int(index["best"]))
        self.ids = np.memmap(folder / IDS, dtype="<u4", mode="r", shape=shape)
        self.logprobs = np.memmap(folder / LOGPROBS, dtype="<f2", mode="r", shape=shape)
        self.starts = np.concatenate(([0], np.cumsum(lengths)))
        self.lengths = lengths

    def __call__(self, batch: Batch, places: Tensor) -> Callable[[int, int], Known]:
        slots = torch.from_numpy(slots_of(batch, self.starts, self.lengths)).reshape(-1)[places.cpu()].numpy()
        device = batch.ids.device

        def said(start: int, stop: int) -> Known:
            rows = slots[start:stop]
            ids = torch.from_numpy(self.ids[rows].astype(np.int64)).to(device)
            return with_rest(torch.from_numpy(self.logprobs[rows].astype(np.float32)).to(device), ids)

        return said


def slots_of(batch: Batch, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each place of a batch (B, T) the number of its slot among those of all units one after another; 0 where
    a place is free."""
    found = np.zeros(batch.ids.shape, dtype=np.int64)
    for r, row in enumerate(batch.units):
        at = 0
        for unit in row:
            n = int(lengths[unit])
            found[r, at : at + n] = np.arange(starts[unit], starts[unit] + n)
            at += n
    return found


def keep(folder: Path, teacher: Teacher, stream: PackedBatches, k: int, vocabulary: int, device: torch.device) -> Kept:
    """Ask the teacher about all units of a stream, once, and keep its ``k`` likeliest tokens of each place, out of the
    first ``vocabulary`` ones; an interrupted run that had asked it finds them again."""
    k = min(k, vocabulary)
    lengths = stream.units.lengths
    if not (folder / INDEX).is_file():
        size = int(lengths.sum()) * k * 6
        console.print(say("distill.keeps", tokens=int(lengths.sum()), best=k, megabytes=f"{size / 1e6:.0f}"),
                      markup=False, soft_wrap=True)  # fmt: skip
        write_folder(folder, lambda made: _fill(made, teacher, stream, (k, vocabulary), device))
    return Kept(folder, lengths)


def _fill(made: Path, teacher: Teacher, stream: PackedBatches, sizes: tuple[int, int], device: torch.device) -> None:
    lengths, (k, vocabulary) = stream.units.lengths, sizes
    starts, shape = np.concatenate(([0], np.cumsum(lengths))), (int(lengths.sum()), k)
    ids = np.memmap(made / IDS, dtype="<u4", mode="w+", shape=shape)
    logprobs = np.memmap(made / LOGPROBS, dtype="<f2", mode="w+", shape=shape)
    once = PackedBatches(stream.units, rows=stream.rows, length=stream.length, epochs=1, shuffle=False,
                         collate=stream.collate)  # fmt: skip
    with progress(say("distill.asking"), shape[0]) as bar:
        for batch in once:
            places = places_of(batch)
            said = teacher(batch.to(device), places.to(device))
            slots = slots_of(batch, starts, lengths).reshape(-1)[places.numpy()]
            for start in range(0, len(slots), 1024):
                rows = slots[start : start + 1024]
                known = best(said(start, start + len(rows)).logprobs[:, :vocabulary], k)
                assert known.ids is not None
                ids[rows] = known.ids.cpu().numpy()
                logprobs[rows] = known.logprobs[:, :k].cpu().numpy()
            bar.advance(len(slots))
    ids.flush()
    logprobs.flush()
    (made / INDEX).write_text(json.dumps({"best": k, "slots": shape[0]}) + "\n", encoding="utf-8")
