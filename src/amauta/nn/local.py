"""Attention in chunks: a token sees its own chunk and its neighbours, so time and memory are linear in the length.

The local attention of a Reformer (Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451), and what its LSH attention does
once the tokens are sorted. As in the published models, the chunks stand in a ring: the first one's neighbour before it
is the last one. A causal mask hides what that brings; an encoder sees it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.capture import Capture
from amauta.nn.linear import Linear

HIDDEN = -1e9  # score of a key that a query may not see
ITSELF = -1e5  # score of the query itself where it sees itself only for want of another: above HIDDEN


@dataclass(frozen=True)
class Window:
    """How far a query sees: its chunk of ``chunk`` tokens and whole chunks before and after it."""

    chunk: int
    before: int
    after: int
    causal: bool

    def over(self, length: int) -> "Window":
        """This window over T tokens: those that fit into one chunk are one chunk, and all see each other."""
        return self if length > self.chunk else Window(length, 0, 0, self.causal)


def look_around(x: Tensor, before: int, after: int) -> Tensor:
    """Each chunk with its neighbours: (B, H, C, m, …) → (B, H, C, (before + 1 + after)·m, …), in a ring."""
    count = x.shape[2]
    shifts = [shift if abs(shift) < count else 0 for shift in range(-before, after + 1)]
    return torch.cat([x.roll(-shift, dims=2) for shift in shifts], dim=3) if len(shifts) > 1 else x


@dataclass(frozen=True)
class Seen:
    """What attention in chunks gives: n = (before + 1 + after)·m keys for each query."""

    out: Tensor  # (B, H, C, m, K)
    total: Tensor  # (B, H, C, m): log of the sum of the exponentials of a query's scores
    weights: Tensor  # (B, H, C, m, n)
    keys: Tensor  # (B or 1, H or 1, C, n): where the keys stood in the text


def attend_in_chunks(
    q: Tensor,  # (B, H, C, m, K)
    k: Tensor,  # the same; scaled already
    v: Tensor,
    places: Tensor,  # (B or 1, H or 1, C, m): where each token stood in the text
    labels: Tensor | None,  # the same shape: tokens see those of their own label; None: all
    window: Window,
    *,
    avoid_self: bool = False,  # a query sees itself only if it sees nothing else
    dropout: float = 0.0,
) -> Seen:
    """Softmax attention of each chunk to itself and its neighbours; scores and softmax in f32 at least."""
    k, v, keys = (look_around(x, window.before, window.after) for x in (k, v, places))
    scores = q @ k.mT  # (B, H, C, m, n)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    query, key = places[..., None], keys[..., None, :]
    if labels is not None:
        others = labels[..., None] != look_around(labels, window.before, window.after)[..., None, :]
        scores = scores.masked_fill(others, HIDDEN)
    if window.causal:
        scores = scores.masked_fill(key > query, HIDDEN)
    if avoid_self:
        scores = scores.masked_fill(key == query, ITSELF)
    total = scores.logsumexp(dim=-1)
    weights = (scores - total[..., None]).exp()
    return Seen(F.dropout(weights, dropout, dropout > 0).to(v.dtype) @ v, total, weights, keys)


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(B, H, T, …) → (B, H, C, m, …)."""
    return x.unflatten(2, (-1, chunk))


def dense(weights: Tensor, places: Tensor, keys: Tensor, length: int) -> Tensor:
    """Weights (B, H, C, m, n) as a whole map (B, H, T, T); a key that a query meets twice counts twice."""
    B, H, C, m, n = weights.shape
    at = (places[..., None] * length + keys[..., None, :]).expand(B, H, C, m, n)
    whole = weights.new_zeros(B, H, length * length)
    return whole.scatter_add(2, at.flatten(2), weights.flatten(2)).unflatten(2, (length, length))


class LocalAttention(nn.Module):
    """Attention to the own chunk and its neighbours in the order of the text; no biases.

    ``qkv`` holds the rows of q, k and v. A length must be a multiple of the chunk, or fit into one.
    """

    def __init__(self, width: int, heads: int, head_width: int, window: Window, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.head_width, self.window, self.dropout = heads, head_width, window, dropout
        self.qkv = Linear(width, 3 * heads * head_width, bias=False)
        self.out = Linear(heads * head_width, width, bias=False)

    def split_sizes(self) -> tuple[int, ...]:
        """Rows of ``qkv`` that make q, k and v."""
        return (self.heads * self.head_width,) * 3

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        labels: Tensor | None = None,  # (B, T): tokens see those of their own label
        capture: Capture | None = None,
    ) -> Tensor:  # (B, T, D)
        T = x.shape[1]
        window = self.window.over(T)
        q, k, v = (
            in_chunks(part.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2), window.chunk)
            for part in self.qkv(x).split(self.split_sizes(), dim=-1)
        )  # (B, H, C, m, K) each
        places = in_chunks(torch.arange(T, device=x.device)[None, None], window.chunk)  # (1, 1, C, m)
        labels = None if labels is None else in_chunks(labels[:, None], window.chunk)
        seen = attend_in_chunks(
            q, k / self.head_width**0.5, v, places, labels, window, dropout=self.dropout if self.training else 0.0
        )
        if capture is not None and "attention" in capture.wanted:
            capture.attention.append(dense(seen.weights, places, seen.keys, T))
        heads = seen.out.flatten(2, 3).transpose(1, 2)  # (B, T, H, K)
        if capture is not None and "heads" in capture.wanted:
            capture.heads.append(heads)
        return self.out(heads.flatten(2))
