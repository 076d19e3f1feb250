"""Sequences of tokens in settings: how they are written, read, and made from texts.

Flags, files and JSON write a sequence as ``17`` or ``"4 9"``, and one with a number as ``"17=2.5"`` or ``"4 9=-1"``;
texts take a number as ``"Luis=2.5"``. Python may give numbers, lists and mappings instead (``as_fields``).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from amauta.base.errors import ConfigError

Ids = tuple[int, ...]
Encode = Callable[[str], Sequence[int]]


def read_ids(written: int | str) -> Ids:
    """``17`` or ``"4 9"`` (commas will do too) as ids; ConfigError for anything else."""
    words = str(written).replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError("sampling.bad-ids", value=repr(written))
    return tuple(map(int, words))


def read_pair(written: str) -> tuple[str, float]:
    """``"left=number"``, by its last equals sign; ConfigError without one, or without a finite number after it."""
    left, _, right = written.rpartition("=")
    try:
        number = float(right)
    except ValueError:
        number = math.nan
    if not left or not math.isfinite(number):
        raise ConfigError("sampling.bad-bias", value=repr(written))
    return left, number


@lru_cache(maxsize=256)
def banned(ban_ids: tuple[str | int, ...]) -> dict[Ids, float]:
    """The sequences of ``ban_ids``, each with what its ban adds to a logit."""
    return dict.fromkeys(map(read_ids, ban_ids), -math.inf)


@lru_cache(maxsize=256)
def biased(bias_ids: tuple[str, ...]) -> dict[Ids, float]:
    """The sequences of ``bias_ids`` with their numbers; those of a sequence that stands there twice are added."""
    found: dict[Ids, float] = {}
    for left, number in map(read_pair, bias_ids):
        ids = read_ids(left)
        found[ids] = found.get(ids, 0.0) + number
    return found


def spellings(text: str, encode: Encode) -> list[Ids]:
    """The tokens of a text where a document begins, after a space and after a line end.

    Most tokenizers have a word twice, with its space and without. Of spellings of which one ends with another only the
    shorter is kept: it meets both. A text may still come in pieces that the tokenizer itself would not make.
    ConfigError for a text without tokens.
    """
    line = tuple(encode("\n"))
    after = tuple(encode(f"\n{text}"))
    found = {tuple(encode(text)), tuple(encode(text if text[:1].isspace() else f" {text}"))}
    if after[: len(line)] == line:
        found.add(after[len(line) :])
    kept: list[Ids] = []
    for ids in sorted(found, key=lambda ids: (len(ids), ids)):
        if not ids:
            raise ConfigError("sampling.no-tokens", text=repr(text))
        if not any(ids[-len(short) :] == short for short in kept):
            kept.append(ids)
    return kept


def spell(ids: Iterable[int]) -> str:
    """Ids as ``read_ids`` reads them."""
    return " ".join(map(str, ids))


def as_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as Python writes them, as fields hold them: a single text or id is a list of one, ids that belong
    together are a list of their own (``ban_ids=[17, [4, 9]]``), biases a mapping (``bias={"Luis": 2.5}``,
    ``bias_ids={17: 2.5, (4, 9): -1}``). What has none of these forms is left for ``build`` to judge."""
    found = dict(values)
    for name in ("stop", "ban", "ban_ids", "bias", "bias_ids", "stop_ids"):
        value = found.get(name)
        if isinstance(value, Mapping):
            value = [f"{_one(left)}={number}" for left, number in value.items()]
        elif isinstance(value, str | int) and not isinstance(value, bool):
            value = [value]
        if name == "ban_ids" and isinstance(value, Iterable):
            value = [_one(each) for each in value]
        if value is not None:
            found[name] = value
    return found


def _one(key: Any) -> Any:
    """A sequence of ids in writing; anything else as it is."""
    return spell(key) if isinstance(key, tuple | list) else key
