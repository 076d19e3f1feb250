"""What a loss brings to the run of a preference method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amauta.data.batches import Piece
from amauta.train.loop import Step


@dataclass(frozen=True)
class Method:
    """The step; then what only some methods have."""

    step: Step
    trained: Any = None  # what the loop trains, where that is more than the policy
    units: Sequence[Sequence[Piece]] | None = None  # the records with their loss elsewhere than they came with it
    own: Sequence[dict[str, Any]] = ()  # parameters with a rate or a decay of their own
    facts: dict[str, float] = field(default_factory=dict[str, float])  # figures known before training
    finish: Callable[[], dict[str, float]] = dict  # what is done after training; further figures
