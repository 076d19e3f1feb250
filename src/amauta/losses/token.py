"""Losses over tokens, computed a chunk of rows at a time so that all logits are never held at once.

Contract: ``(hidden, table, targets, …) → (sum, count)`` in nats; the loop divides once by the global count, so that k
micro-batches or k ranks equal one batch. Targets of ``IGNORE`` carry no loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
CHUNK = 1024  # rows of logits held at a time


def cross_entropy(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    z_loss: float = 0.0,
    chunk: int = CHUNK,
    dtype: torch.dtype | None = None,
    gradient: "ChunkGradient | None" = None,
) -> tuple[Tensor, int]:
    """Sum over targets of ``-log softmax(hidden · tableᵀ + bias)[target]`` and their number.

    hidden (..., D), table (V, D), bias (V,), targets (...) with IGNORE where nothing is predicted. ``z_loss`` adds
    ``z_loss · logsumexp²`` a token (Chowdhery et al. 2022, arXiv 2204.02311, section 5). ``dtype`` is that of the
    matrix products (f32 when left out); softmax and sums are f32. Work and memory are proportional to the tokens that
    carry a loss: logits of at most ``chunk`` rows exist at a time, and each is computed once, its gradient with it.
    ``gradient`` may be ``dynamic_gradient``, or either of the two compiled; every call has the same shapes.
    """
    hidden, targets = _supervised(hidden, targets)
    kind = dtype or torch.float32
    total = _ChunkedCrossEntropy.apply(hidden, table, targets, z_loss, chunk, kind, gradient or chunk_gradient, bias)
    return total, targets.numel()  # type: ignore[return-value]  # apply is untyped


def token_logprobs(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Log-probs (nats, f32) of the targets, shaped as they are; 0 where the target is IGNORE. Differentiable.

    hidden (..., D), table (V, D), targets (...), bias (V,). With gradients each chunk's logits are computed again in
    the backward pass instead of being kept.
    """
    flat, wanted = _supervised(hidden, targets)
    pieces: list[Tensor] = []
    for rows, ids in zip(flat.split(chunk), wanted.split(chunk), strict=True):
        if torch.is_grad_enabled():
            pieces.append(checkpoint(_logprobs, rows, table, ids, bias, dtype, use_reentrant=False))  # type: ignore[arg-type]
        else:
            pieces.append(_logprobs(rows, table, ids, bias, dtype))
    found = torch.cat(pieces) if pieces else flat.new_zeros(0, dtype=torch.float32)
    out = torch.zeros(targets.shape, dtype=torch.float32, device=hidden.device)
    return out.masked_scatter(targets != IGNORE, found)


@torch.no_grad()
def hits(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
    dtype: torch.dtype | None = None,
) -> int:
    """How many targets are the most probable token at their place; of equals the smallest id counts as it."""
    flat, wanted = _supervised(hidden, targets)
    found = 0
    for rows, ids in zip(flat.split(chunk), wanted.split(chunk), strict=True):
        found += int((_logits(rows, table, bias, dtype).argmax(-1) == ids).sum())
    return found


def _supervised(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that carry a loss: (N, D) and (N,)."""
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    keep = wanted != IGNORE
    if bool(keep.all()):
        return flat, wanted
    return flat[keep], wanted[keep]


def _logprobs(rows: Tensor, table: Tensor, ids: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    logits = _logits(rows, table, bias, dtype)
    return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)


def _logits(rows: Tensor, table: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:  # (n, V), f32
    with torch.autocast(rows.device.type, enabled=False):
        kind = dtype or rows.dtype
        logits = (rows.to(kind) @ table.to(kind).T).float()
        return logits if bias is None else logits + bias.float()


def chunk_gradient(
    rows: Tensor,
    table: Tensor,
    ids: Tensor,
    z_loss: float,
    bias: Tensor | None = None,
    *,
    dynamic: bool = False,
    frozen: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """One chunk, worked by hand: its loss and the loss's gradient in rows (n, D), table (V, D; None where it is
    ``frozen``) and bias (V,), if there is one. IGNORE rows count nothing.

    With p = softmax(z), l = logsumexp(z) and the target's weight w: d loss/d z = w·(p - onehot) + 2·z_loss·l·p. w is 1,
    or with ``dynamic`` the target's p, held fixed (``dynamic_gradient``). Pure, so that it can be compiled.
    """
    counts = (ids != IGNORE)[:, None]  # (n, 1)
    wanted = ids.clamp_min(0)[:, None]
    logits = (rows @ table.T).float()  # (n, V)
    if bias is not None:
        logits = logits + bias.float()
    lse = logits.logsumexp(-1, keepdim=True)  # (n, 1)
    surprise = lse - logits.gather(1, wanted)  # (n, 1): -log p of the target
    weight = (-surprise).exp() if dynamic else torch.ones_like(surprise)
    loss = ((weight * surprise + z_loss * lse.square()) * counts).sum()
    slope = (logits - lse).exp() * (weight + 2 * z_loss * lse)
    hit = torch.arange(table.shape[0], device=ids.device) == wanted
    slope = (slope - weight * hit.float()) * counts  # (n, V)
    d_bias = None if bias is None else slope.sum(0)
    slope = slope.to(rows.dtype)
    return loss, slope @ table, None if frozen else slope.T @ rows, d_bias


def dynamic_gradient(
    rows: Tensor, table: Tensor, ids: Tensor, z_loss: float, bias: Tensor | None = None, *, frozen: bool = False
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """As ``chunk_gradient`` for dynamic fine-tuning: a token's loss is ``-sg(p) log p`` with p the probability that the
    model gives it and sg a stopped gradient (Wu et al. 2025, arXiv 2508.05629, eq. 9).

    The paper sums over a sequence; here, as for every token loss, the sum is divided once by the supervised tokens of
    the step.
    """
    return chunk_gradient(rows, table, ids, z_loss, bias, dynamic=True, frozen=frozen)


ChunkGradient = Callable[..., tuple[Tensor, Tensor, Tensor | None, Tensor | None]]  # the arguments of chunk_gradient


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The loss is a sum, so its gradient is known up to one factor: make it in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        z_loss: float,
        chunk: int,
        dtype: torch.dtype,
        gradient: ChunkGradient,
        bias: Tensor | None,
    ) -> Tensor:
        learns = ctx.needs_input_grad[1]  # type: ignore[attr-defined]  # FunctionCtx is untyped
        frozen = {} if learns else {"frozen": True}  # a third of the work, where an adapter learns
        with torch.autocast(hidden.device.type, enabled=False):
            total = hidden.new_zeros((), dtype=torch.float32)
            d_hidden = torch.empty_like(hidden)
            d_table = torch.zeros_like(table if learns else table[:0], dtype=torch.float32)
            d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            weights, added = table.to(dtype), () if bias is None else (bias,)
            for start in range(0, targets.numel(), chunk):
                rows, ids = hidden[start : start + chunk].to(dtype), targets[start : start + chunk]
                n = ids.numel()
                if n < chunk:  # every chunk has one shape, so that compiled code is compiled once
                    rows, ids = F.pad(rows, (0, 0, 0, chunk - n)), F.pad(ids, (0, chunk - n), value=IGNORE)
                loss, d_rows, d_weights, d_added = gradient(rows, weights, ids, z_loss, *added, **frozen)
                total += loss
                d_hidden[start : start + n] = d_rows[:n]
                if d_weights is not None:
                    d_table += d_weights
                if d_bias is not None and d_added is not None:
                    d_bias += d_added
        kept = (d_hidden, d_table.to(table.dtype))
        ctx.save_for_backward(*kept, *(() if d_bias is None or bias is None else (d_bias.to(bias.dtype),)))
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_table, *d_bias = ctx.saved_tensors  # type: ignore[attr-defined]  # FunctionCtx is untyped
        (factor,) = grads
        learns = ctx.needs_input_grad[1]  # type: ignore[attr-defined]
        return (
            d_hidden * factor,
            d_table * factor if learns else None,
            *(None,) * 5,
            d_bias[0] * factor if d_bias else None,
        )
