"""Where a method comes to rest, found with sums in f64 and none of the code that trains.

Own optima are zeros of a *field*: the direction in which a method moves the table (X, S, V) on average. For a loss it
is minus its gradient; group methods have fields that are the gradient of nothing.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.func import grad, jacrev
from torch.nn import functional as F

from amauta.losses.policy import STEADY
from amauta.verify.ground import Ground
from amauta.worlds.enumerable import groups_of

Field = Callable[[Tensor], Tensor]  # a table (X, S, V) → the direction in which it is moved
Loss = Callable[[Tensor, Tensor], Tensor]  # a table, and the same held fixed where the method holds it fixed


def downhill(loss: Loss) -> Field:
    """The field of a loss; what it holds fixed has no gradient, and follows all the same."""
    return lambda table: -grad(loss)(table, table)


def settled(field: Field, start: Tensor, *, most: int = 80, small: float = 1e-11) -> Tensor:
    """Follow the field from ``start`` to its rest: implicit Euler steps that grow as the field fades, in the end
    Newton's (pseudo-transient continuation; Kelley and Keyes 1998). An optimum at infinity is approached until its
    field is ``small``, or ``most`` steps are done."""
    table, step = start.clone(), 1.0
    shape, one = table.shape, torch.eye(table.numel(), dtype=table.dtype)
    force = field(table)
    for _ in range(most):
        size = float(force.abs().max())
        if size < small:
            break
        slope = jacrev(field)(table).reshape(one.shape)
        move = torch.linalg.solve(one / step - slope, force.flatten()).view(shape)
        tried = field(table + move)
        now = float(tried.abs().max())
        if not now < 10 * size or float(move.abs().max()) > 20:
            step /= 4
            continue
        table, force = table + move, tried
        step = min(1e8, step * min(10.0, max(0.5, size / max(now, 1e-300))) * 1.2)
    return table.log_softmax(-1)


def wishes(ground: Ground, table: Tensor, coefficients: Tensor) -> Tensor:
    """``sum over answers and their tokens of coefficient · ∇ log π(token)``: (X, N, length) → the field (X, S, V)."""
    at, tokens, mask = ground.space.paths
    coefficients = torch.where(mask, coefficients, 0.0)
    flat = torch.zeros(len(table), table.shape[1] * table.shape[2], dtype=table.dtype)
    place = (at * table.shape[2] + tokens).flatten().expand(len(table), -1)
    pulled = flat.scatter_add(1, place, coefficients.flatten(1)).view(table.shape)
    return pulled - pulled.sum(-1, keepdim=True) * table.softmax(-1)


def grouped(ground: Ground, logprobs: Tensor) -> Tensor:
    """What GRPO's normalised advantage is worth to each answer on average: ``E[A of the group's answers y] / G``, a sum
    over all groups, (X, N)."""
    size = ground.settings.group
    groups, ways = groups_of(logprobs.shape[1], size)
    rewards = ground.reward[:, groups]  # (X, M, G)
    advantages = (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + STEADY)
    chances = ways * logprobs[:, groups].sum(-1).exp()  # (X, M)
    each = chances[..., None] * advantages / size
    return torch.zeros_like(logprobs).scatter_add(1, groups.flatten().expand(len(logprobs), -1), each.flatten(1))


# -- the losses over pairs, as sums over all pairs: written here a second time, from their papers


def bradley_terry(ground: Ground, lead: Tensor, *, wrong: float = 0.0) -> Tensor:
    """``-log σ`` of how far each answer is ahead of each, (X, N) values → their mean over the data. A share ``wrong``
    counts for the other side."""
    ahead = lead[:, :, None] - lead[:, None, :]
    return (ground.shares * ((1 - wrong) * F.softplus(-ahead) + wrong * F.softplus(ahead))).sum()


def divergences(ground: Ground, table: Tensor, masks: Tensor | None = None) -> Tensor:
    """``sum_t m_t KL(ref || π)`` at each answer's tokens, (X, N); masks (X, N, length) are 1 when left out."""
    apart = (ground.ref_table.exp() * (ground.ref_table - table.log_softmax(-1))).sum(-1, keepdim=True)  # (X, S, 1)
    along = ground.space.along(apart.expand_as(table))
    return (along if masks is None else along * masks).sum(-1)


def logratio(ground: Ground, table: Tensor, masks: Tensor | None = None) -> Tensor:
    """``h = log π - log ref`` of each answer, (X, N), its tokens weighed by masks where there are any."""
    along = ground.space.along(table.log_softmax(-1) - ground.ref_table)
    return (along if masks is None else along * masks).sum(-1)


# -- optima by formula


def tilted(ground: Ground, lead: Tensor) -> Tensor:
    """``ref e^lead / Z``: (X, N) → log-probs (X, N)."""
    return (ground.ref + lead).log_softmax(-1)


def squares(ground: Ground, target: float) -> Tensor:
    """The h (X, N) whose differences are nearest to ``±target`` in the mean square over the data: IPO's problem, a
    linear one (the Laplacian of the graph of pairs)."""
    pull = ground.shares - ground.shares.mT
    both = ground.shares + ground.shares.mT
    laplacian = torch.diag_embed(both.sum(-1)) - both
    return (torch.linalg.pinv(laplacian) @ (target * pull.sum(-1, keepdim=True)))[..., 0]


def normalised_by_length(ground: Ground, lead: Tensor) -> Tensor:
    """``log π = log ref + |y| (lead + c)`` with the c at which probabilities sum to 1: (X, N) → (X, N)."""
    low, high = torch.full((len(lead), 1), -100.0, dtype=lead.dtype), torch.full((len(lead), 1), 100.0).to(lead)
    for _ in range(200):
        middle = (low + high) / 2
        over = (ground.ref + ground.space.lengths * (lead + middle)).logsumexp(-1, keepdim=True) > 0
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return (ground.ref + ground.space.lengths * (lead + low)).log_softmax(-1)


def whole_steps(ground: Ground) -> Tensor:
    """The βh (X, N) with the least hinge loss over the data.

    The problem is the dual of a flow of least cost, whose optimum is reached in whole numbers, and no answer is more
    than N - 1 ahead of the last: so all whole numbers are tried.
    """
    count = ground.ref.shape[1]
    tries = torch.tensor(list(product(range(count), repeat=count)), dtype=torch.int8)
    tries = tries[tries.min(1).values == 0]
    found = []
    for shares in ground.shares:
        losses = torch.zeros(len(tries), dtype=torch.float64)
        for i in range(count):
            for j in range(count):
                losses += shares[i, j] * (1 - (tries[:, i] - tries[:, j])).clamp(min=0)
        found.append(tries[losses.argmin()].double())
    return torch.stack(found)


def one_step_better(ground: Ground) -> Tensor:
    """TDPO's optimum: ``π(a|s) ∝ ref(a|s) e^(Q_ref(s,a)/β)``, Q under the *reference* from there on.

    Its implicit reward of a token, ``β (log π/ref + KL(ref || π))``, has mean 0 under the reference in every state, so
    it can only be the reference's advantage; those of an answer add up to its reward less the prompt's value, which is
    what Bradley-Terry asks for.
    """
    quality = ground.space.expected_after(ground.ref, ground.reward)
    return (ground.ref_table + quality / ground.settings.beta).log_softmax(-1)
