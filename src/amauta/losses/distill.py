"""How far a student is from its teacher: divergences of their next-token distributions, of the relations between their
tokens, of their states. Lower is nearer; every one is 0 where the two agree.

A divergence is a function ``(student, teacher) → (N,)`` of two ``Known``, log-probs in f32; ``distilled`` makes it of
hidden states a chunk of rows at a time, ``(sum, count)``.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 256  # rows of logits held at a time; the teacher's and the student's


class Known(NamedTuple):
    """Log-probs of all tokens, (N, V) with ``ids`` None; or of some, (N, K), with a last entry for all the others
    together, (N, K + 1), and the ``ids`` (N, K) of the first K."""

    logprobs: Tensor
    ids: Tensor | None = None


Divergence = Callable[[Tensor, Tensor], Tensor]  # log-probs of student and teacher over the same outcomes -> (N,)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student): the student has to cover all that the teacher may say (Hinton, Vinyals and Dean 2015,
    arXiv 1503.02531)."""
    return _kl(teacher, student)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student ‖ teacher): the student has to say only what the teacher may (Gu et al. 2023, arXiv 2306.08543)."""
    return _kl(student, teacher)


def jensen_shannon(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """β KL(t ‖ m) + (1 - β) KL(s ‖ m) with m = β t + (1 - β) s (Agarwal et al. 2023, arXiv 2306.13649, eq. 1).

    At β = 0 and 1 the forward and the reverse KL, which are its limits there when it is divided by β or 1 - β.
    """
    if beta in (0.0, 1.0):
        return (reverse_kl if beta else forward_kl)(student, teacher)
    mixed = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return beta * _kl(teacher, mixed) + (1 - beta) * _kl(student, mixed)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ p (log p - log q), in which an outcome without probability in p adds nothing."""
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """The log-probs softmax(z / T), in f32."""
    return (logits.float() / temperature).log_softmax(-1)


def best(logprobs: Tensor, k: int) -> Known:
    """The k likeliest of (N, V), and all others as one."""
    values, ids = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
    return with_rest(values, ids)


def at(logprobs: Tensor, ids: Tensor) -> Tensor:
    """(N, V) at the ids (N, K), and all others as one: (N, K + 1)."""
    return with_rest(logprobs.gather(-1, ids), ids).logprobs


def with_rest(logprobs: Tensor, ids: Tensor) -> Known:
    """Log-probs (N, K) of some tokens with that of all others together, at least e^-30."""
    rest = (1 - logprobs.exp().sum(-1, keepdim=True)).clamp(min=RARE).log()
    return Known(torch.cat((logprobs, rest), dim=-1), ids)


RARE = 1e-13  # beyond what f32 tells apart from nothing beside 1


def distilled(
    states: Tensor,
    table: Tensor,
    teacher: Callable[[int, int], Known],
    divergence: Divergence,
    *,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, int]:
    """T² · the sum of the divergences of N rows, and N. Differentiable in states (N, D), table (V, D) and bias (V,).

    ``teacher(start, stop)`` gives what the teacher says of those rows at the same temperature T; where it knows only
    some tokens, all others count as one outcome, so that the divergence is never more than the whole one. T² keeps
    gradients of one size whatever T is. ``dtype`` is that of the matrix product. Each chunk's logits are computed again
    in the backward pass.
    """
    total = states.new_zeros((), dtype=torch.float32)
    for start in range(0, len(states), chunk):
        stop = min(start + chunk, len(states))
        known = teacher(start, stop)
        one = checkpoint(_chunk, states[start:stop], table, bias, known, divergence, temperature, dtype,
                         use_reentrant=False)  # fmt: skip
        total = total + one  # type: ignore[operator]  # checkpoint is untyped
    return total * temperature**2, len(states)


def _chunk(
    states: Tensor, table: Tensor, bias: Tensor | None, known: Known, divergence: Divergence, temperature: float,
    dtype: torch.dtype | None,
) -> Tensor:  # fmt: skip
    student = logprobs_of(states, table, bias, temperature, dtype)
    if known.ids is not None:
        return divergence(at(student, known.ids), known.logprobs).sum()
    both = min(student.shape[-1], known.logprobs.shape[-1])  # tables are filled up to round sizes
    return divergence(student[:, :both], known.logprobs[:, :both]).sum()


def logprobs_of(
    states: Tensor, table: Tensor, bias: Tensor | None, temperature: float, dtype: torch.dtype | None = None
) -> Tensor:
    """Log-probs (n, V) at a temperature, of states (n, D)."""
    with torch.autocast(states.device.type, enabled=False):
        kind = dtype or states.dtype
        logits = (states.to(kind) @ table.to(kind).T).float()
        return tempered(logits if bias is None else logits + bias.float(), temperature)


# Encoders ----------------------------------------------------------------------------------------------------------


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of two states, (..., D) → (...) (Sanh et al. 2019, arXiv 1910.01108, section 3)."""
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)


def relations(first: Tensor, second: Tensor, seen: Tensor | None, heads: int) -> Tensor:
    """log softmax(A Bᵀ / √d) over the tokens that a token sees, in ``heads`` heads of d: two (B, T, ·) → (B, R, T, T).

    Of queries and keys these are a layer's attention maps; of values and values the value relation (Wang et al. 2020,
    arXiv 2002.10957, eq. 7 to 9), of queries or keys with themselves those of MiniLMv2 (Wang et al. 2020, arXiv
    2012.15828, eq. 4), whose number of heads is free. ``seen`` (B, T, T) is False where a token does not look.
    """
    a, b = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (first, second))  # (B, R, T, d)
    scores = a @ b.mT * a.shape[-1] ** -0.5
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
    return scores.log_softmax(-1)


def relation_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of relations (B, R, T, T), the mean over heads: (B, T)."""
    gap = torch.where(teacher.isneginf(), 0.0, teacher - student)
    return (teacher.exp() * gap).sum(-1).mean(1)
