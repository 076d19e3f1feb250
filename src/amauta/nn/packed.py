"""Causal attention of packed rows, document by document, as one operation that a compiled step calls too.

A mask over a whole row makes the fused kernel compute every pair of the row's tokens; a row of five documents costs
five times what they cost alone. The operation is opaque to the compiler, which may not look at how long documents are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from amauta.nn.masks import decoding, spans


class Documents(NamedTuple):
    """In place of a mask: each token sees itself and what stands before it in its own document."""

    numbers: Tensor  # (B, T)


def attend_documents(q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float) -> Tensor:
    """q (B, T, H, K), k and v (B, T, G, K) → (B, T, H·K); on a processor, without dropout."""
    out, _ = _attend(q.to(v.dtype), k.to(v.dtype), v, documents.numbers, scale)
    return out.flatten(2)


@torch.library.custom_op("amauta::attend_documents", mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, numbers: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What is attended to (B, T, H, K), and the logsumexp of the scores (B, H, T) for the way back."""
    out, sums = torch.empty_like(q), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    for at, mask in _pieces(q, numbers):
        parts = [_heads(x[at], q.shape[2]) for x in (q, k, v)]
        found, held = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *parts, 0.0, mask is None, attn_mask=mask, scale=scale
        )
        out[at] = found.transpose(1, 2)
        sums[at[0], :, at[1]] = held
    return out, sums


@torch.library.custom_op("amauta::attend_documents_back", mutates_args=())
def _back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, numbers: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    found = tuple(torch.empty_like(x) for x in (q, k, v))
    for at, mask in _pieces(q, numbers):
        parts = [_heads(x[at], q.shape[2]) for x in (grad, q, k, v, out)]
        slopes = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *parts, sums[at[0], :, at[1]].contiguous(), 0.0, mask is None, attn_mask=mask, scale=scale
        )
        for whole, slope in zip(found, slopes, strict=True):  # query heads that share a key add up
            whole[at] = slope.unflatten(1, (whole.shape[2], -1)).sum(2).transpose(1, 2)
    return found  # type: ignore[return-value]  # three of three


@_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, numbers: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)


@_back.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, numbers: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output) -> None:  # torch's types for these are its own
    q, k, v, numbers, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, numbers)


def _gradient(ctx, grad: Tensor, _: Tensor):
    q, k, v, out, sums, numbers = ctx.saved_tensors
    return *_back(grad.to(out.dtype), q, k, v, out, sums, numbers, ctx.scale), None, None


_attend.register_autograd(_gradient, setup_context=_keep)

Place = tuple[slice, slice]


def _pieces(q: Tensor, numbers: Tensor) -> list[tuple[Place, Tensor | None]]:
    """Rows and tokens that are attended to by themselves: documents, and no mask; or where documents do not stand in
    one piece each, everything, and the mask as numbers to be added."""
    found = spans(numbers)
    if found is not None:
        return [((slice(b, b + 1), slice(i, j)), None) for b, row in enumerate(found.rows) for i, j in row]
    seen = decoding(numbers.shape[1], q.device, documents=numbers)
    added = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
    return [((slice(None), slice(None)), added)]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, G, K) -> (B, H, T, K)."""
    share = heads // x.shape[2]
    return (x if share == 1 else x.repeat_interleave(share, dim=2)).transpose(1, 2)
