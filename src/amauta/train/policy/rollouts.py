"""Iterations of answers, and the batches that the loop learns from: the stream of policy optimisation.

An iteration: prompts are drawn, answered by the model as it is now, rewarded, and compared. What came of it is kept in
the run's folder before anything is learnt from it, so that a run that is resumed in the middle of an iteration goes on
with the very answers, and any step of the past can be looked at.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.batches import Batch, PackedBatches
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import Device
from amauta.losses.policy import adapted_kl
from amauta.models.adapters import as_plain
from amauta.rewards.called import Reward
from amauta.rewards.scored import score
from amauta.runs import Run, write_atomically
from amauta.tokenize.either import AnyTokenizer, piece_bytes
from amauta.train.adapted import start_of
from amauta.train.policy.experience import Answer, PolicyBatch, batch_of, from_record, to_record
from amauta.train.policy.monitor import Monitor, facts_of
from amauta.train.policy.prompts import Prompt, Prompts
from amauta.train.policy.settings import Policy
from amauta.train.policy.step import Actor, answer_logprobs, answer_values
from amauta.train.policy.worth import set_advantages, shape_rewards


@dataclass
class Writer:
    """Who answers: the model, and how its texts are read."""

    actor: Actor
    tokenizer: AnyTokenizer
    device: Device

    def answers(self, prompts: Sequence[Prompt], settings: Sequence[Sampling], *, running: int) -> list[Answer]:
        """One answer a prompt; ``group`` is the prompt's number here."""
        policy = self.actor.policy
        with as_plain(policy):
            found = generate(
                policy, [prompt.ids for prompt in prompts], settings, rows=running,
                stop_ids=self.tokenizer.stops, token_bytes=partial(piece_bytes, self.tokenizer),
            )  # fmt: skip
        for one in found:
            if one.error is not None:
                raise one.error
        return [
            Answer(prompt.ids, one.ids, one.text, one.finish == "stop", prompt.place, i, one.sampled_logprobs)
            for i, (prompt, one) in enumerate(zip(prompts, found, strict=True))
        ]


class Rollouts:
    """Batches without end. Its state is the iteration, the place in it, and what the method itself has adapted."""

    def __init__(
        self,
        run: Run,
        settings: Policy,
        writer: Writer,
        prompts: Prompts,
        rewards: Sequence[Reward],
        *,
        ptx: PackedBatches | None = None,
    ) -> None:
        self.run, self.settings, self.writer, self.prompts, self.rewards = run, settings, writer, prompts, rewards
        self.micro = micro_batches(settings)
        asked = settings.algorithm
        self.reference = start_of(writer.actor.policy) if asked.beta else None
        self.monitor = Monitor(settings)
        self.iteration, self.place, self.taken, self.beta = 0, 0, 0, asked.beta
        self.ptx = ptx
        self.answers: list[Answer] = []
        self.batches: list[PolicyBatch] = []  # of this iteration
        self.facts: dict[str, float] = {}

    def __next__(self) -> Batch:
        if self.place == 0:
            self._collect()
        if not self.batches:
            self.batches = [
                batch_of([self.answers[i] for i in some], beta=self.beta, facts=self.facts)
                for some in plan(self.settings, self.iteration, [one.slots for one in self.answers])
            ]
        found = self.batches[self.place]
        if self.ptx is not None:
            found.ptx = next(self.ptx)
        self.place += 1
        if self.place == self.micro * self.settings.parts * self.settings.updates:
            self.iteration, self.place, self.batches = self.iteration + 1, 0, []
            self._adapt()
        return found

    def state(self) -> dict[str, Any]:
        """What must be kept to go on from here."""
        kept = {
            "iteration": self.iteration, "place": self.place, "taken": self.taken, "beta": self.beta,
            "history": self.monitor.history, "told": self.monitor.told, "prompts": len(self.prompts.kept),
        }  # fmt: skip
        return kept | ({"ptx": self.ptx.state()} if self.ptx is not None else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that ``state`` gave. DataError when the prompts are not those of then."""
        if state["prompts"] != len(self.prompts.kept):
            raise DataError("policy.other-prompts", then=state["prompts"], now=len(self.prompts.kept))
        self.iteration, self.place, self.taken = state["iteration"], state["place"], state["taken"]
        self.beta, self.monitor.history, self.monitor.told = state["beta"], state["history"], state["told"]
        if self.ptx is not None:
            self.ptx.restore(state["ptx"])
        if self.place:
            self.answers, self.facts, self.beta = read_iteration(self.run, self.iteration)
        elif self.iteration:  # between two iterations: what the last one came to is still to be told
            _, self.facts, _ = read_iteration(self.run, self.iteration - 1)

    def _collect(self) -> None:
        began = time.perf_counter()
        self.answers, drawn = self._answered()
        measure(self.answers, self.writer, self.settings, self.reference)
        shape_rewards(self.answers, self.settings.algorithm, self.settings.max_tokens)
        set_advantages(self.answers, self.settings.algorithm, self.beta)
        self.facts = facts_of(self.answers) | drawn | ({"beta": self.beta} if self.reference is not None else {})
        write_iteration(self.run, self.iteration, self.answers, self.facts, self.beta)
        self.monitor.see(self.facts)
        self.facts = self.facts | {"collect_seconds": time.perf_counter() - began}

    def _answered(self) -> tuple[list[Answer], dict[str, float]]:
        """The iteration's answers with their rewards, and the mean reward of all that were drawn.

        Under ``resample`` groups in which all got one reward are put aside for new ones, and come back only where too
        few others were found: what is learnt from is no fair sample any more, so the mean is taken before.
        """
        kept: list[list[Answer]] = []
        aside: list[list[Answer]] = []
        for _ in range(self.settings.algorithm.resample + 1):
            for group in self._groups(self.settings.batch - len(kept)):
                values = [one.reward for one in group if one.reward is not None]
                differ = len(values) > 1 and max(values) - min(values) > 1e-9
                (kept if differ or not self.settings.algorithm.resample else aside).append(group)
            if len(kept) == self.settings.batch:
                break
        values = [one.reward for group in kept + aside for one in group if one.reward is not None]
        drawn = {"reward": sum(values) / max(1, len(values)), "drawn_groups": float(len(kept) + len(aside))}
        kept += aside[: self.settings.batch - len(kept)]
        for number, group in enumerate(kept):
            for one in group:
                one.group = number
        return [one for group in kept for one in group], drawn if self.settings.algorithm.resample else {}

    def _groups(self, count: int) -> list[list[Answer]]:
        """So many prompts, each answered ``samples`` times and rewarded."""
        asked, seed = self.settings, self.settings.loop.seed
        numbers = range(self.taken, self.taken + count)
        self.taken += count
        chosen = [prompt for number in numbers for prompt in [self.prompts.at(number, seed)] * asked.samples]
        sampling = [
            Sampling(max_tokens=asked.max_tokens, temperature=asked.temperature, seed=derive(seed, "answer", number, k))
            for number in numbers for k in range(asked.samples)
        ]  # fmt: skip
        answers = self.writer.answers(chosen, sampling, running=asked.running)
        reward(answers, chosen, self.rewards, on_fault=asked.on_fault)
        return [answers[start : start + asked.samples] for start in range(0, len(answers), asked.samples)]

    def _adapt(self) -> None:
        algorithm = self.settings.algorithm
        if algorithm.kl_target is not None and "kl_answer" in self.facts:
            self.beta = adapted_kl(
                self.beta, self.facts["kl_answer"], target=algorithm.kl_target, horizon=algorithm.kl_horizon,
                samples=len(self.answers),
            )  # fmt: skip


def plan(settings: Policy, iteration: int, slots: Sequence[int]) -> list[list[int]]:
    """The answers of each batch of an iteration: of each pass its parts, an optimiser step each, in ``micro_batches``
    batches by length."""
    found: list[list[int]] = []
    for update in range(settings.updates):
        order = torch.Generator().manual_seed(derive(settings.loop.seed, "order", iteration, update))
        for part in _shared(torch.randperm(len(slots), generator=order).tolist(), settings.parts):
            found += _shared(sorted(part, key=lambda i: slots[i]), micro_batches(settings))
    return found


def micro_batches(settings: Policy) -> int:
    """Batches of an optimiser step: so many that none has more answers than ``rows``."""
    return max(1, math.ceil(settings.batch * settings.samples / settings.parts / settings.loop.rows))


def reward(answers: Sequence[Answer], prompts: Sequence[Prompt], rewards: Sequence[Reward], *, on_fault: Any) -> None:
    """Set ``reward`` and ``rewards`` of every answer."""
    scored = score(
        rewards, [one.messages for one in prompts], [one.text for one in answers], [one.record for one in prompts],
        on_fault, places=[one.place for one in prompts],
    )  # fmt: skip
    for i, one in enumerate(answers):
        one.reward = scored.values[i]
        one.rewards = {name: parts[i] for name, parts in scored.by_reward.items()}


@torch.no_grad()
def measure(answers: Sequence[Answer], writer: Writer, settings: Policy, reference: Any | None) -> None:
    """Set the log-probs of the old policy and the reference, and the critic's values.

    Where each answer is learnt from once, the step's own log-probs are those of the old policy, and are not computed
    twice.
    """
    algorithm, actor = settings.algorithm, writer.actor
    once = settings.updates * settings.parts == 1
    need_old = not once or (algorithm.kl_in == "reward" and reference is not None)
    if not need_old and reference is None and actor.critic is None:
        return
    logprobs = partial(answer_logprobs, temperature=settings.temperature, dtype=writer.device.autocast)
    order = sorted(range(len(answers)), key=lambda i: answers[i].slots)
    for start in range(0, len(order), settings.loop.rows):
        some = [answers[i] for i in order[start : start + settings.loop.rows]]
        batch = batch_of(some).to(writer.device.device)
        assert isinstance(batch, PolicyBatch)
        with writer.device.context():
            if need_old:
                _keep(some, "old", logprobs(actor.policy, batch))
            if reference is not None:
                _keep(some, "reference", logprobs(reference, batch))
            if actor.critic is not None:
                _keep(some, "values", answer_values(actor.critic, batch))


def _keep(answers: Sequence[Answer], name: str, values: torch.Tensor) -> None:
    for one, row in zip(answers, values.float().tolist(), strict=True):
        setattr(one, name, row[: len(one.ids)])


def write_iteration(run: Run, iteration: int, answers: Sequence[Answer], facts: dict[str, float], beta: float) -> None:
    """One line for the iteration, then one an answer."""
    lines = [{"iteration": iteration, "beta": beta, "facts": facts}, *map(to_record, answers)]
    write_atomically(run.rollouts(iteration), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_iteration(run: Run, iteration: int) -> tuple[list[Answer], dict[str, float], float]:
    """What ``write_iteration`` kept: the answers, the facts, the weight of the KL. DataError where it is gone."""
    path = run.rollouts(iteration)
    try:
        first, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [from_record(line) for line in lines], first["facts"], first["beta"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("policy.no-rollouts", file=path, reason=error) from None


def _shared(items: Sequence[int], parts: int) -> list[list[int]]:
    """The items in so many runs of nearly one size, in their order."""
    size, more = divmod(len(items), parts)
    ends = [size * (k + 1) + min(k + 1, more) for k in range(parts)]
    return [list(items[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
