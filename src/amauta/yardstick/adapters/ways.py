"""Six ways to learn a task, of the table of Hu et al. 2021 (arXiv 2106.09685, table 4), on the same records."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from amauta.adapt.settings import Adapters, Kind
from amauta.base.errors import ConfigError
from amauta.data.objective import Objective
from amauta.device import pick
from amauta.hub import find_model
from amauta.models import count
from amauta.models.adapters import counts
from amauta.models.exchange.opening import spec_of
from amauta.models.spec import Spec
from amauta.train.finetune.settings import Way as Manner
from amauta.yardstick.adapters.peak import peak_of
from amauta.yardstick.adapters.settings import WAYS, BenchAdapters, Way
from amauta.yardstick.cells import Cell, Cells, quiet
from amauta.yardstick.ground import Ground, lay
from amauta.yardstick.statistics import interval
from amauta.yardstick.systems import System
from amauta.yardstick.training import plan, trained
from amauta.yardstick.transfer import learned

# GPT-2's build: with the biases that BitFit trains, and the positions that a language's embeddings hold
BUILT = {"norm": "layer", "bias": True, "gated": False, "activation": "gelu", "positions": "learned"}
BASE = System("base", Objective(), "gpt", BUILT)
MANNERS: dict[str, Manner] = {"encoder": "bert", "decoder": "gpt", "encoder-decoder": "t5"}


@dataclass(frozen=True)
class Learning:
    """The kinds of one way, and the rate that it learns at, which nobody tuned."""

    kinds: tuple[Kind, ...]
    lr: float


LEARNING: dict[Way, Learning] = {
    "full": Learning((), 1e-3),
    "houlsby": Learning(("houlsby", "norms"), 3e-3),
    "lora": Learning(("lora",), 3e-3),
    "bitfit": Learning(("bitfit",), 1e-2),
    "prompt": Learning(("prompt",), 3e-2),
    "prefix-layer": Learning(("prefix-layer",), 1e-2),
}


def adapters_of(way: Way, settings: BenchAdapters) -> Adapters:
    """What a way puts on the model: LoRA on queries and values, as the paper's rows have it."""
    return Adapters(
        adapter=LEARNING[way].kinds, adapter_rank=settings.rank, adapter_targets=("q", "v"),
        adapter_reduction=settings.reduction, adapter_length=settings.positions,
    )  # fmt: skip


def tasks(settings: BenchAdapters) -> dict[str, Any]:
    """A row a way: numbers that learn, accuracy on each task, seconds, speed, memory; means over the seeds."""
    yard = settings.ground()
    with quiet():
        ground = lay(yard, settings.out / "ground")
        base = _base(settings, ground)
    spec = spec_of(find_model(base))
    ways = [way for way in WAYS if not settings.ways or way in settings.ways]
    names: list[str] = ground.facts()["tasks"]
    cells = Cells(settings.out, len(ways) * len(names) * settings.seeds)
    rows: list[Cell] = []
    for way in ways:
        missing = _missing(spec, way, settings)
        if missing is not None:
            rows.append({"way": way, "missing": missing})
            continue
        made = {
            name: [cells.cell(f"{way}.{name}", seed, lambda way=way, name=name, seed=seed: _cell(
                settings, ground, base, spec, way, name, seed)) for seed in settings.all_seeds]
            for name in names
        }  # fmt: skip
        rows.append(_row(way, made))
    return {"model": settings.model or "decoder", "parameters": count.parameters(spec), "tasks": names, "rows": rows}


def _base(settings: BenchAdapters, ground: Ground) -> str | Path:
    """The model that learns: a named one, or a decoder that is trained on the ground's text."""
    if settings.model is not None:
        return settings.model
    yard = settings.ground()
    return trained(plan(BASE, yard, ground), settings.seed, yard, ground, settings.out / "base").model


def _missing(spec: Spec, way: Way, settings: BenchAdapters) -> str | None:
    """Why the model has nothing that the way trains, or None."""
    try:
        counts(spec, adapters_of(way, settings)) if LEARNING[way].kinds else 0
    except ConfigError as error:
        return str(error)
    return None


def _cell(
    settings: BenchAdapters, ground: Ground, base: str | Path, spec: Spec, way: Way, task: str, seed: int
) -> Cell:
    """One task learnt in one way with one seed."""
    system = System(f"{way}", Objective(), MANNERS[spec.kind])
    adapters, folder = adapters_of(way, settings), settings.out / "runs" / f"{way}.{seed}"
    began = time.perf_counter()

    def work() -> Cell:
        return learned(system, base, task, seed, settings.ground(), ground, folder, adapters=adapters,
                       lr=LEARNING[way].lr)  # fmt: skip

    found, peak = peak_of(work, pick(settings.device, settings.dtype).device)
    return found | {"seconds": time.perf_counter() - began, "peak_bytes": peak}


def _row(way: Way, made: dict[str, list[Cell]]) -> Cell:
    """One way over its tasks and seeds. What learns includes each task's own output; it is the mean of the tasks."""
    cells = [cell for own in made.values() for cell in own]
    peaks = [cell["peak_bytes"] for cell in cells if cell["peak_bytes"] is not None]
    return {
        "way": way, "kinds": list(LEARNING[way].kinds), "lr": LEARNING[way].lr,
        "trained": round(fmean(cell["trained"] for cell in cells)),
        "tasks": {name: asdict(interval([cell["accuracy"] for cell in own])) for name, own in made.items()},
        "accuracy": asdict(interval([fmean(one) for one in zip(*_accuracies(made), strict=True)])),
        "seconds": fmean(cell["seconds"] for cell in cells),
        "tokens_per_second": fmean(cell["tokens_per_second"] for cell in cells),
        "peak_bytes": max(peaks) if peaks else None,
    }  # fmt: skip


def _accuracies(made: dict[str, list[Cell]]) -> Sequence[list[float]]:
    return [[cell["accuracy"] for cell in own] for own in made.values()]
