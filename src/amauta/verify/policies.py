"""The methods that learn from rewards: iterations of drawn answers, the step that trains, and where it must end."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amauta.device import pick
from amauta.train.loop import Step
from amauta.train.policy.experience import Answer, PolicyBatch, batch_of
from amauta.train.policy.settings import METHODS, UPDATES, Algorithm
from amauta.train.policy.step import Actor, policy_step
from amauta.train.policy.worth import set_advantages, shape_rewards
from amauta.verify import exact
from amauta.verify.ground import Ground
from amauta.verify.settings import PolicyMethod
from amauta.worlds.enumerable import TabularCritic, TabularModel, sample


@dataclass
class Trial:
    """One method on the ground: an actor, how answers become batches, and what trains on them."""

    ground: Ground
    algorithm: Algorithm
    passes: int
    model: Actor
    step: Step
    critic: TabularCritic | None

    @property
    def policy(self) -> TabularModel:
        return self.model.policy

    def drawn(self, generator: torch.Generator) -> PolicyBatch:
        """An iteration: groups of answers to every prompt, drawn from the policy as it is."""
        asked, logprobs = self.ground.settings, self.ground.space.logprobs(self.policy.table.detach().double())
        picks = sample(logprobs, asked.groups * asked.group, generator)
        return self.batch(picks.view(len(picks), asked.groups, asked.group))

    def batch(self, picks: Tensor) -> PolicyBatch:
        """The batch of some answers to every prompt, (X, groups, G); of a prompt whose numbers are below 0, none."""
        ground = self.ground
        longest = ground.space.length
        table = self.policy.table.detach().double()
        old, ref = (ground.space.along(each.log_softmax(-1)).tolist() for each in (table, ground.ref_table))
        critic = None if self.critic is None else ground.space.along(
            self.critic.table.detach().double().expand_as(table)).tolist()  # fmt: skip
        answers: list[Answer] = []
        for x, groups in enumerate(picks.tolist()):
            for number, members in enumerate(groups):
                for y in members:
                    if y < 0:
                        continue
                    ids = list(ground.space.answers[y])
                    answers.append(Answer(
                        list(ground.space.prompts[x]), ids, "", ids[-1] == ground.space.end, f"{x}:{y}",
                        x * len(groups) + number, old[x][y][: len(ids)], float(ground.reward[x, y]),
                        {"reward": float(ground.reward[x, y])}, old[x][y][: len(ids)], ref[x][y][: len(ids)],
                        None if critic is None else critic[x][y][: len(ids)],
                    ))  # fmt: skip
        shape_rewards(answers, self.algorithm, longest)
        set_advantages(answers, self.algorithm, self.algorithm.beta)
        return batch_of(answers, beta=self.algorithm.beta)


def trial(ground: Ground, name: PolicyMethod) -> Trial:
    """The method called ``name``, at the reference, with its published choices; only the weight of a KL, where it has
    one, is that of the ground."""
    algorithm = Algorithm(**METHODS[name])
    if algorithm.beta:
        algorithm = replace(algorithm, beta=ground.settings.beta)
    critic = TabularCritic(ground.space) if algorithm.advantage == "gae" else None
    model = Actor(TabularModel(ground.space, ground.ref_table), critic)  # type: ignore[arg-type]  # a critic all the same
    step = policy_step(algorithm, pick("cpu", "f32"), longest=ground.space.length)
    return Trial(ground, algorithm, UPDATES.get(name, 1), model, step, critic)


def optimum_of(ground: Ground, name: PolicyMethod) -> Tensor:
    """Where the method must end, (X, N): by formula, or where GRPO's field comes to rest.

    Without a KL the best answer gets all. With one in the reward REINFORCE, RLOO and PPO share DPO's optimum: there,
    what every answer earns less its KL is one number, so no advantage is left.
    """
    if not Algorithm(**METHODS[name]).beta:
        alone = torch.full_like(ground.reward, -torch.inf)
        return alone.scatter(1, ground.reward.argmax(1, keepdim=True), 0.0)
    return ground.space.logprobs(exact.settled(grpo_field(ground), ground.ref_table)) if name == "grpo" else ground.best


def grpo_field(ground: Ground) -> exact.Field:
    """Where GRPO moves a table on average: normalised advantages, and k3 differentiated as a loss, which pulls to the
    reference by ``(ref/π - 1) ∇ log π`` at every token; both as means over an answer's tokens."""
    lengths = ground.space.lengths[:, None]

    def move(table: Tensor) -> Tensor:
        logs = table.log_softmax(-1)
        logprobs = ground.space.logprobs(table)
        back = torch.expm1(ground.space.along(ground.ref_table - logs))  # (X, N, length)
        worth = exact.grouped(ground, logprobs)[..., None]
        return exact.wishes(ground, table, (worth + ground.settings.beta * logprobs.exp()[..., None] * back) / lengths)

    return move


def exact_critic(ground: Ground, table: Tensor, beta: float) -> Tensor:
    """What is to come in every state under a policy, the price of the KL counted in: (X, S)."""
    logs = table.log_softmax(-1)
    space, price = ground.space, beta * (logs - ground.ref_table)
    number = {state: i for i, state in enumerate(space.states)}
    endings = torch.zeros_like(logs)
    at, tokens, _ = space.paths
    rows, last = torch.arange(len(space.answers)), space.lengths - 1
    endings[:, at[rows, last], tokens[rows, last]] = ground.reward
    values = torch.zeros(logs.shape[:2], dtype=logs.dtype)
    for state, i in reversed(number.items()):
        later = torch.zeros_like(logs[:, i])
        for id in range(space.vocabulary):
            if (after := number.get((*state, id))) is not None:
                later[:, id] = values[:, after]
        values[:, i] = (logs[:, i].exp() * (endings[:, i] - price[:, i] + later)).sum(-1)
    return values
