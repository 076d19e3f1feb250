"""Bias and variance of a method's gradient, by going through every batch that could be drawn: sums, and no samples."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from amauta.data.batches import Batch
from amauta.train.loop import Step
from amauta.verify import exact, policies, preferences
from amauta.verify.ground import Ground
from amauta.worlds.enumerable import TabularModel, groups_of, objective

Gradients = Iterator[tuple[float, Tensor]]  # how likely a batch is, and its gradient in the table (X, S, V), f64


def of_preference(ground: Ground, trial: preferences.Trial) -> dict[str, float]:
    """Batches of one pair (of one answer, where the method learns from single ones), each as often as in the data;
    exact is the gradient of the loss over all of the data."""
    trial.policy.place(ground.point)
    slope = -exact.downhill(trial.loss())(ground.point)
    return compared(_of_units(trial), slope)


def _of_units(trial: preferences.Trial) -> Gradients:
    alike: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], int] = {}
    for number, kind in enumerate(trial.kinds):
        alike[kind] += 1
        first.setdefault(kind, number)
    for kind, count in alike.items():
        yield count / len(trial.units), slope_of(trial.step, trial.model, trial.policy, trial.batch([first[kind]]))


def of_policy(ground: Ground, trial: policies.Trial) -> dict[str, float]:
    """Batches of one group of answers to one prompt, either prompt alike; exact is the gradient of what the method
    says that it maximises, ``E r - β KL``. A critic knows what is to come."""
    trial.policy.place(ground.point)
    if trial.critic is not None:
        values = policies.exact_critic(ground, ground.point, trial.algorithm.beta)
        trial.critic.place(values[..., None])
    table = ground.point.clone().requires_grad_()
    gain = objective(ground.space.logprobs(table), ground.ref, ground.reward, trial.algorithm.beta).mean()
    return compared(_of_groups(ground, trial), -torch.autograd.grad(gain, table)[0])


def _of_groups(ground: Ground, trial: policies.Trial) -> Gradients:
    groups, ways = groups_of(ground.ref.shape[1], ground.settings.group)
    logprobs = ground.space.logprobs(ground.point)
    for x in range(len(logprobs)):
        chances = ways * logprobs[x, groups].sum(-1).exp() / len(logprobs)
        for group, chance in zip(groups, chances.tolist(), strict=True):
            picks = torch.full((len(logprobs), 1, len(group)), -1)
            picks[x, 0] = group
            yield chance, slope_of(trial.step, trial.model, trial.policy, trial.batch(picks))


def slope_of(step: Step, model: Any, policy: TabularModel, batch: Batch) -> Tensor:
    """The gradient in the policy's table of one batch's loss, as the loop would take it; 0 where nothing is learnt."""
    for parameter in model.parameters():
        parameter.grad = None
    total, count, _ = step(model, batch)
    if total.requires_grad and count:
        total.backward()
    slope = policy.table.grad
    return torch.zeros_like(policy.table, dtype=torch.float64) if slope is None else slope.double() / count


def compared(gradients: Gradients, exact_one: Tensor) -> dict[str, float]:
    """``bias``: the part of the mean gradient that is not along the exact one, in [0, 1] (the sine between them);
    ``scale``: the length of the part that is, in exact gradients, which a learning rate can mend; ``variance`` of a
    batch's gradient, in squares of the mean one's length."""
    chances, slopes = zip(*gradients, strict=True)
    weights, all_of = torch.tensor(chances, dtype=torch.float64), torch.stack([slope.flatten() for slope in slopes])
    assert math.isclose(float(weights.sum()), 1.0, rel_tol=1e-9)
    mean, wanted = weights @ all_of, exact_one.flatten()
    scale = float(mean @ wanted / (wanted @ wanted))
    rest = mean - scale * wanted
    spread = weights @ (all_of - mean).square().sum(1)
    return {
        "bias": float(rest.norm() / mean.norm()), "scale": scale,
        "variance": float(spread / mean.square().sum()),
    }  # fmt: skip
