"""The loss of a batch of rankings, and the figures that are told of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from amauta.data.batches import Batch
from amauta.losses.reward import centring, k_wise, mean_by, pairs_of, plackett_luce
from amauta.rewards.model import end_rewards
from amauta.train.loop import Step
from amauta.train.reward.records import Rankings
from amauta.train.reward.settings import Ranked


class Compared(NamedTuple):
    """Which of N answers belong to which of P rankings, and their order there."""

    groups: Tensor  # (N,): 0 to P-1
    ranks: Tensor  # (N,): the least is the best
    margins: Tensor  # (P,)


def compared(made: Rankings, units: Sequence[int], device: torch.device) -> Compared:
    """The rankings ``units``, whose answers stand one after another."""
    sizes = torch.tensor([len(made.ranks[unit]) for unit in units])
    groups = torch.arange(len(units)).repeat_interleave(sizes)
    ranks = torch.tensor([rank for unit in units for rank in made.ranks[unit]])
    return Compared(*(x.to(device) for x in (groups, ranks, torch.tensor([made.margins[unit] for unit in units]))))


def ranking_losses(rewards: Tensor, of: Compared, *, ranked: Ranked = "pairs", centre: float = 0.0) -> Tensor:
    """The loss of each ranking: (N,) → (P,). ``centre`` weighs the mean of (r + r')² over its pairs."""
    if ranked == "pairs":
        losses = k_wise(rewards, of.groups, of.ranks, margin=of.margins)
    else:
        losses = plackett_luce(rewards, of.groups)
    if not centre:
        return losses
    better, worse = pairs_of(of.groups, of.ranks)
    return losses + centre * mean_by(centring(rewards[better], rewards[worse]), of.groups[better], of.groups)


def figures(rewards: Tensor, of: Compared) -> dict[str, float]:
    """Sums over rankings: the share of their pairs whose better answer has the greater reward (half of equal ones), the
    mean difference, the mean reward."""
    better, worse = pairs_of(of.groups, of.ranks)
    difference = rewards[better] - rewards[worse]
    right = (difference > 0).float() + (difference == 0).float() / 2
    parts = {"accuracy": right, "margin": difference}
    found = {name: float(mean_by(values, of.groups[better], of.groups).sum()) for name, values in parts.items()}
    return found | {"reward": float(mean_by(rewards, of.groups, of.groups).sum())}


def reward_step(made: Rankings, *, ranked: Ranked, centre: float) -> Step:
    """The step over packed rankings; the mean is over rankings."""

    def step(model: nn.Module, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        units = [unit for row in batch.units for unit in row]
        of = compared(made, units, batch.ids.device)
        rewards = end_rewards(model, batch)  # type: ignore[arg-type]  # compiled, it is called as the model is
        return (
            ranking_losses(rewards, of, ranked=ranked, centre=centre).sum(),
            len(units),
            figures(rewards.detach(), of),
        )

    return step
