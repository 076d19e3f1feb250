"""The step of every policy method: log-probs of the answers' tokens, a loss, and what each token weighs."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from amauta.data.batches import Batch
from amauta.device import Device
from amauta.losses.policy import (
    AGGREGATIONS,
    clipped,
    kl_tokens,
    per_token,
    reinforce,
    sequence_clipped,
    value_loss,
)
from amauta.losses.token import token_logprobs
from amauta.models.transformer import Transformer
from amauta.score import batch_logprobs
from amauta.train.loop import Step
from amauta.train.policy.experience import PolicyBatch
from amauta.train.policy.settings import Algorithm

AGGREGATE = {function.__name__: function for function in AGGREGATIONS}


class Actor(nn.Module):
    """What is trained: the policy, and the critic where the method has one. Never in training mode: with dropout the
    new policy would differ from the old one before any step."""

    def __init__(self, policy: Any, critic: Transformer | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic

    def train(self, mode: bool = True) -> "Actor":
        return super().train(False)

    def compiled(self) -> Any:
        """Both with their ``forward`` compiled."""
        return SimpleNamespace(policy=self.policy.compiled(), critic=self.critic and self.critic.compiled())

    def packed_rows(self) -> dict[Tensor, tuple[int, ...]]:
        return self.policy.packed_rows() | (self.critic.packed_rows() if self.critic is not None else {})


def answer_logprobs(model: Any, batch: PolicyBatch, *, temperature: float, dtype: torch.dtype | None) -> Tensor:
    """Log-probs (nats, f32) of the answers' tokens at ``temperature``, (N, R), 0 elsewhere. Differentiable."""
    hidden = model(batch.ids, positions=batch.positions, documents=batch.documents)  # (B, T, D)
    states = model.output_states(hidden)
    if temperature != 1.0:
        states = states / temperature
    bias = model.output_bias if temperature == 1.0 or model.output_bias is None else model.output_bias / temperature
    found = token_logprobs(states, model.output_table, batch.targets, bias=bias, dtype=dtype)  # (B, T)
    return _picked(found, batch)


def answer_values(critic: Any, batch: PolicyBatch) -> Tensor:
    """What the critic expects before each token of the answers: (N, R)."""
    hidden = critic(batch.ids, positions=batch.positions, documents=batch.documents)
    return _picked(critic.logits(hidden, output="value").float(), batch)


def _picked(rows: Tensor, batch: PolicyBatch) -> Tensor:
    """Of (B, T) what belongs to the answers' tokens, (N, R)."""
    return torch.where(batch.mask, rows.flatten()[batch.at], 0.0)


def policy_step(algorithm: Algorithm, device: Device, *, temperature: float = 1.0, longest: int = 1) -> Step:
    """The step over a PolicyBatch, of a model with ``policy`` and ``critic`` (an Actor).

    ``longest``: the tokens of the longest answer, for ``per_longest``.
    """
    aggregate = AGGREGATE[algorithm.aggregate]

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        assert isinstance(batch, PolicyBatch)
        new = answer_logprobs(model.policy, batch, temperature=temperature, dtype=device.autocast)  # (N, R)
        old = new.detach() if batch.old is None else batch.old
        weights, counted = aggregate(batch.mask, longest)
        count, totals = int(counted), batch.totals or batch.counts()
        whole = totals["actions"] if aggregate is per_token else totals["answers"]  # what the loop will divide by
        tokens = _policy_loss(algorithm, new, old, batch)
        metrics = _figures(new.detach(), old, batch, algorithm)
        if batch.reference is not None and algorithm.kl_in == "loss" and batch.beta:
            tokens = tokens + batch.beta * kl_tokens(new, batch.reference, algorithm.kl)
        total = (weights * tokens).sum()
        if batch.returns is not None and batch.values is not None and model.critic is not None:
            values = answer_values(model.critic, batch)
            errors = value_loss(values, batch.values, batch.returns, clip=algorithm.value_clip or None)
            critic = (errors * batch.mask).sum()
            total = total + algorithm.value_weight * critic * whole / max(1, totals["actions"])
            metrics["value_loss"] = float(critic.detach())
        shared = {name: value * whole / max(1, totals["actions"]) for name, value in metrics.items()}
        if batch.ptx is not None:
            nats = -batch_logprobs(model.policy, batch.ptx, dtype=device.autocast).sum()
            total = total + algorithm.ptx_weight * nats * whole / max(1, totals["ptx"])
            shared["ptx_loss"] = float(nats.detach()) * whole / max(1, totals["ptx"])
        return total, count, shared | {name: value * count for name, value in batch.facts.items()}

    return step


def _policy_loss(algorithm: Algorithm, new: Tensor, old: Tensor, batch: PolicyBatch) -> Tensor:
    if algorithm.loss == "reinforce":
        return reinforce(new, old, batch.advantages)
    limits = {"low": algorithm.low, "high": algorithm.high}
    if algorithm.loss == "sequence_clipped":
        return sequence_clipped(new, old, batch.advantages, mask=batch.mask, **limits)
    return clipped(new, old, batch.advantages, **limits)


@torch.no_grad()
def _figures(new: Tensor, old: Tensor, batch: PolicyBatch, algorithm: Algorithm) -> dict[str, float]:
    """Sums over tokens: how far the policy has moved, how much of it the clip holds, how unsure it is, and how far the
    sampler's log-probs are from those of the policy that it drew from."""
    moved = new - old
    ratio = moved.exp()
    held = ((ratio > 1 + algorithm.high) & (batch.advantages > 0)) | (
        (ratio < 1 - algorithm.low) & (batch.advantages < 0)
    )
    found = {
        "moved_kl": float((torch.expm1(moved) - moved).sum()),
        "clipped": float((held & batch.mask).sum()),
        "surprise": -float(new.sum()),
        "sampler_gap": float(torch.where(batch.mask, (old - batch.sampled).abs(), 0.0).sum()),
    }
    if batch.reference is not None:
        found["kl"] = float(kl_tokens(new, batch.reference, "k3")[batch.mask].sum())
    return found
