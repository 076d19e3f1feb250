"""What a step of policy optimisation saw: answers, their log-probs, rewards and advantages, and the loss."""

from dataclasses import replace
from typing import Any

import torch

from amauta import checkpoint
from amauta.device import pick
from amauta.hub import find_model
from amauta.models.exchange.opening import needed_tokenizer
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.adapted import grown
from amauta.train.aware import make_aware
from amauta.train.loop import put_weights, share_totals
from amauta.train.policy.experience import Answer, PolicyBatch, batch_of
from amauta.train.policy.rollouts import micro_batches, plan, read_iteration
from amauta.train.policy.run import actor_of
from amauta.train.policy.settings import Policy
from amauta.train.policy.step import policy_step
from amauta.train.start import load_base


def replayed(run: Run, settings: Policy, step: int) -> dict[str, Any]:
    """The answers of one step: ``rows`` [{records, text, spans, tokens, supervised, reward, rewards, advantages, …}].

    ``recomputed`` is the step's loss computed again, in f32, where the weights before it can be had and no documents
    were learnt beside. DataError where the iteration's answers are gone.
    """
    iteration, place = divmod(step - 1, settings.updates * settings.parts)
    answers, facts, beta = read_iteration(run, iteration)
    micro = micro_batches(settings)
    chosen = plan(settings, iteration, [one.slots for one in answers])[place * micro : (place + 1) * micro]
    batches = [batch_of([answers[i] for i in some], beta=beta) for some in chosen]
    tokenizer = grown(needed_tokenizer(find_model(settings.model)), settings.adapters)
    shown = [_row(answers[i], tokenizer) for some in chosen for i in some]
    told: dict[str, Any] = {"iteration": iteration + 1, "facts": facts}
    again = _recomputed(run, settings, step, batches)
    told |= {} if again is None else {"recomputed": again}
    return told | {"rows": shown}


def _row(one: Answer, tokenizer: AnyTokenizer) -> dict[str, Any]:
    asked, said = tokenizer.decode(one.prompt, special=True), tokenizer.decode(one.ids, special=True)
    return {
        "records": [one.place], "group": one.group, "tokens": one.slots, "text": asked + said,
        "supervised": len(one.ids) if one.learnt else 0, "spans": [[asked, False], [said, one.learnt]],
        "ended": one.ended, "reward": one.reward, "rewards": one.rewards, "advantages": one.advantages,
        "logprobs": one.sampled, "reference_logprobs": one.reference, "values": one.values,
    }  # fmt: skip


def _recomputed(run: Run, settings: Policy, step: int, batches: list[PolicyBatch]) -> float | None:
    """The step's loss with the weights that stood before it, or None where they were not kept."""
    if settings.ptx or (step > 1 and step - 1 not in run.complete_checkpoints()):
        return None
    loop = replace(settings.loop, device="cpu", dtype="f32", compile=False)
    actor = actor_of(settings, load_base(settings.model, settings.length, loop, settings.adapters))
    make_aware(actor, loop.qat)
    if step > 1:
        put_weights(actor, checkpoint.load(run.checkpoint(step - 1))[0]["model"])
    share_totals(batches)
    work = policy_step(
        settings.algorithm, pick("cpu", "f32"), temperature=settings.temperature, longest=settings.max_tokens
    )
    with torch.inference_mode():
        parts = [work(actor.train(), batch) for batch in batches]
    return float(sum(total for total, _, _ in parts)) / max(1, sum(count for _, count, _ in parts))
