"""Goals: what the figures of a stage must reach, and what became of them.

A goal is a comparison with a number, with another figure, or with a multiple of one, and more or less than it:

    must = { accuracy = [">= 0.9", ">= before.accuracy + 0.15"], bits_per_byte = "<= 1.15 * world.entropy" }

A figure is written ``stage.metric``; a metric inside a table of the result is written with dots (``after.accuracy``).
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Mapping[str, Any] | None]  # stage -> its flat metrics, or None when it was skipped

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GOAL = re.compile(
    rf"\s*(?P<compare><=|>=|==|<|>)\s*(?:(?P<number>{_NUMBER})|(?:(?P<factor>{_NUMBER})\s*\*\s*)?"
    r"(?P<figure>[A-Za-z][\w-]*\.[\w.-]+)(?:\s+(?P<sign>[-+])\s*(?P<shift>\d+\.?\d*|\.\d+))?)\s*"
)


@dataclass(frozen=True)
class Goal:
    """``metric compare (number | factor * figure ± shift)``."""

    metric: str
    compare: str
    number: float | None
    factor: float
    figure: str | None
    shift: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """One goal, judged. ``reached`` is None when it could not be judged because a stage was skipped."""

    stage: str
    metric: str
    text: str
    value: float | None
    bound: float | None
    reached: bool | None


def parse(metric: str, text: str) -> Goal | None:
    """The goal that ``text`` writes, or None when it is not one."""
    found = _GOAL.fullmatch(text)
    if found is None:
        return None
    number, factor = found["number"], found["factor"]
    return Goal(metric, found["compare"], None if number is None else float(number),
                1.0 if factor is None else float(factor), found["figure"],
                float(f"{found['sign'] or ''}{found['shift'] or 0}"), text.strip())  # fmt: skip


def goals_of(must: Mapping[str, str | list[str]]) -> list[Goal]:
    """The goals of a stage's ``must``, one for each comparison; what is no goal was refused when it was read."""
    pairs = [
        (metric, text) for metric, texts in must.items() for text in ([texts] if isinstance(texts, str) else texts)
    ]
    return [goal for goal in (parse(metric, text) for metric, text in pairs) if goal is not None]


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one level with dotted names: ``{"after": {"loss": 1}}`` becomes ``{"after.loss": 1}``."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def number(value: Any) -> float | None:
    """``value`` as a float when it is a finite number (truth values count as 0 and 1), else None."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def look_up(figures: Figures, figure: str) -> float | None:
    """The number that ``stage.metric`` names, or None when the stage was skipped or has no such number."""
    stage, _, metric = figure.partition(".")
    return number((figures.get(stage) or {}).get(metric))


def judge(stage: str, goal: Goal, figures: Figures) -> Verdict:
    """Whether the goal was reached. A figure that is absent, or not a finite number, misses its goal.

    The one exception: where the stage itself or the stage of the other figure was skipped, there is nothing to judge.
    """
    other = None if goal.figure is None else goal.figure.partition(".")[0]
    skipped = figures.get(stage) is None or (other is not None and figures.get(other) is None)
    value = look_up(figures, f"{stage}.{goal.metric}")
    bound = goal.number
    if goal.figure is not None:
        reference = look_up(figures, goal.figure)
        bound = None if reference is None else goal.factor * reference + goal.shift
    reached = None if skipped else value is not None and bound is not None and _COMPARE[goal.compare](value, bound)
    return Verdict(stage, goal.metric, goal.text, value, bound, reached)
