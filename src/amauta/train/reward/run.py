"""Reward models: the language model's output is replaced by one number, read at a dialogue's last token, and learned
from comparisons (Ouyang et al. 2022, arXiv 2203.02155, section 3.5; Stiennon et al. 2020, arXiv 2009.01325).

Unlike those, the new output begins at 0 and not at small random numbers: every loss starts at log 2 a pair.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.batches import Listed
from amauta.data.read import read
from amauta.data.records import messages_of
from amauta.metrics import console
from amauta.models import count
from amauta.models.exchange.opening import generation_of
from amauta.models.pruned import masks_of
from amauta.models.reshape import reshaped, with_head
from amauta.models.transformer import Transformer
from amauta.rewards.model import SHIFT, sequence_rewards
from amauta.runs import write_atomically
from amauta.tokenize.chat import render
from amauta.tokenize.either import AnyTokenizer
from amauta.train.loop import Work, train
from amauta.train.preflight import check_units
from amauta.train.reward.calibration import calibration, picture
from amauta.train.reward.records import Rankings, prepare_rankings
from amauta.train.reward.settings import Reward
from amauta.train.reward.steps import compared, figures, ranking_losses, reward_step
from amauta.train.start import Base, conclude, load_base, open_run, stream_and_steps

OUTPUT = ("outputs.classifier.",)  # what is new, and trained beside adapters
CHUNK = 64  # rankings whose pairs are formed together


@dataclass(frozen=True)
class Begun:
    """What a run starts from: its base, the model with its new output, its data and the tokens of a row."""

    base: Base
    model: Transformer
    made: Rankings
    length: int


def reward(settings: Reward) -> dict[str, Any]:
    """Train a reward model and leave it in ``out/model``, a sequence classifier of one label; the run's figures.

    ``calibration`` tells of the held-out comparisons (of the learned ones where there are none), and is drawn in
    ``out/calibration.svg``. Raises DataError, ModelError, ConfigError, RunError, Interrupted.
    """
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    begun = begin(settings)
    base, model, made, length = begun.base, begun.model, begun.made, begun.length
    heldout = prepared(settings, base, settings.heldout, length) if settings.heldout else None
    stream, steps = stream_and_steps(Listed(made.units), base.loop, length)

    def evaluate() -> dict[str, float]:
        assert heldout is not None
        return {f"heldout_{name}": value for name, value in told(model, heldout, settings, base).items()}

    work = Work(
        model=model,
        step=reward_step(made, ranked=settings.ranked, centre=settings.centre),
        stream=stream,
        steps=steps,
        device=base.device,
        flops_per_token=count.training_flops(replace(model.spec, outputs=()), length),
        splits=model.packed_rows(),
        masks=masks_of(base.parent, model),
        describe=made.describe,
        evaluate=evaluate if heldout else None,
    )
    result: dict[str, Any] = {**train(run, work, base.loop, settings.optim), **made.counts()}
    result |= _demonstrations(model, base, settings.demonstrations)
    asked = heldout or made
    found = calibration(*differences(asked, given(model, asked, base)))
    result["calibration"] = {"of": "heldout" if heldout else "data", **found}
    write_atomically(run.calibration, picture(found))
    files = read(settings.data).files
    return conclude(run, settings, model, base.tokenizer, result, parent=base.parent, files=files,
                    generation=generation_of(base.parent) | _padding(base.tokenizer, made))  # fmt: skip


def begin(settings: Reward) -> Begun:
    """The model, its output over the vocabulary replaced by one number that begins at 0, and its data."""

    def shaped(model: Transformer) -> Transformer:
        spec = with_head(model.spec, ("classifier",), labels=1)
        made = reshaped(model, spec, derive(settings.loop.seed, "head"))
        head: Any = made.outputs.classifier
        nn.init.zeros_(head.weight)
        return made

    base = load_base(settings.model, None, settings.loop, settings.adapters, shaped=shaped, also=OUTPUT)
    length = settings.length or base.length
    made = prepared(settings, base, settings.data, length)
    return Begun(base, base.model, made, length)


def prepared(settings: Reward, base: Base, patterns: tuple[str, ...], length: int) -> Rankings:
    """The rankings of some files, checked."""
    spec = base.model.spec
    made = prepare_rankings(
        patterns, base.tokenizer, length=length, context=spec.limit, too_long=settings.too_long,
        may_skip=settings.may_skip, ordered=settings.ranked != "pairs",
    )  # fmt: skip
    check_units(made.units, vocabulary=spec.vocabulary, ends=None, where=", ".join(patterns))
    return made


def given(model: Transformer, made: Rankings, base: Base) -> np.ndarray:
    """The reward of every answer, one ranking after another: (N,)."""
    sequences = [piece.ids[:-1].tolist() for unit in made.units for piece in unit]
    return sequence_rewards(model, sequences, autocast=base.device.autocast)


def told(model: Transformer, made: Rankings, settings: Reward, base: Base) -> dict[str, float]:
    """The loss of rankings, without what holds rewards near 0, and their figures; means over rankings."""
    rewards = torch.from_numpy(given(model, made, base))
    totals: dict[str, float] = {}
    at = 0
    for first in range(0, len(made.units), CHUNK):
        units = range(first, min(first + CHUNK, len(made.units)))
        of = compared(made, units, torch.device("cpu"))
        mine = rewards[at : at + len(of.groups)]
        at += len(of.groups)
        parts = {"loss": float(ranking_losses(mine, of, ranked=settings.ranked).sum()), **figures(mine, of)}
        totals = {name: totals.get(name, 0.0) + value for name, value in parts.items()}
    return {name: value / len(made.units) for name, value in totals.items()}


def differences(made: Rankings, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every pair, the better answer less the worse one: in reward, and in tokens."""
    found: list[tuple[float, int]] = []
    at = 0
    for unit, ranks in zip(made.units, made.ranks, strict=True):
        found += [
            (rewards[at + i] - rewards[at + j], len(unit[i].ids) - len(unit[j].ids))
            for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]
        ]  # fmt: skip
        at += len(ranks)
    reward, tokens = zip(*found, strict=True)
    return np.array(reward), np.array(tokens)


def _demonstrations(model: Transformer, base: Base, patterns: Sequence[str]) -> dict[str, Any]:
    """The mean reward of demonstrations; those beyond the context are left out and counted."""
    if not patterns:
        return {}
    limit = model.spec.limit or math.inf
    rendered = [render(base.tokenizer, messages).ids for _, messages in read(patterns).each(messages_of)]
    fitting = [ids for ids in rendered if len(ids) <= limit]
    left_out = len(rendered) - len(fitting)
    if not fitting:
        raise DataError("train.no-records", where=", ".join(patterns), dropped=left_out, length=limit)
    mean = float(sequence_rewards(model, fitting, autocast=base.device.autocast).mean())
    return {"demonstrations": len(fitting), "demonstrations_dropped": left_out, SHIFT: mean}


def _padding(tokenizer: AnyTokenizer, made: Rankings) -> dict[str, Any]:
    """``pad_token_id`` null where the padding token also ends dialogues.

    transformers looks for the last token that is not padding, so it would read the reward one token too early there;
    without a padding token it reads a single dialogue rightly and refuses a batch.
    """
    if tokenizer.pad is None or tokenizer.pad not in made.ends:
        return {}
    console.print(say("reward.padding-ends"), markup=False, soft_wrap=True)
    return {"pad_token_id": None}
