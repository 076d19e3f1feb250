"""Batches of whole examples: rows of like length together, padded to the longest of their batch.

The order is a function of seed and epoch, as in ``batches.py``; what padding costs is counted.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.batches import Batch
from amauta.losses.token import IGNORE

POOL = 50  # batches whose examples are sorted by length together


@dataclass
class Laid:
    """One example as a model reads it.

    ``rows``: one, two orders of a pair, or one for each choice; ``segments`` beside them; ``written``: what a decoder
    is to write after its row (or, ``apart``, after an encoder read it), with a loss on all of it; ``label``: a class, a
    number or the (first, last) token of a span.
    """

    rows: list[list[int]]
    segments: list[list[int]]
    written: list[int] | None = None
    label: Any = None
    number: int = 0  # of the example
    spoken: bool = False  # the rows themselves carry a language-model loss too

    @property
    def length(self) -> int:
        """Slots of the longest row, with what is written after it."""
        return max(map(len, self.rows)) + len(self.written or ())


@dataclass
class TaskBatch(Batch):
    """``units``: the example of each row of ids. R rows are B examples: R = B but for choices and both orders."""

    labels: Tensor | None = None  # (B,) classes or numbers; (B, 2) of spans
    owner: Tensor | None = None  # (R,): the example in this batch that a row belongs to
    nth: Tensor | None = None  # (R,): its place among the rows of that example
    examples: int = 0

    def counts(self) -> Counter[str]:
        """``tokens`` without padding, ``slots`` with it, ``examples``."""
        found = super().counts()
        found["examples"] = self.examples
        found["slots"] = self.ids.numel() + (0 if self.decoder_ids is None else self.decoder_ids.numel())
        return found


def batch_of(
    laid: Sequence[Laid], *, start: int | None = None, multiple: int = 1, see_prompt: bool = False
) -> TaskBatch:
    """The batch of some examples, padded on the right with id 0.

    ``start`` is the first id of an encoder-decoder's decoder: then what is written stands in ``decoder_ids`` and
    ``targets``, else behind the row. ``multiple``: row lengths are rounded up to it. ``see_prompt``: the tokens before
    what is written see each other in both directions.
    """
    rows = [(n, k, row) for n, one in enumerate(laid) for k, row in enumerate(one.rows)]
    apart = start is not None
    whole = [row if apart else [*row, *(laid[n].written or ())[:-1]] for n, _, row in rows]
    ids = _filled(whole, 0, multiple)
    real = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in whole])[:, None]
    segments = _filled([laid[n].segments[k] for n, k, _ in rows], 0, multiple, ids.shape[1])
    targets = torch.full(ids.shape, IGNORE)
    decoder_ids = None
    if apart and laid[0].written is not None:
        wanted = [laid[n].written or [] for n, _, _ in rows]
        targets = _filled(wanted, IGNORE, multiple)
        decoder_ids = _filled([[start, *words[:-1]] for words in wanted], 0, multiple)
    elif laid[0].written is not None:
        for r, (n, _, row) in enumerate(rows):
            words = laid[n].written or []
            targets[r, len(row) - 1 : len(row) - 1 + len(words)] = torch.tensor(words)
    elif laid[0].spoken:
        targets[:, :-1] = torch.where(real[:, 1:], ids[:, 1:], IGNORE)
    labels = None if laid[0].label is None else torch.tensor([one.label for one in laid])
    return TaskBatch(
        ids=ids, targets=targets, positions=torch.arange(ids.shape[1]).expand(ids.shape), documents=real.long(),
        units=[[laid[n].number] for n, _, _ in rows], segments=segments, decoder_ids=decoder_ids, real=real,
        labels=labels, owner=torch.tensor([n for n, _, _ in rows]), nth=torch.tensor([k for _, k, _ in rows]),
        examples=len(laid), prefix=torch.tensor([len(row) for _, _, row in rows]) if see_prompt else None,
    )  # fmt: skip


def _filled(rows: Sequence[Sequence[int]], empty: int, multiple: int, least: int = 0) -> Tensor:
    longest = max(least, max(map(len, rows)))
    out = torch.full((len(rows), -(-longest // multiple) * multiple), empty)
    for r, row in enumerate(rows):
        out[r, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out


class Bucketed:
    """Batches of ``rows`` examples without end; every epoch shows each example once.

    With several ``tasks`` (how many examples each has, in their order) an epoch shows at most ``cap`` of each, drawn
    anew every time: task i is seen in proportion to min(n_i, cap) (Raffel et al. 2020, arXiv 1910.10683, 3.5.2).
    """

    def __init__(
        self,
        examples: Sequence[Laid],
        *,
        rows: int,
        seed: int,
        collate: Callable[[Sequence[Laid]], TaskBatch] = batch_of,
        tasks: Sequence[int] = (),
        cap: int | None = None,
    ) -> None:
        self.examples, self.rows, self.seed, self.collate = examples, rows, seed, collate
        self.tasks, self.cap = list(tasks) or [len(examples)], cap
        self.lengths = np.array([one.length for one in examples])
        self.epoch, self.at = 0, 0
        self._plan: tuple[int, list[list[int]]] | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch, as places among the examples."""
        if self._plan is None or self._plan[0] != epoch:
            generator = np.random.default_rng(derive(self.seed, "epoch", epoch))
            order = generator.permutation(self._shown(generator))
            batches: list[list[int]] = []
            for start in range(0, len(order), POOL * self.rows):
                pool = order[start : start + POOL * self.rows]
                pool = pool[np.argsort(self.lengths[pool], kind="stable")]
                batches += [pool[i : i + self.rows].tolist() for i in range(0, len(pool), self.rows)]
            self._plan = (epoch, [batches[i] for i in generator.permutation(len(batches))])
        return self._plan[1]

    def _shown(self, generator: np.random.Generator) -> np.ndarray:
        """The examples of an epoch."""
        found: list[np.ndarray] = []
        first = 0
        for count in self.tasks:
            own = np.arange(first, first + count)
            capped = self.cap is not None and count > self.cap
            found.append(generator.choice(own, self.cap, replace=False) if capped else own)
            first += count
        return np.concatenate(found)

    def __iter__(self) -> Iterator[TaskBatch]:
        return self

    def __next__(self) -> TaskBatch:
        plan = self.plan(self.epoch)
        batch = self.collate([self.examples[i] for i in plan[self.at]])
        self.at += 1
        if self.at == len(plan):
            self.epoch, self.at = self.epoch + 1, 0
        return batch

    def padding(self) -> float:
        """The share of the first epoch's slots that are padding."""
        longest = sum(int(self.lengths[batch].max()) * len(batch) for batch in self.plan(0))
        return 1 - sum(int(self.lengths[batch].sum()) for batch in self.plan(0)) / longest

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the examples' ids and labels."""
        total = hashlib.blake2b(digest_size=16)
        for one in self.examples:
            total.update(repr((one.rows, one.written, one.label)).encode())
        return total.hexdigest()

    def state(self) -> dict[str, Any]:
        """What must be kept to go on from here."""
        return {"epoch": self.epoch, "at": self.at, "data": self.fingerprint}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that ``state`` gave. DataError when the data is not what it was then."""
        if state["data"] != self.fingerprint:
            raise DataError("data.changed-since", then=state["data"], now=self.fingerprint)
        self.epoch, self.at = state["epoch"], state["at"]
