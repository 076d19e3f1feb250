"""Attention by locality-sensitive hashing (Kitaev, Kaiser and Levskaya 2020, Reformer, arXiv 2001.04451, section 2).

Queries are keys; similar vectors fall into one bucket (Andoni et al. 2015, arXiv 1509.02897: the nearest of the axes of
a random rotation). The tokens are sorted by (bucket, place) and cut into chunks, and a query sees its own chunk and its
neighbours, so the cost is that of sorting, T·log T, and not T². Several rounds with rotations of their own are combined
by their share of the exponentials (eq. 6).

It computes what the published models compute, which differs from the paper in this: a query also sees tokens of other
buckets inside its chunks, and a key that it meets in several rounds is counted in each; the chunks of all rounds stand
in one ring, so a round's first chunk has the last chunk of the round before as its neighbour.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from amauta.nn.capture import Capture
from amauta.nn.linear import Linear
from amauta.nn.local import Window, attend_in_chunks, dense, in_chunks


@dataclass(frozen=True)
class Hashing:
    """Into how many buckets, how often, and with which rotations."""

    rounds: int
    buckets: tuple[int, ...]  # factors, all even; () finds them from the length
    context: int  # longest input: beyond a share of it the buckets are factored
    seed: int | None  # None: new rotations at each step of training, and always the same ones in evaluation


def bucket_factors(length: int, chunk: int, context: int) -> tuple[int, ...]:
    """About 2T/m buckets, a power of two; as two factors when they are many, so that hashing stays cheap."""
    power = (2 * (length // chunk)).bit_length() - 1
    if 2**power <= 2 * max(int((context // chunk) ** 0.5), chunk):
        return (2**power,)
    return 2 ** (power // 2), 2 ** (power - power // 2)


def rotations(heads: int, head_width: int, rounds: int, factors: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """(H, K, R, sum(factors)/2) in f32, on the CPU, so that a seed gives the same everywhere."""
    return torch.randn(heads, head_width, rounds, sum(factors) // 2, generator=generator)


@torch.no_grad()
def hash_buckets(x: Tensor, rotation: Tensor, factors: tuple[int, ...]) -> Tensor:
    """The bucket of each vector in each round, ``argmax([xR; -xR])``: (B, H, T, K) → (B, H, R, T), below prod(factors).

    With several factors each has rotations of its own, and the first factor is the units of the number.
    """
    turned = torch.einsum("bhtk,hkrn->bhrtn", x, rotation.to(x))
    buckets, unit = torch.zeros(turned.shape[:-1], dtype=torch.int64, device=x.device), 1
    for part, factor in zip(turned.split([factor // 2 for factor in factors], dim=-1), factors, strict=True):
        buckets += unit * torch.cat((part, -part), dim=-1).argmax(dim=-1)
        unit *= factor
    return buckets


class _Permute(Function):
    """Vectors (B, H, R, T, K) in another order (B, H, R, T); the gradient is the inverse order, not a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order, back)
        return x.gather(3, order[..., None].expand(*order.shape, x.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        order, back = ctx.saved_tensors
        return _Permute.apply(grads[0], back, order), None, None  # type: ignore[return-value]


def keys_of(q: Tensor) -> Tensor:
    """The keys of shared queries: ``q / (|q|/√K)``, over √K for the product, so each has length 1."""
    return q * torch.rsqrt(q.square().mean(-1, keepdim=True) + 1e-6) / q.shape[-1] ** 0.5


def attend_by_buckets(
    q: Tensor,  # (B, H, T, K): queries, and keys once their length is taken out
    v: Tensor,  # (B, H, T, K)
    buckets: Tensor,  # (B, H, R, T)
    window: Window,
    labels: Tensor | None = None,  # (B, T): tokens see those of their own label
    *,
    dropout: float = 0.0,
    capture: Capture | None = None,
) -> Tensor:  # (B, H, T, K)
    """LSH attention, given the buckets. T must be a multiple of the chunk."""
    B, H, R, T = buckets.shape
    order = buckets.sort(dim=-1, stable=True).indices  # (B, H, R, T): places, sorted by (bucket, place)
    back = order.argsort(dim=-1)

    def chunks_of(x: Tensor) -> Tensor:  # (B, H, R, T, …) -> (B, H, R·C, m, …)
        return in_chunks(x.flatten(2, 3), window.chunk)

    q, v = (chunks_of(_Permute.apply(x[:, :, None].expand(-1, -1, R, -1, -1), order, back)) for x in (q, v))
    places = chunks_of(order)
    if labels is not None:
        labels = chunks_of(labels[:, None, None].expand(B, H, R, T).gather(3, order))
    seen = attend_in_chunks(q, keys_of(q), v, places, labels, window, avoid_self=True, dropout=dropout)
    out = _Permute.apply(seen.out.reshape(B, H, R, T, -1), back, order)
    total = _Permute.apply(seen.total.reshape(B, H, R, T, 1), back, order)
    # (B, H, R, T, 1): the weight of each round. A softmax would be more exact where a query sees only itself and the
    # sums are near -1e5; the published models were trained, and are checked, with this rounding.
    share = (total - total.logsumexp(dim=2, keepdim=True)).exp()
    if capture is not None and "attention" in capture.wanted:
        sorted_share = share.gather(3, order[..., None])
        capture.attention.append(dense(seen.weights * chunks_of(sorted_share), places, seen.keys, T))
    return (out * share.to(out.dtype)).sum(dim=2)


def attend_to_all(
    q: Tensor, v: Tensor, window: Window, labels: Tensor | None = None, *, dropout: float = 0.0,
    capture: Capture | None = None,
) -> Tensor:  # fmt: skip
    """What LSH attention is when the text is one chunk: nothing is hashed and every query sees every key it may."""
    T = q.shape[2]
    q, v = q[:, :, None], v[:, :, None]  # (B, H, 1, T, K)
    places = torch.arange(T, device=q.device)[None, None, None]
    labels = None if labels is None else labels[:, None, None]
    seen = attend_in_chunks(q, keys_of(q), v, places, labels, window.over(T), avoid_self=True, dropout=dropout)
    if capture is not None and "attention" in capture.wanted:
        capture.attention.append(dense(seen.weights, places, seen.keys, T))
    return seen.out[:, :, 0]


class LSHAttention(nn.Module):
    """Shared-QK attention to the tokens of similar vectors; no biases. ``qkv`` holds the rows of the shared q, then v.

    A length must be a multiple of the chunk, or fit into one: then it is full attention.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, window: Window, hashing: Hashing, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.head_width, self.dropout = heads, head_width, dropout
        self.window, self.hashing = window, hashing
        self.qkv = Linear(width, 2 * heads * head_width, bias=False)
        self.out = Linear(heads * head_width, width, bias=False)

    def split_sizes(self) -> tuple[int, ...]:
        """Rows of ``qkv`` that make q and v."""
        return (self.heads * self.head_width,) * 2

    def forward(
        self,
        x: Tensor,  # (B, T, D)
        labels: Tensor | None = None,  # (B, T): tokens see those of their own label; below 0 is padding
        buckets: Tensor | None = None,  # (B, H, R, T): those of an earlier call, which must not change in a replay
        capture: Capture | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # (B, T, D), and the buckets
        q, v = (
            part.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
            for part in self.qkv(x).split(self.split_sizes(), dim=-1)
        )  # (B, H, T, K) each
        dropout = self.dropout if self.training else 0.0
        generator = self._generator()  # also when the buckets are known: a replay must draw what the first run drew
        if x.shape[1] <= self.window.chunk:
            out = attend_to_all(q, v, self.window, labels, dropout=dropout, capture=capture)
        else:
            buckets = self._buckets(q, labels, generator) if buckets is None else buckets
            out = attend_by_buckets(q, v, buckets, self.window, labels, dropout=dropout, capture=capture)
        out = out.transpose(1, 2)  # (B, T, H, K)
        if capture is not None and "heads" in capture.wanted:
            capture.heads.append(out)
        return self.out(out.flatten(2)), buckets

    def _generator(self) -> torch.Generator:
        seed = self.hashing.seed
        if seed is None:
            seed = int(torch.randint(2**62, ())) if self.training else 0
        return torch.Generator().manual_seed(seed)

    def _buckets(self, q: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        """(B, H, R, T); padding gets a bucket of its own after all others."""
        hashing = self.hashing
        factors = hashing.buckets or bucket_factors(q.shape[2], self.window.chunk, hashing.context)
        rotation = rotations(self.heads, self.head_width, hashing.rounds, factors, generator)
        count = math.prod(factors)
        buckets = hash_buckets(q, rotation, factors)
        if labels is not None:
            buckets = buckets.masked_fill(labels[:, None, None] < 0, count)
        return buckets.to(torch.int16 if count < 2**15 else torch.int32)  # kept for the backward pass: small
