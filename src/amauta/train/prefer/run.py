"""Preference optimisation: by any loss of ``losses/preference.py``, or token by token (``tokenwise.py``).

The policy and its reference start as one model, unless another is named. The reference's log-probs do not change, so
they are computed once, before the first step, and kept; where a loss asks for no more, no second model is held.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ConfigError
from amauta.data.batches import Listed, Piece
from amauta.data.read import read
from amauta.losses.preference import UNPAIRED_LOSSES, kto_baseline
from amauta.metrics import newest
from amauta.metrics import read as read_journal
from amauta.models import count
from amauta.models.pruned import masks_of
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.dialogues import Prepared, prepare_preferences
from amauta.train.loop import Work, train
from amauta.train.prefer import diagnosis
from amauta.train.prefer.method import Method
from amauta.train.prefer.reference import Reference, reference_of
from amauta.train.prefer.settings import TOKENWISE, Prefer
from amauta.train.prefer.steps import answer_lengths, answer_logprobs, choose_loss, figures, preference_step
from amauta.train.prefer.tokenwise import tokenwise
from amauta.train.prefer.unpaired import Known, Singles, check_balance, prepare_unpaired, single_figures, unpaired_step
from amauta.train.preflight import check_units
from amauta.train.start import SAMPLE_TOKENS, Base, conclude, load_base, open_run, questions, sampler, stream_and_steps

UNPAIRED = tuple(loss.__name__ for loss in UNPAIRED_LOSSES)
Evaluate = Callable[[], dict[str, float]]


def prefer(settings: Prefer) -> dict[str, Any]:
    """Train on preferences and leave the model in ``out/model``; returns the run's figures.

    ``accuracy`` is the share of pairs whose chosen answer has the larger implicit reward β·log(π/π_ref), ``margin``
    the mean difference of the two. ``diagnosis`` says whether it worked, and what to do where it did not. Raises
    DataError, ModelError, ConfigError, RunError, Interrupted.
    """
    if not compares(settings) and settings.reference is not None:
        raise ConfigError("prefer.reference-unused", loss=settings.loss)
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    base = load_base(settings.model, settings.length, settings.loop, settings.adapters)
    model, length, loop = base.model, base.length, base.loop
    reference = reference_of(settings.reference, base)
    made = prepared(settings, settings.data, base.tokenizer, length, model.spec.vocabulary)
    heldout = None
    if settings.heldout:
        heldout = prepared(settings, settings.heldout, base.tokenizer, length, model.spec.vocabulary)
    probe = _probe(made, heldout)
    before = reference_of(None, base).logprobs(probe.pieces).cpu().numpy()
    room = max(model.spec.context - SAMPLE_TOKENS, model.spec.context // 2)
    asked = questions(base.tokenizer, settings.prompts) or diagnosis.prompts_of(probe, base.tokenizer, room)
    method = method_of(settings, base, reference, made)
    stream, steps = stream_and_steps(Listed(made.units if method.units is None else method.units), loop, length)
    work = Work(
        model=model if method.trained is None else method.trained,
        step=method.step,
        stream=stream,
        steps=steps,
        device=base.device,
        flops_per_token=count.training_flops(model.spec, length),
        splits=model.packed_rows(),
        masks=masks_of(base.parent, model),
        describe=made.describe,
        evaluate=None if heldout is None else _evaluation(settings, base, reference, heldout),
        sample=sampler(model, base.tokenizer, asked),
        own=method.own,
    )
    del reference  # another model than the policy is no longer held, unless the step needs it
    result = {**train(run, work, loop, settings.optim), **made.counts(), **method.facts, **method.finish()}
    after = answer_logprobs(model, probe.pieces, rows=loop.rows, length=length, device=base.device).cpu().numpy()
    result["diagnosis"] = _diagnosis(run, settings, probe, before, after)
    files = read(settings.data).files
    return conclude(run, settings, model, base.tokenizer, result, parent=base.parent, files=files)


def compares(settings: Prefer) -> bool:
    """Whether the loss compares the policy with a reference. ConfigError for a loss that nobody knows."""
    return settings.loss in TOKENWISE or bool(choose_loss(settings)[1] & {"ref", "divergence"})


def prepared(
    settings: Prefer, patterns: Sequence[str], tokenizer: AnyTokenizer, length: int, vocabulary: int
) -> Prepared:
    """The units of the records that ``patterns`` name, as the loss wants them, checked."""
    how: dict[str, Any] = {"length": length, "too_long": settings.too_long, "may_skip": settings.may_skip}
    if settings.loss in UNPAIRED:
        made: Prepared = prepare_unpaired(patterns, tokenizer, **how, seed=settings.loop.seed)
    else:
        made = prepare_preferences(patterns, tokenizer, **how)
    check_units(made.units, vocabulary=vocabulary, ends=tokenizer.stops, where=", ".join(patterns))
    return made


def method_of(settings: Prefer, base: Base, reference: Reference, made: Prepared) -> Method:
    """What the loss brings to the loop. The policy must not have learnt anything yet."""
    if settings.loss in TOKENWISE:
        return tokenwise(settings, base, reference, made, prefer)
    loss, needs = choose_loss(settings)
    if isinstance(made, Singles):
        check_balance(made, settings.desirable, settings.undesirable)
        step = unpaired_step(
            loss, made, _known(reference, made), base.device, rows=base.loop.rows, length=base.length,
            beta=settings.beta, sft_weight=settings.sft_weight,
        )  # fmt: skip
        return Method(step)
    beside = None
    if "divergence" in needs:
        beside = reference.frozen()
        beside = beside.compiled() if base.loop.compile else beside
    ref = reference.pairs(made.units) if "ref" in needs else None
    step = preference_step(
        loss, needs, base.device, ref=ref, beside=beside, beta=settings.beta, sft_weight=settings.sft_weight
    )
    return Method(step)


def _evaluation(settings: Prefer, base: Base, reference: Reference, heldout: Prepared) -> Evaluate:
    """Means of the figures over held-out records."""
    pieces = [piece for unit in heldout.units for piece in unit]

    def scored(pieces: Sequence[Piece]) -> Tensor:
        return answer_logprobs(base.model, pieces, rows=base.loop.rows, length=base.length, device=base.device)

    if isinstance(heldout, Singles):
        known, others = _known(reference, heldout), heldout.others
        wanted = torch.tensor(heldout.wanted, device=base.device.device)

        def singles() -> dict[str, float]:
            baseline = kto_baseline(scored(others), known.others)
            found = single_figures(scored(pieces), known.own, wanted, baseline, settings.beta)
            return {f"heldout_{name}": value for name, value in found.items()}

        return singles
    ref = reference.pairs(heldout.units) if compares(settings) and settings.loss != "sepo" else None
    lengths = answer_lengths(pieces).view(-1, 2).to(base.device.device)

    def pairs() -> dict[str, float]:
        found = figures(scored(pieces).view(-1, 2), ref, lengths, settings.beta)
        return {f"heldout_{name}": value / len(lengths) for name, value in found.items()}

    return pairs


def _known(reference: Reference, made: Singles) -> Known:
    return Known(reference.logprobs([piece for unit in made.units for piece in unit]), reference.logprobs(made.others))


def _probe(made: Prepared, heldout: Prepared | None) -> diagnosis.Probe:
    chosen = made if heldout is None else heldout
    wanted = chosen.wanted if isinstance(chosen, Singles) else None
    return diagnosis.probe_of(chosen.units, wanted, heldout=heldout is not None)


def _diagnosis(
    run: Run, settings: Prefer, probe: diagnosis.Probe, before: np.ndarray, after: np.ndarray
) -> dict[str, Any]:
    """The diagnosis, with the samples of the first step and of the last."""
    rows = read_journal(run.samples)
    first = {row["prompt"]: row["text"] for row in rows if row["step"] == 0}
    last = {row["prompt"]: row["text"] for row in rows}
    samples = [(prompt, first[prompt], last[prompt]) for prompt in first]
    change = diagnosis.change_of(probe, before, after)
    seen = newest(run.metrics, "accuracy") if probe.heldout and probe.paired else None
    found = diagnosis.verdicts(change, settings.beta, seen=seen, samples=samples)
    return diagnosis.diagnose(probe, change, found, samples)
