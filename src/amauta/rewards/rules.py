"""Rewards that follow from the text of an answer and its record alone."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amauta.base.errors import DataError
from amauta.data.extract import number_in, same_number
from amauta.data.read import Row
from amauta.data.records import messages_of


def exact(prompt: Sequence[dict[str, str]], completion: str, record: dict[str, Any]) -> float:
    """1 where the answer is one of the record's own, white space and case aside. DataError where it has none."""
    return float(_plain(completion) in map(_plain, answers_of(record)))


def number(prompt: Sequence[dict[str, str]], completion: str, record: dict[str, Any]) -> float:
    """1 where the number of the answer is that of one of the record's answers: 9, 9.0 and $9 are one number.

    DataError where the record's answers hold none."""
    rights = [found for found in map(number_in, answers_of(record)) if found is not None]
    if not rights:
        raise DataError("rewards.no-number", answers=", ".join(answers_of(record)))
    given = number_in(completion)
    return float(any(same_number(given, right) for right in rights))


def matches(
    pattern: re.Pattern[str], prompt: Sequence[dict[str, str]], completion: str, record: dict[str, Any]
) -> float:
    """1 where the pattern is found."""
    return float(pattern.search(completion) is not None)


def words_within(
    low: int, high: int, prompt: Sequence[dict[str, str]], completion: str, record: dict[str, Any]
) -> float:
    """1 for ``low`` to ``high`` words, and in proportion less outside: n/low below, 2 - n/high above, never below 0."""
    n = len(completion.split())
    return n / low if n < low else max(0.0, min(1.0, 2 - n / high))


def answers_of(record: dict[str, Any]) -> list[str]:
    """All right answers of a record: its ``accepted``, ``accepted_preferred``, ``answers`` or ``answer``, else the last
    thing that the assistant says in it. DataError where it has none of these."""
    for field in ("accepted", "accepted_preferred", "answers", "answer"):
        given = record.get(field)
        given = given.get("text") if isinstance(given, dict) else given  # SQuAD's
        listed = given if isinstance(given, list) else [] if given is None else [given]
        if listed:
            return [str(one) for one in listed]
    try:
        said = [one["content"] for one in messages_of(Row(record, Path(), 0)) if one["role"] == "assistant"]
    except DataError:  # it tells of a file and a line, which are not known here
        raise DataError("rewards.no-answer", fields=", ".join(record) or "-") from None
    return said[-1:]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
