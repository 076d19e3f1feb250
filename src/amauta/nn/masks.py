"""Who may look at whom. A mask is boolean, True where a query may look, and broadcasts to (B, H, T, S).

A query always sees itself, padding included: a row of the softmax without a single key would be undefined.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spans:
    """Documents that stand one after another in rows and see themselves alone: (start, end) of each, row by row.

    Attention over them is computed document by document, so that packed rows cost what their documents cost.
    """

    rows: tuple[tuple[tuple[int, int], ...], ...]


def spans(documents: Tensor) -> Spans | None:
    """The spans of document numbers (B, T); None where a number comes back after another one stood between."""
    rows = []
    for row in documents.tolist():
        lengths = [(number, len(list(run))) for number, run in groupby(row)]
        if len({number for number, _ in lengths}) != len(lengths):
            return None
        ends = torch.tensor([length for _, length in lengths]).cumsum(0).tolist()
        rows.append(tuple(zip([0, *ends[:-1]], ends, strict=True)))
    return Spans(tuple(rows))


def causal(length: int, device: torch.device, *, window: int | None = None) -> Tensor:
    """(1, 1, T, T): a token sees itself and what stands before it; with a window, its last ``window`` tokens."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return (seen if window is None else seen.triu(1 - window))[None, None]


def decoding(
    length: int,
    device: torch.device,
    *,
    window: int | None = None,
    documents: Tensor | None = None,
    real: Tensor | None = None,
    prefix: Tensor | None = None,
) -> Tensor:
    """(1 or B, 1, T, T) for a decoder.

    documents (B, T): tokens of different numbers cannot see each other. real (B, T): False on padding, which nobody
    sees. prefix (B,): all tokens see the first so many (prefix LM; Raffel et al. 2020, arXiv 1910.10683, figure 4).
    """
    seen = causal(length, device, window=window)
    if prefix is not None:
        seen = seen | (torch.arange(length, device=device) < prefix[:, None])[:, None, None]
    if documents is not None:
        seen = seen & _same(documents)
    if real is not None:
        seen = (seen & real[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=device)
    return seen


def encoding(*, documents: Tensor | None = None, real: Tensor | None = None) -> Tensor | None:
    """(B, 1, 1 or T, S) for an encoder, in which every token sees all others; None where nothing is hidden."""
    if documents is None:
        return None if real is None else real[:, None, None, :]
    if real is None:
        return _same(documents)
    return (_same(documents) & real[:, None, None, :]) | torch.eye(real.shape[1], dtype=torch.bool, device=real.device)


def cached(positions: Tensor, span: int, *, window: int | None = None, prefix: Tensor | None = None) -> Tensor:
    """(B, 1, T, span) for cached keys: the query at position p sees the slots 0..p, or the last ``window`` of them, and
    in any case the first ``prefix`` (B,)."""
    slots, last = torch.arange(span, device=positions.device), positions[:, None, :, None]
    seen = slots <= last if window is None else (slots <= last) & (slots > last - window)
    return seen if prefix is None else seen | (slots < prefix[:, None, None, None])


def _same(documents: Tensor) -> Tensor:
    return documents[:, None, :, None] == documents[:, None, None, :]
