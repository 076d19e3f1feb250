"""The step over packed pairs, by any loss of ``losses/preference.py``, and what it sums up of an answer's tokens."""

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ConfigError
from amauta.base.names import did_you_mean
from amauta.data.batches import Batch, Piece
from amauta.device import Device
from amauta.losses.preference import PREFERENCE_LOSSES, UNPAIRED_LOSSES, knobs_of, per_token
from amauta.losses.token import IGNORE
from amauta.losses.tokenwise import compared
from amauta.models.transformer import Transformer
from amauta.score import batch_logprobs, piece_sums, sequence_logprobs
from amauta.train.loop import Step
from amauta.train.prefer.settings import TOKENWISE, Prefer

Loss = Callable[..., Tensor]


def choose_loss(settings: Prefer) -> tuple[Loss, frozenset[str]]:
    """The loss of either table that the settings name, its knobs filled from them, and the tensors that it asks for."""
    table = {function.__name__: function for function in (*PREFERENCE_LOSSES, *UNPAIRED_LOSSES)}
    if settings.loss not in table:
        hint = did_you_mean(settings.loss, [*table, *TOKENWISE])
        raise ConfigError("train.unknown-loss", name=settings.loss, hint=hint)
    function, knobs = table[settings.loss], knobs_of(settings.loss)
    given = {name: getattr(settings, name) for name in knobs}
    return partial(function, **given), frozenset(inspect.signature(function).parameters) - knobs.keys()


def preference_step(
    loss: Loss,
    needs: Collection[str],
    device: Device,
    *,
    ref: Tensor | None = None,
    beside: Any = None,
    beta: float = 0.1,
    sft_weight: float = 0.0,
) -> Step:
    """The step over packed pairs. ``needs`` names the tensors that the loss asks for; ``ref`` (N, 2) are the sums of
    all units under the reference, needed by those that ask for it; ``beside`` is the reference itself, needed for
    ``divergence`` alone. ``sft_weight`` adds that much of the chosen answer's mean -log π a token (Pang et al. 2024,
    arXiv 2404.19733, eq. 2). Dropout is off, as it was for the reference."""

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        model.eval()
        if "divergence" in needs:
            logprobs, divergences = beside_logprobs(model, beside, batch, dtype=device.autocast)  # (B, T)
        else:
            logprobs, divergences = batch_logprobs(model, batch, dtype=device.autocast), None
        policy, units = policy_pairs(logprobs, batch)  # (P, 2)
        given = {"policy": policy, "lengths": policy_pairs((batch.targets != IGNORE).float(), batch)[0]}
        if "ref" in needs:
            assert ref is not None
            given["ref"] = ref[units]
        if divergences is not None:
            given["divergence"] = policy_pairs(divergences, batch)[0]
        losses = loss(**{name: given[name] for name in needs})  # (P,)
        if sft_weight:
            losses = losses - sft_weight * per_token(policy, given["lengths"])[:, 0]
        return losses.sum(), len(losses), figures(policy.detach(), given.get("ref"), given["lengths"], beta)

    return step


def beside_logprobs(
    model: Any, beside: Any, batch: Batch, *, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probs of a batch's targets, and KL(beside || model) over the vocabulary at each, (B, T) both; 0 where there
    is no target. Differentiable in the model; ``beside`` gets no gradient."""
    with torch.no_grad():
        theirs = beside(batch.ids, positions=batch.positions, documents=batch.documents)
        theirs = beside.output_states(theirs)
    ours = model.output_states(model(batch.ids, positions=batch.positions, documents=batch.documents))
    logprobs, _, divergence = compared(
        (ours, model.output_table, model.output_bias), (theirs, beside.output_table, beside.output_bias),
        batch.targets, dtype=dtype,
    )  # fmt: skip
    return logprobs, divergence


def policy_pairs(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Values of tokens (B, T) summed over each answer: (P, 2), chosen first, and the unit of each pair (P,)."""
    return answer_sums(values, batch, 2)


def answer_sums(values: Tensor, batch: Batch, pieces: int) -> tuple[Tensor, Tensor]:
    """Values of tokens (B, T) summed over each piece of the batch's units: (P, pieces), and each one's unit, (P,)."""
    most = max(len(row) for row in batch.units)
    sums = piece_sums(values, batch.documents, pieces * most).view(len(batch.units), most, pieces)
    places = [(r, k, unit) for r, row in enumerate(batch.units) for k, unit in enumerate(row)]
    r, k, units = (torch.tensor(column, device=values.device) for column in zip(*places, strict=True))
    return sums[r, k], units


@torch.no_grad()
def pair_logprobs(
    model: Transformer, units: Sequence[Sequence[Piece]], *, rows: int, length: int, device: Device
) -> Tensor:
    """Summed log-probs of both answers of every pair, (N, 2) f32 on the model's device."""
    pieces = [piece for unit in units for piece in unit]
    return answer_logprobs(model, pieces, rows=rows, length=length, device=device).view(-1, 2)


@torch.no_grad()
def answer_logprobs(model: Any, pieces: Sequence[Piece], *, rows: int, length: int, device: Device) -> Tensor:
    """Summed log-probs of what each piece carries a loss on, (N,) f32 on the model's device."""
    sums = sequence_logprobs(
        model, [piece.ids for piece in pieces], loss=[loss_of(piece) for piece in pieces],
        rows=rows, length=length, autocast=device.autocast,
    )  # fmt: skip
    return torch.from_numpy(sums.astype(np.float32)).to(device.device)


def loss_of(piece: Piece) -> np.ndarray:
    """Which of a piece's predictions count, (n,) bool."""
    return np.ones(len(piece.ids) - 1, dtype=bool) if piece.loss is None else piece.loss


def answer_lengths(pieces: Sequence[Piece]) -> Tensor:
    """Tokens of each piece that carry a loss, (N,) f32."""
    return torch.tensor([float(loss_of(piece).sum()) for piece in pieces])


def rewards_of(policy: Tensor, ref: Tensor | None, lengths: Tensor, beta: float) -> Tensor:
    """Implicit rewards, shaped as the sums: ``β(log π - log π_ref)``, or, of a loss without a reference, β times the
    mean log-prob of a token."""
    return beta * (per_token(policy, lengths) if ref is None else policy - ref)


def figures(policy: Tensor, ref: Tensor | None, lengths: Tensor, beta: float) -> dict[str, float]:
    """Sums over pairs (P, 2): implicit rewards of both sides, their margin, and how often it is positive."""
    rewards = rewards_of(policy, ref, lengths, beta)  # (P, 2)
    margin = rewards[:, 0] - rewards[:, 1]
    told = {
        "accuracy": (margin > 0).sum(),
        "margin": margin.sum(),
        "chosen_reward": rewards[:, 0].sum(),
        "rejected_reward": rewards[:, 1].sum(),
        "chosen_logprob": policy[:, 0].sum(),
        "rejected_logprob": policy[:, 1].sum(),
    }
    return dict(zip(told, torch.stack([value.float() for value in told.values()]).tolist(), strict=True))
