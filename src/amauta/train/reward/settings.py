"""The settings of ``amauta reward``; no torch here, so that its help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from typing_extensions import Doc

from amauta.adapt.settings import Adapters
from amauta.hub.known import ANY_MODEL
from amauta.optim.settings import Optim
from amauta.train.settings import TOO_LONG, Loop, TooLong

Ranked = Literal["pairs", "plackett-luce"]
DATA = "prompt/chosen/rejected records (margin beside them), or prompt/completions: best first, or with ranks or scores"
RANKED = "what rankings teach: the mean over all their pairs (Bradley-Terry), or their whole order (Plackett-Luce)"
CENTRE = "weight of (r + r')² of each pair, which holds rewards near 0"
DEMONSTRATIONS = "dialogues that shall be worth 0 on average: their mean is kept, and subtracted by model:OUT"
LENGTH = "tokens of a row, which holds all answers to a prompt; the model's context, at most 2048, when left out"


@dataclass(frozen=True)
class Reward:
    """Training a reward model on comparisons."""

    model: Annotated[str, Doc(f"the model to start from: {ANY_MODEL}")]
    data: Annotated[tuple[str, ...], Doc(DATA)]
    out: Annotated[Path, Doc("folder of the run")]
    heldout: Annotated[tuple[str, ...], Doc("comparisons that are only scored")] = ()
    ranked: Annotated[Ranked, Doc(RANKED)] = "pairs"
    centre: Annotated[float, Ge(0), Doc(CENTRE)] = 0.01
    demonstrations: Annotated[tuple[str, ...], Doc(DEMONSTRATIONS)] = ()
    length: Annotated[int | None, Doc(LENGTH)] = None
    too_long: Annotated[TooLong, Doc(TOO_LONG)] = "drop"
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=lambda: Loop(rows=8))
    optim: Optim = field(default_factory=lambda: Optim(optimizer="adamw", lr=1e-4, weight_decay=0.0))
