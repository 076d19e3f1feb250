"""Learning in a world that is known in tables: by sweeps, by trying, and by the functions that train language models.

The policy methods differ in three things that ``LEARNERS`` holds: how an advantage is estimated, what is minimised for
it, and how often each episode is used. Those are functions of ``losses/policy.py``; the very same train a language
model's answers.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from amauta.base.seeds import derive
from amauta.losses.policy import clipped, gae, group_normalised, leave_one_out, per_token, reinforce, value_loss, whiten
from amauta.worlds.settings import Gridworld
from amauta.worlds.world import Episodes, World, action_values, drawn, greedy, play, policy_values, start_value

POINTS = 60  # of a learning curve


@dataclass
class Learnt:
    """What a method came to. ``curve`` holds (episodes or sweeps, the exact value of the start under the policy)."""

    policy: Tensor  # (S, A): probabilities
    values: Tensor | None  # (S,): as the method itself believes them; None where it has no critic
    curve: list[tuple[int, float]]

    def note(self, world: World, seen: int, policy: Tensor) -> None:
        """One more point of the curve."""
        self.policy = policy
        self.curve.append((seen, float(start_value(world, policy_values(world, policy)))))


def value_iteration(world: World, settings: Gridworld, *, tolerance: float = 1e-12) -> Learnt:
    """``V ← max_a r + γ V'`` in every state at once, until nothing changes by more than ``tolerance``."""
    values = torch.zeros(world.states, dtype=torch.float64)
    learnt = Learnt(greedy(world.rewards * 0), values, [])
    change, sweeps = float("inf"), 0
    learnt.note(world, 0, learnt.policy)
    while change > tolerance:
        quality = action_values(world, values)
        change, values = float((quality.max(1).values - values).abs().max()), quality.max(1).values
        sweeps += 1
        learnt.note(world, sweeps, greedy(action_values(world, values)))
    learnt.values = values
    return learnt


def q_learning(world: World, settings: Gridworld) -> Learnt:
    """``Q += α (r + γ max Q' - Q)`` after every step of an ε-greedy cat (Watkins 1989); ties are drawn."""
    chance = random.Random(derive(settings.seed, "q-learning"))
    following, rewards, ends = world.following.tolist(), world.rewards.tolist(), world.ends.tolist()
    quality = [[0.0] * world.actions for _ in range(world.states)]
    learnt = Learnt(torch.empty(0), torch.empty(0), [])
    starts, every = world.starts.tolist(), max(1, settings.episodes // POINTS)
    for episode in range(settings.episodes):
        if episode % every == 0:
            learnt.note(world, episode, greedy(torch.tensor(quality, dtype=torch.float64)))
        state = chance.choice(starts)
        for _ in range(settings.limit):
            if ends[state]:
                break
            row = quality[state]
            best = max(row)
            options = [action for action, value in enumerate(row) if value == best]
            action = chance.randrange(world.actions) if chance.random() < settings.epsilon else chance.choice(options)
            after = following[state][action]
            goal = rewards[state][action] + world.gamma * max(quality[after])  # an end's are 0 for ever
            row[action] += settings.alpha * (goal - row[action])
            state = after
    found = torch.tensor(quality, dtype=torch.float64)
    learnt.note(world, settings.episodes, greedy(found))
    learnt.values = found.max(1).values
    return learnt


# -- the policy methods


Advantage = Callable[[World, Episodes, Tensor], tuple[Tensor, Tensor]]  # → advantages and what values learn, (N, T)


def by_steps(world: World, episodes: Episodes, values: Tensor, *, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation; an episode that was cut short goes on in what the critic believes."""
    held = values[episodes.states] * episodes.mask
    last = values[episodes.last] * ~episodes.over
    advantages = gae(episodes.rewards, held, gamma=world.gamma, lam=lam, last=last) * episodes.mask
    return advantages, advantages + held


def by_groups(
    world: World, episodes: Episodes, values: Tensor, *, worth: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """A whole episode is one action, worth its return beside those of its group: all episodes of the batch."""
    worths = worth(episodes.returns(world.gamma)[None])[0]  # (N,)
    return worths[:, None] * episodes.mask, torch.zeros_like(episodes.rewards)


@dataclass(frozen=True)
class Learner:
    """A policy method: what an action was worth, what is minimised, and how often an episode is used.

    With a ``critic`` values are learnt beside the policy, and advantages are whitened over the batch.
    """

    advantage: Advantage
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = reinforce
    passes: int = 1
    critic: bool = True


LEARNERS: dict[str, Learner] = {
    "reinforce": Learner(partial(by_steps, lam=1.0)),  # the whole return, less what was expected
    "actor-critic": Learner(partial(by_steps, lam=0.0)),  # one step, and then what the critic believes
    "ppo": Learner(partial(by_steps, lam=0.95), clipped, passes=4),
    "rloo": Learner(partial(by_groups, worth=leave_one_out), critic=False),
    "grpo": Learner(partial(by_groups, worth=group_normalised), clipped, passes=4, critic=False),
}


def policy_gradient(world: World, settings: Gridworld, learner: Learner) -> Learnt:
    """A softmax policy over a table of logits (S, A), all 0 at first, and a table of values (S,) as its critic.

    Step t counts γ^t, as the gradient of the discounted return demands (most programs leave that out).
    """
    chance = torch.Generator().manual_seed(derive(settings.seed, "policy"))
    logits = torch.zeros(world.states, world.actions, dtype=torch.float64, requires_grad=True)
    values = torch.zeros(world.states, dtype=torch.float64)
    adam = torch.optim.Adam([logits], lr=settings.lr)
    learnt = Learnt(torch.empty(0), values, [])
    updates = max(1, settings.episodes // settings.batch)
    for update in range(updates):
        policy = logits.detach().softmax(-1)
        if update % max(1, updates // POINTS) == 0:
            learnt.note(world, update * settings.batch, policy)
        episodes = play(world, drawn(policy, chance), world.reset(settings.batch, chance), settings.limit)
        advantages, targets = learner.advantage(world, episodes, values)
        if learner.critic:
            advantages = whiten(advantages, episodes.mask)
            values = believed(values, episodes, targets, settings.alpha)
        old = taken(policy.log(), episodes)
        for _ in range(learner.passes):
            adam.zero_grad()
            policy_objective(world, logits, episodes, old, advantages, learner.loss).backward()
            adam.step()
    learnt.note(world, updates * settings.batch, logits.detach().softmax(-1))
    learnt.values = values if learner.critic else None
    return learnt


def taken(logprobs: Tensor, episodes: Episodes) -> Tensor:
    """The log-probs of the actions that were taken: (S, A) → (N, T)."""
    return logprobs[episodes.states, episodes.actions]


def policy_objective(
    world: World,
    logits: Tensor,
    episodes: Episodes,
    old: Tensor,
    advantages: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """What is minimised: the loss of every action, discounted by its time, as a mean over actions."""
    new = taken(logits.log_softmax(-1), episodes)
    weights, count = per_token(episodes.mask, episodes.mask.shape[1])
    times = world.gamma ** torch.arange(weights.shape[1], dtype=torch.float64)
    return (loss(new, old, advantages) * weights * times).sum() / count


def believed(values: Tensor, episodes: Episodes, targets: Tensor, alpha: float) -> Tensor:
    """The critic after a batch: each state's value moves by ``alpha`` towards the mean of what was seen from it."""
    table = values.clone().requires_grad_()
    visits = torch.bincount(episodes.states[episodes.mask], minlength=len(values)).clamp(min=1)
    held = table[episodes.states]
    each = value_loss(held, held.detach(), targets, clip=None) * episodes.mask / visits[episodes.states]
    [slope] = torch.autograd.grad(each.sum(), table)
    return values - alpha * slope


def learn(world: World, settings: Gridworld, method: str) -> Learnt:
    """Learn by the method of that name."""
    if method == "value-iteration":
        return value_iteration(world, settings)
    if method == "q-learning":
        return q_learning(world, settings)
    return policy_gradient(world, settings, LEARNERS[method])
