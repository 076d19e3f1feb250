"""Many completions scored by several rewards: the sum of each, and what becomes of one that cannot be scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from amauta.base.errors import AmautaError, DataError
from amauta.rewards.called import Messages, Record, Reward

OnFault = Literal["stop", "drop"]
SHOWN = 5  # reasons that are kept


@dataclass
class Scored:
    """Rewards of N completions. ``by_reward`` holds the parts, weights included, that sum to ``values``."""

    values: list[float | None]  # None: could not be scored and was dropped
    by_reward: dict[str, list[float | None]]
    dropped: int = 0
    reasons: list[str] = field(default_factory=list)  # the first few


def score(
    rewards: Sequence[Reward],
    prompts: Sequence[Messages],
    completions: Sequence[str],
    records: Sequence[Record],
    on_fault: OnFault = "stop",
    *,
    places: Sequence[str] | None = None,
) -> Scored:
    """The sum of the rewards of each completion.

    ``places`` name the records ("pairs.jsonl:7") in errors; left out: their numbers here. A reward that raises, or
    returns what is no finite number, is a DataError that names the reward and the record; under ``on_fault="drop"``
    the completion's value is None, and it is counted.
    """
    names = _names(rewards)
    places = places or [f"#{number}" for number in range(1, len(completions) + 1)]
    found = Scored([0.0] * len(completions), {})
    for name, reward in zip(names, rewards, strict=True):
        parts = _batch(reward, prompts, completions, records)
        if parts is None:
            parts = [_one(reward, *given) for given in zip(prompts, completions, records, strict=True)]
        found.by_reward[name] = [None if isinstance(part, str) else part for part in parts]
        for n, part in enumerate(parts):
            if isinstance(part, str):
                error = DataError("rewards.fault", reward=name, where=places[n], reason=part)
                if on_fault == "stop":
                    raise error
                found.values[n] = None
                found.reasons = [*found.reasons, str(error)][:SHOWN]
            elif found.values[n] is not None:
                found.values[n] += part  # type: ignore[operator]  # not None, as was just asked
    found.dropped = found.values.count(None)
    return found


def _batch(
    reward: Reward, prompts: Sequence[Messages], completions: Sequence[str], records: Sequence[Record]
) -> list[float | str] | None:
    """The answer of a reward that takes a batch; None for one that does not, or that failed and is asked one by one, so
    that the guilty record is known."""
    many = getattr(reward, "many", None)
    if many is None:
        return None
    try:
        values = list(many(prompts, completions, records))
    except Exception:
        return None
    return [_checked(value) for value in values] if len(values) == len(completions) else None


def _one(reward: Reward, prompt: Messages, completion: str, record: Record) -> float | str:
    try:
        return _checked(reward(prompt, completion, record))
    except Exception as error:  # whatever a user's function raises is the same to us
        return str(error) if isinstance(error, AmautaError) else f"{type(error).__name__}: {error}"


def _checked(value: object) -> float | str:
    """The value as a number, or what is wrong with it."""
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is told
    except (TypeError, ValueError):
        return f"{value!r}"
    return number if math.isfinite(number) else f"{number}"


def _names(rewards: Sequence[Reward]) -> list[str]:
    """A name for each: its own or its function's, numbered where two are the same."""
    names: list[str] = []
    for reward in rewards:
        name = getattr(reward, "name", None) or getattr(reward, "__name__", type(reward).__name__)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names
