"""Training to the end: the real steps on a table, with Adam and a rate that falls to 0."""

import math
from typing import Any

import torch
from torch import Tensor

from amauta.base.seeds import derive
from amauta.data.batches import Batch
from amauta.train.loop import Step
from amauta.verify import policies, preferences
from amauta.verify.ground import Ground

RATE = 0.3  # the first rate of a table that learns from pairs
DRAWN = 0.1  # and of one that learns from answers that it draws
MASKS = 0.01  # the rate of what is learnt beside the policy: SparsePO's masks
EDGE = 0.4  # and of policies that end at the edge, where one answer gets all


def preference(ground: Ground, trial: preferences.Trial) -> Tensor:
    """Train from the reference, on all pairs at every step; the answers' log-probs then, (X, N)."""
    trial.policy.place(ground.ref_table)
    batch, steps = trial.batch(range(len(trial.units))), ground.settings.steps
    beside = [weight for name, weight in trial.model.named_parameters() if name.startswith("masks.")]
    adam = torch.optim.Adam([{"params": [trial.policy.table], "rate": RATE}, {"params": beside, "rate": MASKS}])
    for number in range(steps):
        _advance(adam, trial.step, trial.model, batch, number / steps)
    return ground.space.logprobs(trial.policy.table.detach().double())


def policy(ground: Ground, trial: policies.Trial) -> Tensor:
    """Train from the reference, in every iteration on answers that the policy draws; log-probs then, (X, N)."""
    trial.policy.place(ground.ref_table)
    if trial.critic is not None:
        trial.critic.place(torch.zeros_like(trial.critic.table))
    chance = torch.Generator().manual_seed(derive(ground.settings.seed, "answers"))
    iterations = ground.settings.iterations
    adam = torch.optim.Adam(trial.model.parameters())
    adam.param_groups[0]["rate"] = DRAWN if trial.algorithm.beta else EDGE
    for number in range(iterations):
        batch = trial.drawn(chance)
        for _ in range(trial.passes):
            _advance(adam, trial.step, trial.model, batch, number / iterations)
    return ground.space.logprobs(trial.policy.table.detach().double())


def _advance(adam: torch.optim.Adam, step: Step, model: Any, batch: Batch, done: float) -> None:
    for group in adam.param_groups:
        group["lr"] = group["rate"] * (1 + math.cos(math.pi * done)) / 2
    adam.zero_grad()
    total, count, _ = step(model, batch)
    if total.requires_grad and count:
        (total / count).backward()
        adam.step()
