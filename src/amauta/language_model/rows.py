"""Rows of ids before a model reads them: checked, and grouped so that little is padding."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.feed import check_ids, context_of

PADDING = 0.125  # share of a group that may be padding


def checked(model: Any, ids: Sequence[Sequence[int]] | Tensor) -> list[list[int]]:
    """The rows as lists; ModelError, with the row: an id out of range, other lengths, beyond the context."""
    rows = [list(row) for row in (ids.tolist() if isinstance(ids, Tensor) else ids)]
    check_ids(model, rows)
    longest = context_of(model) or max(map(len, rows), default=0)
    for number, row in enumerate(rows, start=1):
        if not 0 < len(row) <= longest or len(row) != len(rows[0]):
            raise ModelError(
                "language_model.bad-row",
                number=number, count=len(rows), length=len(row), first=len(rows[0]), longest=longest,
            )  # fmt: skip
    return rows


def buckets(lengths: Sequence[int], most: int) -> list[list[int]]:
    """The rows in groups of like length, at most ``most`` rows each, none with more padding than ``PADDING``."""
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        fits = bool(groups) and len(groups[-1]) < most
        if fits and tokens + lengths[i] >= (1 - PADDING) * lengths[i] * (len(groups[-1]) + 1):
            groups[-1].append(i)
            tokens += lengths[i]
        else:
            groups.append([i])
            tokens = lengths[i]
    return groups
