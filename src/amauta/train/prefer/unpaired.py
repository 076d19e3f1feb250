"""KTO's records: answers one by one, each wanted or not, and the step over them.

The baseline z of the loss estimates KL(policy || reference) from answers to other prompts than their own. Here every
record brings such an answer, another record's, chosen once by the seed: so the reference's log-probs of it are computed
once too, and a batch of one record has a baseline like any other. A pair is two records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.batches import Batch, Piece
from amauta.data.read import Row, read
from amauta.data.records import Message, preference_of, shape_of, unpaired_of
from amauta.device import Device
from amauta.losses.preference import kto_baseline, per_token
from amauta.losses.token import IGNORE
from amauta.metrics import console
from amauta.score import batch_logprobs
from amauta.tokenize.chat import Rendered, render_answers
from amauta.tokenize.either import AnyTokenizer
from amauta.train.dialogues import Prepared, add, counted, place
from amauta.train.loop import Step
from amauta.train.prefer.steps import Loss, answer_logprobs, answer_sums
from amauta.train.start import fit_length

BALANCE = (1.0, 4 / 3)  # of λ_D n_D / (λ_U n_U), as the paper advises (section 4.2)


@dataclass
class Singles(Prepared):
    """Answers one by one: ``wanted[i]``, and ``others[i]``, the answer of another record to the prompt of record i."""

    wanted: list[bool] = field(default_factory=list)
    others: list[Piece] = field(default_factory=list)
    prompts: list[list[Message]] = field(default_factory=list, repr=False)
    answers: list[str] = field(default_factory=list, repr=False)

    def counts(self) -> dict[str, int]:
        wanted = sum(self.wanted)
        return super().counts() | {"wanted": wanted, "unwanted": len(self.wanted) - wanted}


def prepare_unpaired(
    patterns: Sequence[str], tokenizer: AnyTokenizer, *, length: int, too_long: str, may_skip: int, seed: int
) -> Singles:
    """One piece a record, a loss on its answer. Raises DataError: no records, or all with one prompt."""
    reader, made = read(patterns, may_skip=may_skip), Singles()

    def laid_out(row: Row) -> list[tuple[list[Message], str, bool, Rendered, Rendered]]:
        found = []
        for prompt, answer, wanted in _answers(row):
            before, (whole,) = render_answers(tokenizer, prompt, [answer], where=place(row))
            found.append((prompt, answer, wanted, before, whole))
        return found

    for row, answers in reader.each(laid_out):
        for prompt, answer, wanted, before, whole in answers:
            shortest = len(before.ids) + 1
            kept = fit_length(row, whole.ids, len(whole.ids) - 1, length, too_long, answer=shortest)
            add(made, row, [_piece(whole, kept)] if kept else None, cut=kept != len(whole.ids))
            if kept:
                made.wanted.append(wanted)
                made.prompts.append(prompt)
                made.answers.append(answer)
    counted(made, reader, length)
    for i, j in enumerate(strangers(made.prompts, seed)):
        _, (whole,) = render_answers(tokenizer, made.prompts[i], [made.answers[j]], where=made.places[i])
        made.others.append(_piece(whole, length + 1))
    return made


def strangers(prompts: Sequence[list[Message]], seed: int) -> list[int]:
    """For each record another one with a different prompt: the next such in an order drawn from the seed.

    Raises DataError where all prompts are the same: then there is no answer to another.
    """
    order = np.random.default_rng(derive(seed, "strangers")).permutation(len(prompts)).tolist()
    if all(prompt == prompts[0] for prompt in prompts):
        raise DataError("prefer.one-prompt", records=len(prompts))
    found = [0] * len(prompts)
    for at, i in enumerate(order):
        found[i] = next(j for j in order[at + 1 :] + order[:at] if prompts[j] != prompts[i])
    return found


def check_balance(made: Singles, desirable: float, undesirable: float) -> None:
    """Say so where wanted and unwanted answers weigh too differently, and which weight would mend it."""
    wanted = sum(made.wanted)
    unwanted = len(made.wanted) - wanted
    if not wanted or not unwanted:
        console.print(say("prefer.one-kind", wanted=wanted, unwanted=unwanted), markup=False, soft_wrap=True)
        return
    ratio = desirable * wanted / (undesirable * unwanted)
    if BALANCE[0] <= ratio <= BALANCE[1]:
        return
    flag, value = ("--desirable", desirable / ratio) if ratio < 1 else ("--undesirable", undesirable * ratio)
    console.print(
        say("prefer.unbalanced", wanted=wanted, unwanted=unwanted, ratio=f"{ratio:.3g}", mend=f"{flag} {value:.3g}"),
        markup=False, soft_wrap=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What the reference gives to the answers of some records and to the strangers beside them, (N,) f32 each."""

    own: Tensor
    others: Tensor


def unpaired_step(
    loss: Loss,
    made: Singles,
    known: Known,
    device: Device,
    *,
    rows: int,
    length: int,
    beta: float = 0.1,
    sft_weight: float = 0.0,
) -> Step:
    """The step over packed single answers. z is over the records of the micro-batch, by a forward pass without
    gradients. ``sft_weight`` adds that much of a wanted answer's mean -log π a token."""
    flags = torch.tensor(made.wanted, device=device.device)

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        model.eval()
        units = [unit for row in batch.units for unit in row]
        strange = answer_logprobs(model, [made.others[unit] for unit in units], rows=rows, length=length, device=device)
        baseline = kto_baseline(strange, known.others[units])
        sums, which = answer_sums(batch_logprobs(model, batch, dtype=device.autocast), batch, 1)
        policy, ref, wanted = sums[:, 0], known.own[which], flags[which]  # (P,)
        losses = loss(policy=policy, ref=ref, wanted=wanted, baseline=baseline)  # (P,)
        if sft_weight:
            lengths = answer_sums((batch.targets != IGNORE).float(), batch, 1)[0][:, 0]
            losses = losses - sft_weight * wanted * per_token(policy, lengths)
        told = single_figures(policy.detach(), ref, wanted, baseline, beta)
        return losses.sum(), len(losses), {name: value * len(losses) for name, value in told.items()}

    return step


def single_figures(policy: Tensor, ref: Tensor, wanted: Tensor, baseline: Tensor, beta: float) -> dict[str, float]:
    """Means over answers (N,): implicit rewards β(h - z) of both kinds, how often their sign is right, and z itself."""
    rewards = beta * (policy - ref - baseline)
    told = {
        "accuracy": ((rewards > 0) == wanted).float().mean(),
        "wanted_reward": _mean(rewards[wanted]),
        "unwanted_reward": _mean(rewards[~wanted]),
        "wanted_logprob": _mean(policy[wanted]),
        "unwanted_logprob": _mean(policy[~wanted]),
        "baseline": baseline,
    }
    return dict(zip(told, torch.stack([value.float() for value in told.values()]).tolist(), strict=True))


def _mean(values: Tensor) -> Tensor:
    return values.mean() if len(values) else values.new_zeros(())


def _answers(row: Row) -> list[tuple[list[Message], str, bool]]:
    """The answers of a row, each with its prompt and whether it is wanted; a pair has two."""
    if shape_of(row) == "preference":
        pair = preference_of(row)
        return [(pair.prompt, pair.chosen, True), (pair.prompt, pair.rejected, False)]
    one = unpaired_of(row)
    return [(one.prompt, one.completion, one.label)]


def _piece(rendered: Rendered, end: int) -> Piece:
    """The first ``end`` tokens, with a loss where the renderer says so."""
    return Piece(np.array(rendered.ids[:end]), np.array(rendered.loss[1:end], dtype=bool))
