"""Rows of ids before a model reads them: checked, and grouped so that little is padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from amauta.base.errors import ModelError
from amauta.decode.feed import check_ids, context_of
from amauta.models.stack import Stack

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


def buckets(lengths: Sequence[int], most: int, *, padding: float = PADDING) -> list[list[int]]:
    """The rows in groups of like length, of at most ``most`` rows and at most the share ``padding`` of padding."""
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        fits = bool(groups) and len(groups[-1]) < most
        if fits and tokens + lengths[i] >= (1 - padding) * lengths[i] * (len(groups[-1]) + 1):
            groups[-1].append(i)
            tokens += lengths[i]
        else:
            groups.append([i])
            tokens = lengths[i]
    return groups


def packs(model: Any) -> bool:
    """Whether the model's encoder reads texts that stand side by side in one row as it reads each alone."""
    return isinstance(getattr(model, "encoder", None), Stack) and model.spec.positions != "relative"


def packed_states(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """The encoder's states of each row, (B, T, D), 0 on padding; computed in one row without any."""
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    ids = torch.tensor([[id for row in rows for id in row]], device=model.device)  # (1, N)
    documents = torch.repeat_interleave(torch.arange(len(rows), device=model.device), lengths)[None]
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    positions = torch.arange(ids.shape[1], device=model.device) - starts
    hidden = model.encode(ids, positions=positions[None], documents=documents)[0]  # (N, D)
    return pad_sequence(hidden.split(lengths.tolist()), batch_first=True)
