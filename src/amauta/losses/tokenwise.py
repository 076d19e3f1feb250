"""Preferences token by token: which tokens of a pair are learnt (SePO), or how much each counts (SparsePO, MaPO).

Letters: B pairs, n tokens of one answer, V vocabulary. Log-probs and divergences are in nats; sums over an answer are
(B, 2), the chosen first.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from amauta.losses.preference import logistic, simpo
from amauta.losses.token import CHUNK, IGNORE


def select(scores: Tensor, share: float, *, lowest: bool = False) -> Tensor:
    """The ``floor(share · n)`` tokens of one answer, one at the least, with the highest scores, or the lowest: (n,)
    → (n,) bool. Of equal scores the earlier token is taken.

    SePO (Yang et al. 2024, arXiv 2408.13518): the score is log π_oracle - log π_ref; of the chosen answer the highest
    are learnt, of the rejected one the lowest. The released code can never select an answer's first token; here it can.
    """
    count = max(1, math.floor(share * len(scores) + 1e-9))  # 0.29 · 100 is 28.999… on a machine
    order = torch.argsort(scores, descending=not lowest, stable=True)
    chosen = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    chosen[order[:count]] = True
    return chosen


def sepo(policy: Tensor, lengths: Tensor, *, scale: float = 1.0, lead: float = 0.0) -> Tensor:
    """``-log σ(u_w - u_l - λ)``, ``u = γ/m · Σ log π`` over the m selected tokens of an answer (Yang et al. 2024):
    (B, 2) sums and (B, 2) counts of the selected tokens → (B,). ``scale`` is γ, ``lead`` λ.

    So it is SimPO with β = γ and the margin λ, on the selected tokens. The paper divides by k·|y|, which is m but for
    rounding; the released code takes the mean, as here.
    """
    return simpo(policy, lengths, beta=scale, target_margin=lead)


def sparsepo(rewards: Tensor, divergence: Tensor, *, beta: float = 0.1) -> Tensor:
    """``-log σ(β(u - δ))``: (B, 2) sums of ``m_u(t) · h_t`` and of ``m_d(t) · KL_t`` → (B,), where ``h_t`` is log π -
    log π_ref of a token and ``KL_t`` = KL(π_ref || π) at its place (Christopoulou et al. 2024, arXiv 2410.05102).

    ``u`` is the chosen answer's sum less the rejected one's, δ the other way round. With m = 1 it is TDPO1 (Zeng et al.
    2024, arXiv 2404.11999); with m = 0 it is log 2 and has no gradient.
    """
    both = rewards + divergence  # (B, 2)
    return logistic(both[:, 0] - both[:, 1], beta=beta)


def penalty(
    rewards: Tensor, divergence: Tensor, *, l1_reward: float = 1e-3, l1_divergence: float = 1e-3, common: bool = False
) -> Tensor:
    """What mask weights cost: (B, 2) sums of the two masks → (B,), ``l1_u(|m_u(w)| + |m_u(l)|) + l1_d(…)``, halved when
    both are one mask (Christopoulou et al. 2024). Masks are never negative, so their sum is their norm."""
    cost = l1_reward * rewards.sum(1) + l1_divergence * divergence.sum(1)
    return cost / 2 if common else cost


def rescaled(values: Tensor) -> Tensor:
    """Each row of (…, n) brought to [0, 1]: its least value to 0, its greatest to 1; 1 everywhere where all are equal.

    MaPO takes z-scores first. Those are an increasing linear map, which this undoes, so they are left out; an answer of
    one token, which has no z-score, counts whole.
    """
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return torch.where(high > low, (values - low) / (high - low), 1.0)


def mapo_mask(activations: Sequence[Tensor]) -> Tensor:
    """A mask from the reference's activations: of each type (layers, n), the mean over the features at every token →
    (n,) in [0, 1]: each layer rescaled, the mean over a type's layers, then over types (Christopoulou et al. 2024)."""
    return torch.stack([rescaled(values).mean(0) for values in activations]).mean(0)


def compared(
    policy: tuple[Tensor, Tensor, Tensor | None],
    reference: tuple[Tensor, Tensor, Tensor | None],
    targets: Tensor,
    *,
    chunk: int = CHUNK,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of the targets under the policy and under the reference, and KL(π_ref || π) over the whole vocabulary
    at their places: three tensors (…) in f32, 0 where the target is IGNORE. Differentiable in the policy.

    Each model is given as its states (…, D), its table (V, D) and its bias (V,) or None; widths may differ. Logits of
    at most ``chunk`` places exist at a time: with gradients they are computed again in the backward pass.
    """
    keep = targets.reshape(-1) != IGNORE
    ours, theirs = (states.reshape(-1, states.shape[-1])[keep] for states in (policy[0], reference[0].detach()))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for mine, other, ids in zip(*(x.split(chunk) for x in (ours, theirs, targets.reshape(-1)[keep])), strict=True):
        given = (mine, *policy[1:], other, *reference[1:], ids, dtype)
        if torch.is_grad_enabled():
            found.append(checkpoint(_compared, *given, use_reentrant=False))  # type: ignore[arg-type]
        else:
            found.append(_compared(*given))
    blank = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
    logprobs, others, divergence = (
        blank.masked_scatter(targets != IGNORE, torch.cat(column)) for column in zip(*found, strict=True)
    )
    return logprobs, others, divergence


def _compared(
    ours: Tensor,
    table: Tensor,
    bias: Tensor | None,
    theirs: Tensor,
    ref_table: Tensor,
    ref_bias: Tensor | None,
    ids: Tensor,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    log_p = _log_softmax(ours, table, bias, dtype)  # (n, V)
    with torch.no_grad():
        log_q = _log_softmax(theirs, ref_table, ref_bias, dtype)
        q = log_q.exp()
    divergence = torch.where(q > 0, q * (log_q - log_p), 0.0).sum(-1)  # a token that cannot come adds nothing
    at = ids[:, None]
    return log_p.gather(1, at)[:, 0], log_q.gather(1, at)[:, 0], divergence


def _log_softmax(rows: Tensor, table: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        kind = dtype or rows.dtype
        logits = (rows.to(kind) @ table.to(kind).T).float()
        return (logits if bias is None else logits + bias.float()).log_softmax(-1)
