"""One system, pretrained on its budget: first weights, the training command's own run, and where it was said the
adaptation to continuing texts."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.seeds import derive
from amauta.data.objective import Objective
from amauta.models import count
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.optim.settings import Optim
from amauta.runs import Run, write_folder
from amauta.train.pretrain import pretrain
from amauta.train.settings import Loop, Pretrain
from amauta.yardstick.flops import step_flops
from amauta.yardstick.ground import Ground
from amauta.yardstick.settings import Yardstick
from amauta.yardstick.systems import ADAPTED, FIRST, TABLE, System, row_length

COUNTED = 600  # documents that the counted batch is made of
NEVER = 10**9  # a run is saved when it is stopped and at its end
OPTIM = Optim(lr=3e-3, matrix_lr=2e-2)
ADAPTING = Optim(lr=1e-3, matrix_lr=5e-3)


@dataclass(frozen=True)
class Stage:
    """So many steps of one objective, each of so many FLOPs."""

    objective: Objective
    length: int
    step_flops: int
    steps: int

    @property
    def flops(self) -> int:
        return self.steps * self.step_flops


@dataclass(frozen=True)
class Plan:
    """How one system spends its budget."""

    system: System
    spec: Spec
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        return count.parameters(self.spec)

    @property
    def flops(self) -> int:
        return sum(stage.flops for stage in self.stages)

    def told(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "system": self.system.name, "parameters": self.parameters,
            "steps": [stage.steps for stage in self.stages],
            "step_flops": [stage.step_flops for stage in self.stages], "flops": self.flops,
        }  # fmt: skip


def plan(system: System, settings: Yardstick, ground: Ground, first: int | None = None) -> Plan:
    """What a system of the settings costs. Steps are the budget over the FLOPs of one, rounded down.

    A system of the T5 table takes as many steps as the budget gives its first (``first``: those), as Raffel et al. had
    it: they read the same text, and differ in cost. ConfigError where a budget is too small for one step.
    """
    tokenizer = ground.opened()
    texts = ground.texts(ground.train)[:COUNTED]
    spec = system.spec(settings, tokenizer)
    in_table = system in TABLE.values()
    budget = settings.table_budget if in_table else settings.budget
    objectives = [system.objective] + ([system.adapted] if system.adapted else [])
    shares = [1.0] if len(objectives) == 1 else [1 - ADAPTED, ADAPTED]
    stages: list[Stage] = []
    for objective, share in zip(objectives, shares, strict=True):
        length = row_length(objective, spec.kind, settings.length)
        flops = step_flops(spec, objective, tokenizer, texts, length, settings.rows)
        steps = first if in_table and first is not None else int(budget * share / flops)
        if steps < 1:
            flag = "--table-budget" if in_table else "--budget"
            raise ConfigError("yardstick.small-budget", flag=flag, budget=f"{budget:.3g}", system=system.name,
                              least=f"{flops / share:.3g}")  # fmt: skip
        stages.append(Stage(objective, length, flops, steps))
    return Plan(system, spec, tuple(stages))


def plans(systems: tuple[System, ...], settings: Yardstick, ground: Ground) -> dict[str, Plan]:
    """The plan of each system by its name."""
    found: dict[str, Plan] = {}
    first = None
    if any(system in TABLE.values() for system in systems):
        first = plan(FIRST, settings, ground).stages[0].steps
    for system in systems:
        found[system.name] = plan(system, settings, ground, first)
    return found


@dataclass(frozen=True)
class Trained:
    """Where a system's model stands, what it was before training, and what its training told."""

    first: Path  # the model with its first weights
    model: Path
    figures: dict[str, Any]


def trained(plan: Plan, seed: int, settings: Yardstick, ground: Ground, folder: Path) -> Trained:
    """Pretrain one system with one seed, or take up where it was stopped; a finished one is only looked up."""
    first = folder / "first"
    if not first.exists():
        made = first_weights(plan.spec, seed)
        write_folder(first, lambda path: write_model(made, ground.opened(), path))
    start, figures = first, dict[str, Any]()
    began = time.monotonic()
    for number, stage in enumerate(plan.stages):
        run = Run(folder / f"stage-{number}")
        adapting = number > 0
        result = pretrain(Pretrain(
            text=(str(ground.train),), heldout=(str(ground.heldout),), out=run.folder, start=str(start),
            length=stage.length, objective=stage.objective, optim=ADAPTING if adapting else OPTIM,
            loop=Loop(steps=stage.steps, rows=settings.rows, save_every=NEVER, seed=seed, device=settings.device,
                      dtype=settings.dtype, threads=settings.threads, compile=False, resume=True),
        ))  # fmt: skip
        for leftover in (run.checkpoints, run.tokens("train")):
            shutil.rmtree(leftover, ignore_errors=True)
        start, figures = run.model, figures | result
    return Trained(first, start, figures | {"seconds": time.monotonic() - began})


def first_weights(spec: Spec, seed: int) -> Transformer:
    return Transformer.create(spec, derive(seed, "weights"))
