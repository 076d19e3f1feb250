"""Equations of policy optimisation: what an action was worth, and what is minimised for it.

An *advantage* tells how much better an action was than what was expected. Those of groups read the rewards of G answers
to each of P prompts, ``(P, G) → (P, G)``, one value for a whole answer; ``gae`` reads rewards and values step by step,
``(N, T) → (N, T)``. A *policy loss* gives nats for every action, ``(new, old, advantages, …) → (N, T)``: ``new`` are
the log-probs of what is trained, with their graph, ``old`` those of the policy that acted. An *aggregation* says what
each action weighs, ``mask → (weights (N, T), count)``; the loss is the weighted sum over the count. The cat of a
gridworld and a language model learn by these same functions. ``mask`` (N, T) is True on actions that were taken; they
stand at the front of their row.
"""

import torch
from torch import Tensor

from amauta.losses.divergence import kl_estimates

STEADY = 1e-4  # added to a group's deviation, as published


# -- what an action was worth


def returns(rewards: Tensor, *, gamma: float = 1.0, last: Tensor | None = None) -> Tensor:
    """``G_t = r_t + γ G_{t+1}``: (N, T) → (N, T). ``last`` (N,) is what comes after the end (0 when left out)."""
    found, after = torch.empty_like(rewards), torch.zeros_like(rewards[..., 0]) if last is None else last
    for t in reversed(range(rewards.shape[-1])):
        after = rewards[..., t] + gamma * after
        found[..., t] = after
    return found


def gae(
    rewards: Tensor, values: Tensor, *, gamma: float = 1.0, lam: float = 0.95, last: Tensor | None = None
) -> Tensor:
    """Generalised advantage estimation: two (N, T) → (N, T); what is learnt as value is ``advantages + values``.

    ``δ_t = r_t + γ V_{t+1} - V_t``, ``A_t = δ_t + γ λ A_{t+1}`` (Schulman et al. 2015, arXiv 1506.02438, eq. 16). The
    value after the last step is ``last`` (N,), 0 when left out; of a row that ends early, rewards and values after its
    end must be 0. ``λ = 1`` gives the return less the value, ``λ = 0`` the error of one step.
    """
    after = torch.zeros_like(values[..., :1]) if last is None else last.unsqueeze(-1)
    errors = rewards + gamma * torch.cat((values[..., 1:], after), -1) - values
    return returns(errors, gamma=gamma * lam)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` (N, T) with mean 0 and sample deviation 1 where ``mask`` is True, and 0 elsewhere; fewer than two values,
    or equal ones, become 0."""
    count = mask.sum()
    centred = (x - (x * mask).sum() / count.clamp(min=1)) * mask
    variance = centred.square().sum() / (count - 1).clamp(min=1)
    return torch.where(variance > 0, centred * variance.clamp(min=1e-16).rsqrt(), 0.0)


def batch_centred(rewards: Tensor) -> Tensor:
    """``R - mean of all``: REINFORCE with the batch's mean as baseline (Williams 1992). An answer is part of its own
    baseline, which shortens the expected gradient by ``1 - 1/(P G)``."""
    return rewards - rewards.mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """``R_i - mean of the others' R``: unbiased (Kool et al. 2019; RLOO, Ahmadian et al. 2024, arXiv 2402.14740)."""
    others = rewards.shape[-1] - 1
    return rewards - (rewards.sum(-1, keepdim=True) - rewards) / others


def group_centred(rewards: Tensor) -> Tensor:
    """``R - mean of the group`` (Dr. GRPO, Liu et al. 2025, arXiv 2503.20783)."""
    return rewards - rewards.mean(-1, keepdim=True)


def group_normalised(rewards: Tensor) -> Tensor:
    """``(R - mean) / (deviation + 1e-4)``, the sample deviation (GRPO, Shao et al. 2024, arXiv 2402.03300, 4.1.2).

    A group whose rewards are equal has advantage 0.
    """
    return group_centred(rewards) / (rewards.std(-1, keepdim=True) + STEADY)


GROUP_ADVANTAGES = (batch_centred, leave_one_out, group_centred, group_normalised)


# -- what is minimised


def reinforce(new: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """``-A log π``: its gradient is that of the expected reward where ``old`` is the policy itself, and ``old`` is not
    read (Williams 1992, eq. 3)."""
    return -advantages * new


def clipped(new: Tensor, old: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """``-min(ρ A, clip(ρ, 1 - low, 1 + high) A)``, ``ρ = π/π_old`` of each action.

    Schulman et al. 2017, arXiv 1707.06347, eq. 7; a higher ``high`` is DAPO's (Yu et al. 2025, arXiv 2503.14476,
    eq. 10).
    """
    return _clipped((new - old).exp(), advantages, low, high)


def sequence_clipped(
    new: Tensor, old: Tensor, advantages: Tensor, *, mask: Tensor, low: float = 3e-4, high: float = 4e-4
) -> Tensor:
    """As ``clipped`` with one ratio for a whole answer, ``exp(mean over its actions of log π/π_old)``, and the value at
    every action (GSPO, Zheng et al. 2025, arXiv 2507.18071, eq. 5 to 7)."""
    mean = ((new - old) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)  # (N, 1)
    return _clipped(mean.exp().expand_as(new), advantages, low, high)


def _clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def value_loss(values: Tensor, old: Tensor, targets: Tensor, *, clip: float | None = 0.2) -> Tensor:
    """``½ max((V - R)², (V_old + clip(V - V_old, ±ε) - R)²)``, (N, T) each; without ``clip``: ``½ (V - R)²``."""
    free = (values - targets).square()
    if clip is None:
        return free / 2
    held = old + (values - old).clamp(-clip, clip)
    return torch.maximum(free, (held - targets).square()) / 2


def kl_tokens(new: Tensor, reference: Tensor, kind: str) -> Tensor:
    """An estimate of ``KL(π || π_ref)`` in nats for each action that π drew, by k1, k2 or k3 (``kl_estimates``).

    As a *reward* (no gradient) k1 and k3 are unbiased. As a *loss* it is the gradient that matters: that of k1 is 0 on
    average, that of k2 is the gradient of ``KL(π || π_ref)``, that of k3 the gradient of ``KL(π_ref || π)``.
    """
    return kl_estimates(new, reference)[kind]


# -- what each action weighs


def per_token(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Every action alike, over all of the batch (PPO; DAPO, arXiv 2503.14476, eq. 12)."""
    return mask.float(), mask.sum()


def per_answer(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The mean of each answer, then over answers that have an action: in a long one each weighs less (GRPO)."""
    return mask / mask.sum(-1, keepdim=True).clamp(min=1), _rows(mask)


def per_longest(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The sum of each answer over ``longest``, the same for all (Dr. GRPO, arXiv 2503.20783)."""
    return mask / longest, _rows(mask)


def summed(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The sum of each answer: an answer is one action, and its log-prob the sum over tokens (REINFORCE, RLOO)."""
    return mask.float(), _rows(mask)


def _rows(mask: Tensor) -> Tensor:
    return mask.any(-1).sum()


AGGREGATIONS = (per_token, per_answer, per_longest, summed)


# -- what is added to a reward


def overlong(lengths: Tensor, *, longest: int, margin: int) -> Tensor:
    """0 up to ``longest - margin`` tokens, then falling to -1 at ``longest``, and -1 beyond: (N,) → (N,).

    DAPO's soft punishment (arXiv 2503.14476, eq. 13); published with 20,480 and 4,096.
    """
    over = (longest - margin - lengths) / margin
    return torch.where(lengths > longest, -1.0, over.clamp(max=0.0))


def adapted_kl(beta: float, kl: float, *, target: float, horizon: float, samples: int) -> float:
    """The weight of the KL after ``samples`` more answers: ``β (1 + e n/horizon)``, ``e = clip(KL/target - 1, ±0.2)``
    (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""
    error = min(0.2, max(-0.2, kl / target - 1))
    return beta * (1 + error * samples / horizon)
