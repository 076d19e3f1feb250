"""Answers to one prompt from best to worst: a ranking of several, or the two of a preference pair.

A ranking has ``prompt`` (a text or messages), ``completions`` (texts, or an assistant's messages) and, where these do
not stand best first, ``ranks`` (1 is the best, equal ones are ties) or ``scores`` (the greatest is the best). Every
shape of pair is read as ``records.preference_of`` does; beside it a ``margin`` may say by how much the one is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.data.read import Row, excerpt
from amauta.data.records import Message, messages_of, preference_of


@dataclass(frozen=True)
class Ranking:
    """Answers, the best first; equal ``ranks`` are ties. ``margin`` is the least difference that is wanted."""

    prompt: list[Message]
    answers: list[str]
    ranks: list[int]
    margin: float = 0.0


def ranking_of(row: Row) -> Ranking:
    """The answers of a row, sorted, with their ranks from 0.

    Raises DataError as ``preference_of``, and: fewer than two completions, ranks or scores of another number or no
    numbers, all answers ranked alike, two equal answers of different ranks, a margin that is no number.
    """
    margin = row.value.get("margin", 0.0)
    if margin is None or isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise _bad(row, "margin", say("rankings.want-margin"))
    if row.value.get("completions") is None:
        pair = preference_of(row)
        return Ranking(pair.prompt, [pair.chosen, pair.rejected], [0, 1], float(margin))
    completions = row.value["completions"]
    if not isinstance(completions, list) or len(completions) < 2:
        raise _bad(row, "completions", say("rankings.want-completions"))
    places = _places(row, len(completions))
    read = [_answered(row, completion) for completion in completions]
    order = sorted(range(len(read)), key=lambda n: places[n])
    values = sorted(set(places))
    answers, ranks = [read[n][1] for n in order], [values.index(places[n]) for n in order]
    if len(values) < 2:
        raise DataError("rankings.all-alike", file=row.file, line=row.line)
    for (a, i), (b, j) in combinations(zip(answers, ranks, strict=True), 2):
        if i != j and a.strip() == b.strip():
            raise DataError("data.equal-pair", file=row.file, line=row.line, answer=excerpt(a))
    return Ranking(read[0][0], answers, ranks, float(margin))


def _places(row: Row, count: int) -> list[float]:
    """A number for each completion, the least for the best."""
    for field, sign in (("ranks", 1), ("scores", -1)):
        given = row.value.get(field)
        if given is None:
            continue
        numbers = isinstance(given, list) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in given
        )
        if not numbers or len(given) != count:
            raise _bad(row, field, say("rankings.want-numbers", count=count))
        return [sign * one for one in given]
    return [float(n) for n in range(count)]


def _answered(row: Row, completion: Any) -> tuple[list[Message], str]:
    """The prompt, and the text of one completion; an answer may be empty."""
    empty = isinstance(completion, str) and not completion.strip()
    value = {"prompt": row.value.get("prompt"), "completion": "-" if empty else completion}
    messages: Sequence[Message] = messages_of(Row(value, row.file, row.line))
    *prompt, last = messages
    if last["role"] != "assistant" or not prompt:
        raise _bad(row, "completions", say("data.want-answer"))
    return prompt, completion if empty else last["content"]


def _bad(row: Row, field: str, allowed: str) -> DataError:
    shown = excerpt(row.value.get(field))
    return DataError("data.bad-field", file=row.file, line=row.line, field=field, value=shown, allowed=allowed)
