"""Policy optimisation, whole: from a model and a reward to a model that earns more of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.data.read import read
from amauta.data.records import text_of
from amauta.decode.settings import Sampling
from amauta.hub import find_model
from amauta.metrics import newest, progress
from amauta.models import count
from amauta.models.adapters import attached
from amauta.models.exchange.opening import needed_tokenizer, read_weights
from amauta.models.pruned import masks_of
from amauta.models.reshape import reshaped, with_head
from amauta.rewards.called import Reward, reward_called
from amauta.runs import Run
from amauta.train.adapted import adapted, unadapted
from amauta.train.loop import Work, train
from amauta.train.policy.experience import PolicyBatch
from amauta.train.policy.prompts import Prompts, prepare_prompts
from amauta.train.policy.rollouts import Rollouts, Writer, reward
from amauta.train.policy.settings import Policy
from amauta.train.policy.step import Actor, policy_step
from amauta.train.settings import Loop
from amauta.train.start import Base, conclude, load_base, open_run, questions, sampler

VALUE = ("outputs.value.",)  # what is new in a critic, and trained beside adapters


def policy(settings: Policy) -> dict[str, Any]:
    """Train a model by a reward and leave it in ``out/model``; returns the run's figures.

    ``reward`` is the mean over the last iteration's answers, ``heldout_reward`` that of greedy answers to held-out
    records, before and after; ``sampler_gap`` the mean difference, in nats a token, between the log-probs under which
    the last answers were drawn and those that were learnt from. Raises DataError, ModelError, ConfigError, RunError,
    Interrupted.
    """
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    made = assemble(settings, run)
    work, stream, base = made.work, made.stream, made.base
    result = {**train(run, work, made.loop, settings.optim), **stream.prompts.counts(), "method": settings.method}
    result |= {name: value for name, value in stream.facts.items() if name != "collect_seconds"}
    result["sampler_gap"] = newest(run.metrics, "sampler_gap")
    result |= {"iterations": len(stream.monitor.history), "troubles": stream.monitor.told}
    files = read(settings.data).files
    return conclude(run, settings, base.model, base.tokenizer, result, parent=base.parent, files=files)


@dataclass(frozen=True)
class Assembled:
    """All that the loop needs, ready to begin."""

    work: Work
    stream: Rollouts
    base: Base
    loop: Loop


def assemble(settings: Policy, run: Run) -> Assembled:
    """The model, its prompts and rewards, the step. Raises as ``policy``."""
    rewards = [reward_called(text) for text in settings.reward]
    base = load_base(settings.model, settings.length, settings.loop, settings.adapters)
    actor = actor_of(settings, base)
    writer = Writer(actor.train(), base.tokenizer, base.device)

    def prepared(patterns: Sequence[str]) -> Prompts:
        return prepare_prompts(
            patterns, base.tokenizer, length=base.length, room=settings.max_tokens, may_skip=settings.may_skip
        )

    prompts = prepared(settings.data)
    heldout = prepared(settings.heldout) if settings.heldout else None
    ptx = _documents(settings, base) if settings.ptx else None
    stream = Rollouts(run, settings, writer, prompts, rewards, ptx=ptx)
    iterations = math.ceil(base.loop.epochs * len(prompts.kept) / settings.batch)
    work = Work(
        model=actor,
        step=policy_step(
            settings.algorithm, base.device, temperature=settings.temperature, longest=settings.max_tokens
        ),
        stream=stream,
        steps=base.loop.steps or iterations * settings.updates * settings.parts,
        device=base.device,
        flops_per_token=count.training_flops(base.model.spec, base.length) * (1 if actor.critic is None else 2),
        splits=actor.packed_rows(),
        masks=masks_of(base.parent, base.model),
        describe=_describe,
        evaluate=_evaluation(settings, writer, heldout, rewards) if heldout else None,
        sample=sampler(base.model, base.tokenizer, questions(base.tokenizer, settings.prompts)),
    )
    return Assembled(work, stream, base, replace(base.loop, accumulate=stream.micro))


def actor_of(settings: Policy, base: Base) -> Actor:
    """The policy, and where the method has one its critic: a second model with a number a token instead of logits,
    whose layers begin as the policy's, or a named model's. It gets adapters as the policy does."""
    model = base.model
    if settings.algorithm.advantage != "gae":
        return Actor(model)
    begun = model
    if settings.critic is not None or attached(model):
        name = settings.critic or settings.model
        begun = unadapted(read_weights(find_model(name), None), name)
    critic = reshaped(begun, with_head(begun.spec, ("value",)), derive(settings.loop.seed, "critic")).to(model.device)
    adapted(critic, needed_tokenizer(base.parent), settings.adapters, settings.loop.seed, also=VALUE)
    return Actor(model, critic)


def _documents(settings: Policy, base: Base) -> PackedBatches:
    """The documents of --ptx, cut into rows."""
    pieces: list[tuple[Piece]] = []
    for _, text in read(settings.ptx, may_skip=settings.may_skip).each(text_of):
        ids = base.tokenizer.encode(text)
        pieces += [(Piece(np.array(ids[at : at + base.length + 1])),) for at in range(0, len(ids) - 1, base.length)]
    rows = max(1, settings.loop.rows // 4)
    return PackedBatches(Listed(pieces), rows=rows, length=base.length, seed=settings.loop.seed)


def _evaluation(
    settings: Policy, writer: Writer, heldout: Prompts, rewards: Sequence[Reward]
) -> Callable[[], dict[str, float]]:
    """Greedy answers to what is held out: their reward, their length, and how many end."""

    def evaluate() -> dict[str, float]:
        greedy = Sampling(max_tokens=settings.max_tokens, temperature=0.0)
        answers = []
        with progress(say("policy.asking"), len(heldout.kept)) as bar:
            for start in range(0, len(heldout.kept), settings.running):
                part = heldout.kept[start : start + settings.running]
                answers += writer.answers(part, [greedy] * len(part), running=settings.running)
                bar.advance(len(part))
        reward(answers, heldout.kept, rewards, on_fault=settings.on_fault)
        given = [one.reward for one in answers if one.reward is not None]
        return {
            "heldout_reward": sum(given) / max(1, len(given)),
            "heldout_ended": sum(one.ended for one in answers) / len(answers),
            "heldout_tokens": sum(len(one.ids) for one in answers) / len(answers),
        }

    return evaluate


def _describe(batch: Batch) -> str:
    """The records of a batch, by file and line."""
    assert isinstance(batch, PolicyBatch)
    places = list(dict.fromkeys(batch.places))
    return ", ".join(places[:20]) + (" …" if len(places) > 20 else "")
