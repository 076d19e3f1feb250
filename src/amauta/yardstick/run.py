"""The whole yardstick: what was done stands in the folder, a cell for each system and seed, and is not done again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amauta import config
from amauta.base.errors import RunError
from amauta.device import pick, threads
from amauta.metrics import console, plain
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator, TrainNgram
from amauta.runs import Run, write_atomically
from amauta.train.ngram import train_ngram
from amauta.yardstick import gather, page, plots, tables
from amauta.yardstick.cells import Cell, Cells, quiet
from amauta.yardstick.ground import Ground, lay
from amauta.yardstick.measuring import Counted, figures, opened
from amauta.yardstick.settings import NOT_IDENTITY, Part, Yardstick
from amauta.yardstick.systems import ENCODER, FAMILIES, NGRAM, TABLE, WITH_PAIRS, System
from amauta.yardstick.training import Plan, plans, trained
from amauta.yardstick.transfer import counted, learned, most_frequent

NEEDED: dict[Part, tuple[System, ...]] = {
    "families": FAMILIES, "objectives": tuple(TABLE.values()), "nsp": (ENCODER, WITH_PAIRS), "start": FAMILIES,
}  # fmt: skip


def yardstick(settings: Yardstick) -> dict[str, Any]:
    """Train and measure what the settings ask for; results.json, the plots and the page are written from it.

    Returns the results (with ``plan`` only the plan). Raises RunError when the folder holds another yardstick's,
    DataError, ConfigError, Interrupted; the same command then goes on.
    """
    threads(settings.threads)
    _check_same(settings)
    with quiet():
        ground = lay(settings, settings.out / "ground")
        write_atomically(Run(settings.out).config, config.to_toml(settings))
        needed = tuple(dict.fromkeys(system for part in settings.parts for system in NEEDED[part]))
        planned = plans(needed, settings, ground)
    told = [one.told() for one in planned.values()]
    result: Cell = {
        "settings": _identity(config.to_dict(settings)) | {"seeds": settings.seeds},
        "ground": ground.facts(),
        "plan": told,
    }
    if settings.plan:
        return {"plan": told, "seeds": settings.seeds, "flops": settings.seeds * sum(one["flops"] for one in told)}
    console.print(tables.plan(told, settings.seeds), markup=False, soft_wrap=True)
    result |= _parts(settings, ground, planned)
    write_atomically(settings.out / "results.json", json.dumps(plain(result), ensure_ascii=False, indent=1) + "\n")
    plots.write(result, settings.out, ("svg", "png"))
    if settings.page is not None:
        page.write(result, settings.page)
    return result


def _check_same(settings: Yardstick) -> None:
    """RunError when the folder holds what other settings made."""
    run = Run(settings.out)
    if run.config.exists():
        kept, given = _identity(config.read_toml(run.config)), _identity(config.to_dict(settings))
        differ = sorted(name for name in kept.keys() | given.keys() if kept.get(name) != given.get(name))
        if differ:
            raise RunError("yardstick.other-settings", folder=settings.out, names=", ".join(differ))


def _identity(table: Cell) -> Cell:
    return {name: value for name, value in table.items() if name not in NOT_IDENTITY}


def _parts(settings: Yardstick, ground: Ground, planned: dict[str, Plan]) -> Cell:
    """Every part that is asked for. A system that two parts need is trained once."""
    bench = Bench(settings, ground, planned)
    found: Cell = {}
    if "families" in settings.parts:
        cells = {NGRAM: [bench.cell(NGRAM, None, bench.ngram)]} | bench.each(FAMILIES, bench.family)
        found["families"] = gather.families(cells)
        found["usual"] = {task: most_frequent(task, ground) for task in bench.tasks}
    if "nsp" in settings.parts:
        cells = bench.each((ENCODER, WITH_PAIRS), bench.family)
        found["nsp"] = gather.nsp(cells[ENCODER.name], cells[WITH_PAIRS.name])
    if "objectives" in settings.parts:
        found["objectives"] = gather.objectives(bench.each(tuple(TABLE.values()), bench.in_table))
    if "start" in settings.parts:
        pretrained = bench.each(FAMILIES, bench.family)
        found["start"] = gather.start(pretrained, bench.each(FAMILIES, bench.from_nothing, "start."))
    return found


class Bench:
    """Makes the cells of each part."""

    def __init__(self, settings: Yardstick, ground: Ground, planned: dict[str, Plan]) -> None:
        self.settings, self.ground, self.planned = settings, ground, planned
        self.tasks: list[str] = ground.facts()["tasks"]
        self.device = pick(settings.device, settings.dtype)
        each = len(planned) + (len(FAMILIES) if "start" in settings.parts else 0)
        total = settings.seeds * each + ("families" in settings.parts)  # that of the n-gram model with them
        self.cell = Cells(settings.out, total).cell

    def each(self, systems: tuple[System, ...], make: Callable[[System, int], Cell], mark: str = "") -> dict[str, Any]:
        """A cell of each system and seed, all systems with one seed before the next seed."""
        found: dict[str, list[Cell]] = {system.name: [] for system in systems}
        for seed in self.settings.all_seeds:
            for system in systems:
                cell = self.cell(mark + system.name, seed, lambda system=system, seed=seed: make(system, seed))
                found[system.name].append(cell)
        return found

    def ngram(self) -> Cell:
        """The n-gram model: counted on all of the training text, in one pass and without matrix products."""
        model = train_ngram(TrainNgram(
            text=(self.ground.train,), tokenizer=str(self.ground.tokenizer), order=self.settings.order,
            estimator=Estimator(smoothing="modified-kneser-ney"),
        )).model  # fmt: skip
        found = figures(Counted(model), self.settings, self.ground)
        found["tasks"] = {task: counted(task, self.ground) for task in self.tasks}
        return found | {"parameters": _ngrams(model), "flops": 0, "steps": []}

    def family(self, system: System, seed: int) -> Cell:
        """A family's system: measured, then fine-tuned on each task under watch."""
        return self._one(system, seed, measured=True, watched=True)

    def in_table(self, system: System, seed: int) -> Cell:
        """A system of the T5 table: fine-tuned on each task."""
        return self._one(system, seed, measured=False, watched=False)

    def from_nothing(self, system: System, seed: int) -> Cell:
        """A family's system with its first weights, fine-tuned as the pretrained one."""
        folder = self._folder(system, seed)
        first = trained(self.planned[system.name], seed, self.settings, self.ground, folder).first
        tasks = {task: learned(system, first, task, seed, self.settings, self.ground, folder / "nothing", watched=True)
                 for task in self.tasks}  # fmt: skip
        return {"tasks": tasks}

    def _one(self, system: System, seed: int, *, measured: bool, watched: bool) -> Cell:
        planned, folder = self.planned[system.name], self._folder(system, seed)
        made = trained(planned, seed, self.settings, self.ground, folder)
        found: Cell = planned.told() | {"seconds": made.figures["seconds"]}
        if measured:
            found |= figures(opened(made.model, self.ground, self.device), self.settings, self.ground)
        found["tasks"] = {
            task: learned(system, made.model, task, seed, self.settings, self.ground, folder, watched=watched)
            for task in self.tasks
        }
        return found

    def _folder(self, system: System, seed: int) -> Path:
        return self.settings.out / "systems" / system.name / f"seed-{seed}"


def _ngrams(model: NGram) -> int:
    """Probabilities that an n-gram model holds, of all orders."""
    return sum(len(table.log_p) for table in model.tables)
