"""Preference optimisation on pairs of answers, by any loss of ``losses/preference.py``.

The policy and the reference start as one model. The reference's log-probs do not change, so they are computed once,
before the first step, and no second model is held.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amauta.base.errors import ConfigError
from amauta.base.messages import say
from amauta.base.names import did_you_mean
from amauta.data.batches import Batch, Listed, Piece
from amauta.data.read import read
from amauta.device import Device
from amauta.losses.preference import PREFERENCE_LOSSES
from amauta.metrics import console
from amauta.models import count
from amauta.models.transformer import Transformer
from amauta.score import batch_logprobs, piece_sums, sequence_logprobs
from amauta.train.dialogues import Prepared, prepare_preferences
from amauta.train.loop import Step, Work, train
from amauta.train.preflight import check_units
from amauta.train.settings import Prefer
from amauta.train.start import conclude, load_base, open_run, questions, sampler, stream_and_steps

Loss = Callable[..., Tensor]


def prefer(settings: Prefer) -> dict[str, Any]:
    """Train on preference pairs and leave the model in ``out/model``; returns the run's figures.

    ``accuracy`` is the share of pairs whose chosen answer has the larger implicit reward β·log(π/π_ref), ``margin``
    the mean difference of the two. Raises DataError, ModelError, ConfigError, RunError, Interrupted.
    """
    loss, needs_reference = choose_loss(settings)
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    base = load_base(settings.model, settings.length, settings.loop)
    tokenizer, model, length, device, loop = base.tokenizer, base.model, base.length, base.device, base.loop

    def prepared(patterns: tuple[str, ...]) -> Prepared:
        made = prepare_preferences(
            patterns, tokenizer, length=length, too_long=settings.too_long, may_skip=settings.may_skip
        )
        check_units(made.units, vocabulary=model.spec.vocabulary, ends=tokenizer.stops, where=", ".join(patterns))
        return made

    def logprobs(units: Sequence[Sequence[Piece]]) -> Tensor:
        return pair_logprobs(model, units, rows=loop.rows, length=length, device=device)

    made = prepared(settings.preferences)
    heldout = prepared(settings.heldout) if settings.heldout else None
    console.print(say("train.reference"), markup=False, soft_wrap=True)
    reference = logprobs(made.units)
    heldout_reference = logprobs(heldout.units) if heldout else None
    stream, steps = stream_and_steps(Listed(made.units), loop, length)

    def evaluate() -> dict[str, float]:
        assert heldout is not None and heldout_reference is not None
        figures = _figures(logprobs(heldout.units), heldout_reference, settings.beta)
        return {f"heldout_{name}": value / len(heldout.units) for name, value in figures.items()}

    work = Work(
        model=model,
        step=preference_step(loss, reference if needs_reference else None, reference, settings.beta, device),
        stream=stream,
        steps=steps,
        device=device,
        flops_per_token=count.training_flops(model.spec, length),
        splits=model.packed_rows(),
        describe=made.describe,
        evaluate=evaluate if heldout else None,
        sample=sampler(model, tokenizer, questions(tokenizer, settings.prompts)),
    )
    result = {**train(run, work, loop, settings.optim), **made.counts()}
    files = read(settings.preferences).files
    return conclude(run, settings, model, tokenizer, result, parent=base.parent, files=files)


def choose_loss(settings: Prefer) -> tuple[Loss, bool]:
    """The loss that the settings name, its knobs filled from them, and whether it needs a reference."""
    table = {function.__name__: function for function in PREFERENCE_LOSSES}
    if settings.loss not in table:
        raise ConfigError("train.unknown-loss", name=settings.loss, hint=did_you_mean(settings.loss, table))
    function = table[settings.loss]
    parameters = inspect.signature(function).parameters
    knobs = {name: getattr(settings, name) for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def loss(*logprobs: Tensor) -> Tensor:
        return function(*logprobs, **knobs)

    return loss, "ref" in parameters


def preference_step(loss: Loss, reference: Tensor | None, frozen: Tensor, beta: float, device: Device) -> Step:
    """The step over packed pairs. ``reference`` (N, 2) goes into the loss, unless that takes none; ``frozen`` (N, 2)
    only into the figures."""

    def step(model: nn.Module, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        logprobs = batch_logprobs(model, batch, dtype=device.autocast)  # (B, T)
        policy, units = policy_pairs(logprobs, batch)  # (P, 2)
        start = frozen[units]
        losses = loss(policy) if reference is None else loss(policy, reference[units])  # (P,)
        return losses.sum(), len(losses), _figures(policy.detach(), start, beta)

    return step


def policy_pairs(logprobs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Token log-probs (B, T) summed over each answer: (P, 2), chosen first, and the unit of each pair (P,)."""
    most = max(len(row) for row in batch.units)
    sums = piece_sums(logprobs, batch.documents, 2 * most).view(len(batch.units), most, 2)
    rows = [(r, k, unit) for r, row in enumerate(batch.units) for k, unit in enumerate(row)]
    r, k, units = (torch.tensor(column, device=logprobs.device) for column in zip(*rows, strict=True))
    return sums[r, k], units


@torch.no_grad()
def pair_logprobs(
    model: Transformer, units: Sequence[Sequence[Piece]], *, rows: int, length: int, device: Device
) -> Tensor:
    """Summed log-probs of both answers of every pair, (N, 2) f32 on the model's device."""
    pieces = [piece for unit in units for piece in unit]
    sums = sequence_logprobs(
        model, [piece.ids for piece in pieces], loss=[piece.loss for piece in pieces],
        rows=rows, length=length, autocast=device.autocast,
    )  # fmt: skip
    return torch.from_numpy(sums.astype(np.float32)).view(-1, 2).to(device.device)


def _figures(policy: Tensor, reference: Tensor, beta: float) -> dict[str, float]:
    """Sums over pairs (P, 2): implicit rewards of both sides, their margin, and how often it is positive."""
    rewards = beta * (policy - reference)  # (P, 2)
    margin = rewards[:, 0] - rewards[:, 1]
    return {
        "accuracy": float((margin > 0).sum()),
        "margin": float(margin.sum()),
        "chosen_reward": float(rewards[:, 0].sum()),
        "rejected_reward": float(rewards[:, 1].sum()),
        "chosen_logprob": float(policy[:, 0].sum()),
        "rejected_logprob": float(policy[:, 1].sum()),
    }
