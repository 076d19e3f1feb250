"""The rows of a model's contract, and what a step of each kind may cost. No torch here, so that they can be shown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amauta.base.errors import ModelError
from amauta.runs import CARD

# The most KL (nats a place) that a step may cost when nothing else is declared, by how the step begins; None: any.
# Seen on SmolLM2-135M, which is hard to round: int8 .006, with inputs in 8 bits .04, int4 and nf4 .35 to .52.
TOLERANCES: dict[str, float | None] = {
    "merge": 1e-3, "export": 2e-3, "quantize int8": 0.05, "quantize": 1.0, "requantize": 1.0, "prune": 0.5,
    "distill": None,
}  # fmt: skip


def judged(step: str, found: Mapping[str, float], tolerance: float | None, *, accept: bool = False) -> dict[str, Any]:
    """The row of a step. ModelError where its KL is beyond the tolerance, or no number, unless it is accepted."""
    allowed = tolerance if tolerance is not None else tolerance_of(step)
    passed = found["kl"] == found["kl"] if allowed is None else found["kl"] <= allowed
    if not passed and not accept:
        raise ModelError("contract.broken", step=step, tolerance=allowed, **found)
    return {"step": step, **found, "tolerance": allowed, "passed": passed}


def tolerance_of(step: str) -> float | None:
    """That of the longest beginning of the step's name that has one."""
    return next(TOLERANCES[known] for known in sorted(TOLERANCES, key=len, reverse=True) if step.startswith(known))


def card_in(folder: Path) -> dict[str, Any]:
    """card.json of a model folder; {} where there is none. ModelError for one that is damaged."""
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise ValueError(f"{type(held).__name__} at the top")
        return held
    except ValueError as error:
        raise ModelError("exchange.damaged", file=path, reason=error) from None
