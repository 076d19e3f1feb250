"""A model of one language learns another: new embeddings, adapters, or both (Yong and Nikoulina 2022, arXiv 2204.04873;
Artetxe et al. 2020, arXiv 1910.11856), beside changing all of it.

A tokenizer of the new language comes first. Its tokens that the old one has too keep their vectors, the others are
drawn anew; strategies that do not train embeddings keep the old tokenizer and its table. All are measured in bits per
byte of held-out text, which does not depend on the tokenizer, and take the same number of steps. The papers fine-tune
on a task afterwards; here the language itself is what is measured. Embeddings are those of tokens and of positions.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amauta.adapt.settings import Adapters, Kind
from amauta.base.seeds import derive
from amauta.bits import measure
from amauta.data.read import read
from amauta.data.records import text_of
from amauta.data.smallworld.write import write as write_world
from amauta.device import pick
from amauta.hub import find_model
from amauta.metrics import plain
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import open_model
from amauta.models.transformer import Transformer
from amauta.optim.settings import Optim
from amauta.runs import Run, write_atomically, write_folder
from amauta.score import sequence_logprobs
from amauta.tokenize.either import scored
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.pretrain import pretrain
from amauta.train.settings import Loop, Pretrain
from amauta.yardstick.adapters.settings import BenchAdapters
from amauta.yardstick.adapters.ways import BASE
from amauta.yardstick.cells import Cell, Cells, quiet
from amauta.yardstick.ground import WORLD_BYTES, Ground, lay_text, small_world, write_records
from amauta.yardstick.settings import Yardstick
from amauta.yardstick.statistics import interval
from amauta.yardstick.training import NEVER, plan, trained

RATE = {"full": 1e-3, "embeddings": 3e-3, "adapter": 3e-3}


@dataclass(frozen=True)
class Strategy:
    """``stages``: what is trained, one stage after another, each for its share of the steps; () is the whole model.
    ``own``: with the new language's tokenizer."""

    name: str
    stages: tuple[tuple[Kind, ...], ...]
    own: bool = True


EMBEDDINGS: tuple[Kind, ...] = ("embeddings",)
ADAPTER: tuple[Kind, ...] = ("pfeiffer",)
WHOLE = (Strategy("full", ((),)), Strategy("emb", (EMBEDDINGS,)))
REDUCED = (
    Strategy("adapter", (ADAPTER,), own=False),
    Strategy("emb-then-adapter", (EMBEDDINGS, ADAPTER)),
    Strategy("emb+adapter", ((*EMBEDDINGS, *ADAPTER),)),
)


def languages(settings: BenchAdapters) -> dict[str, Any]:
    """A row a strategy and reduction: numbers that learn, bits per byte of held-out text; means over the seeds."""
    folder = settings.out / "languages"
    yard = settings.ground(width=settings.language_width, budget=settings.language_budget, tasks=())
    with quiet():
        source, target = _grounds(settings, yard, folder)
        planned = plan(BASE, yard, source)
        base = trained(planned, settings.seed, yard, source, folder / "base").model
    steps = max(2, round(settings.share * planned.stages[0].steps))
    asked = [(one, None) for one in WHOLE] + [(one, each) for each in settings.reductions for one in REDUCED]
    cells = Cells(settings.out, 1 + len(asked) * settings.seeds)
    rows: list[Cell] = [
        {"strategy": "none", "trained": 0} | cells.cell("none", None, lambda: _before(base, target, yard))
    ]
    for strategy, reduction in asked:
        name = strategy.name if reduction is None else f"{strategy.name}.{reduction}"
        made = [
            cells.cell(f"language.{name}", seed, lambda s=strategy, r=reduction, seed=seed: _cell(
                s, r, seed, steps, yard, base, source, target, folder))
            for seed in settings.all_seeds
        ]  # fmt: skip
        rows.append({
            "strategy": strategy.name, "reduction": reduction, "trained": made[0]["trained"],
            "width": None if reduction is None else max(1, yard.width // reduction),
            "parameters": made[0]["parameters"], "seconds": sum(one["seconds"] for one in made) / len(made),
            "bits_per_byte": asdict(interval([one["bits_per_byte"] for one in made])),
        })  # fmt: skip
    best = min(
        (row for row in rows if row["strategy"] not in ("none", "full")), key=lambda row: row["bits_per_byte"]["mean"]
    )
    return {"steps": steps, "source": source.facts(), "target": target.facts(), "rows": plain(rows),
            "best": [best["strategy"], best["reduction"]]}  # fmt: skip


def _grounds(settings: BenchAdapters, yard: Yardstick, folder: Path) -> tuple[Ground, Ground]:
    """Text and a tokenizer of each language: of the settings' files, or of the small world's two."""
    given = {"source": settings.source, "target": settings.into}
    if not all(given.values()):
        given = _world(yard, folder) | {name: files for name, files in given.items() if files}
    found: list[Ground] = []
    for name, files in given.items():
        ground = Ground(folder / name)
        if not ground.about.exists():
            told, _ = lay_text(replace(yard, corpus=files), ground)
            write_atomically(ground.about, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        found.append(ground)
    return found[0], found[1]


def _world(yard: Yardstick, folder: Path) -> dict[str, tuple[str, ...]]:
    """The small world's documents by their language."""
    files = {"source": folder / "en.jsonl", "target": folder / "es.jsonl"}
    if not all(file.exists() for file in files.values()):
        documents = 2 * max(100, int(yard.megabytes * 1e6) // WORLD_BYTES)
        write_world(small_world(yard, folder / "world", documents))
        rows = [row.value for row, _ in read([str(folder / "world" / "documents.train.jsonl")]).each(text_of)]
        for file in files.values():
            write_records(file, [{"text": row["text"]} for row in rows if row["language"] == file.stem])
    return {name: (str(file),) for name, file in files.items()}


def _before(base: Path, target: Ground, yard: Yardstick) -> Cell:
    """The model of one language, asked about the other."""
    model, tokenizer = open_model(find_model(base), device=pick(yard.device, yard.dtype).device)
    assert tokenizer is not None
    heldout = [(*scored(tokenizer, text), None) for text in target.texts(target.heldout)]

    def score(sequences: Any) -> list[float]:
        return sequence_logprobs(model, sequences, rows=yard.rows, length=yard.length).tolist()

    return {"bits_per_byte": asdict(interval([measure(score, heldout)["bits_per_byte"]]))}


def _cell(
    strategy: Strategy,
    reduction: int | None,
    seed: int,
    steps: int,
    yard: Yardstick,
    base: Path,
    source: Ground,
    target: Ground,
    folder: Path,
) -> Cell:
    """One strategy with one seed: its stages by the training command, each from where the one before came to."""
    runs = folder / "runs" / f"{strategy.name}.{reduction}.{seed}"
    start = base
    if strategy.own:
        start = runs / "first"
        if not start.exists():
            write_folder(start, lambda made: _with_tokens(base, source.opened(), target.opened(), seed, made))
    began, found, trained_numbers = time.perf_counter(), dict[str, Any](), 0
    for number, kinds in enumerate(strategy.stages):
        part = steps // len(strategy.stages)
        adapters = Adapters(adapter=kinds, adapter_reduction=reduction or 16)
        rate = RATE["full" if not kinds else "adapter" if "pfeiffer" in kinds else "embeddings"]
        run = Run(runs / f"stage-{number}")
        found = pretrain(Pretrain(
            text=(str(target.train),), heldout=(str(target.heldout),), out=run.folder, start=str(start),
            length=yard.length, adapters=adapters, optim=Optim(optimizer="adamw", lr=rate),
            loop=Loop(steps=part, rows=yard.rows, save_every=NEVER, seed=seed, device=yard.device, dtype=yard.dtype,
                      threads=yard.threads, compile=False, resume=True),
        ))  # fmt: skip
        start, trained_numbers = run.model, trained_numbers + found["trained"]
    shutil.rmtree(runs)
    kept = {name: found[name] for name in ("bits_per_byte", "parameters")}
    return kept | {"trained": trained_numbers, "seconds": time.perf_counter() - began}


def _with_tokens(base: Path, old: Tokenizer, new: Tokenizer, seed: int, made: Path) -> None:
    """The model with the table of another tokenizer: rows of shared tokens are copied, the others drawn."""
    model, _ = open_model(find_model(base))
    other = Transformer.create(replace(model.spec, vocabulary=new.size), derive(seed, "table"))
    held = dict(model.named_parameters())
    shared = dict(zip(*_shared(old, new), strict=True))
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if name == "embedding.weight":
                for mine, theirs in shared.items():
                    weight[mine] = held[name][theirs]
            else:
                weight.copy_(held[name])
    write_model(other, new, made)


def _shared(old: Tokenizer, new: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids of the new tokenizer and of the old one that stand for the same bytes, or the same special token."""

    def key(tokenizer: Tokenizer, id: int) -> str | bytes:
        return tokenizer.names.get(id) or tokenizer.token_bytes(id)

    known = {key(old, id): id for id in range(old.size)}
    mine = [id for id in range(new.size) if key(new, id) in known]
    return mine, [known[key(new, id)] for id in mine]
