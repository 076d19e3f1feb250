"""Losses of reward models: what two or more answers to one prompt are worth, learned from which is the better.

Rewards are numbers r, one an answer; only their differences carry a meaning. Losses are in nats, one a comparison.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def bradley_terry(chosen: Tensor, rejected: Tensor, *, margin: Tensor | float = 0.0) -> Tensor:
    """``-log σ(r_chosen - r_rejected - margin)``: (B,), (B,) → (B,); log 2 where the two are equal.

    Bradley and Terry 1952: P(chosen beats rejected) = e^r_c / (e^r_c + e^r_r) = σ(r_c - r_r). The margin, one for all
    or (B,), is how much better the chosen answer was said to be (Touvron et al. 2023, arXiv 2307.09288, eq. 2).
    """
    return -F.logsigmoid(chosen - rejected - margin)


def k_wise(rewards: Tensor, groups: Tensor, ranks: Tensor, *, margin: Tensor | float = 0.0) -> Tensor:
    """Mean Bradley-Terry loss over all pairs of each ranking: (N,), (N,), (N,) → (P,), one a ranking.

    The N answers are those of all rankings; ``groups`` numbers the ranking of each, 0 to P-1, and a smaller of the
    ``ranks`` is the better answer. Two of one rank are no pair, and K answers without such are C(K, 2) of them.
    ``margin`` is one for all, or (P,). Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, eq. 1: all pairs of a
    prompt are one element of the batch, and an answer is read once, not K - 1 times.
    """
    better, worse = pairs_of(groups, ranks)
    margin = margin[groups[better]] if isinstance(margin, Tensor) else margin
    return mean_by(bradley_terry(rewards[better], rewards[worse], margin=margin), groups[better], groups)


def plackett_luce(rewards: Tensor, groups: Tensor) -> Tensor:
    """``-sum_i [r_i - log sum_(j >= i) e^r_j]`` of each ranking, best first: (N,), (N,) → (P,).

    The probability that answers are drawn in this very order, each from those that are left (Plackett 1975). For two
    answers it is Bradley-Terry's.
    """
    behind = (groups[:, None] == groups[None, :]).triu()  # (N, N): itself and what is ranked after it
    left = rewards.expand(len(rewards), -1).masked_fill(~behind, -torch.inf).logsumexp(1)  # (N,)
    return left.new_zeros(int(groups.max()) + 1).index_add(0, groups, left - rewards)


def centring(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``(r_chosen + r_rejected)²``: (B,), (B,) → (B,), to be added with a small weight (0.01).

    A comparison leaves the sum of two rewards free; this holds it near 0 (Eisenstein et al. 2023, arXiv 2312.09244).
    """
    return (chosen + rejected).square()


def best_of_n_kl(n: int) -> float:
    """At most so many nats lie between the best of n samples and the model that drew them: log n - (n - 1)/n.

    Stiennon et al. 2020, arXiv 2009.01325. A bound, which is met where every answer is rare and no two have one reward
    (Beirami et al. 2024, arXiv 2401.01879).
    """
    return math.log(n) - (n - 1) / n


def pairs_of(groups: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """The places of the better and of the worse answer of every pair within a ranking: (N,), (N,) → (pairs,) twice."""
    beats = (groups[:, None] == groups[None, :]) & (ranks[:, None] < ranks[None, :])  # (N, N)
    better, worse = torch.nonzero(beats, as_tuple=True)
    return better, worse


def mean_by(values: Tensor, owners: Tensor, groups: Tensor) -> Tensor:
    """The mean of each group's values, (pairs,), (pairs,) → (P,), P by ``groups``; 0 for a group without a value."""
    count = int(groups.max()) + 1
    totals = values.new_zeros(count).index_add(0, owners, values)
    return totals / torch.bincount(owners, minlength=count).clamp(min=1)
