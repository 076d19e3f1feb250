"""A finite world in tables: where every action leads, what it earns, and what follows from that exactly.

``reset`` and ``step`` are the contract of a world: states in, states and rewards out. A cat in a grid is one
(``gridworld.py``), and so are the answers that a language model may write, token by token (``enumerable.py``).
Letters: S states, A actions, N episodes, T steps. Values are f64: they are the ground that estimates are held against.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Where actions lead is certain; only who acts may draw. An end earns nothing more and leads to itself."""

    following: Tensor  # (S, A): the state that the action leads to
    rewards: Tensor  # (S, A) f64: what the action earns
    ends: Tensor  # (S,): True where an episode is over
    starts: Tensor  # (K,): the states in which episodes begin, each as likely as another
    gamma: float  # what a reward is worth one step later

    @property
    def states(self) -> int:
        return self.following.shape[0]

    @property
    def actions(self) -> int:
        return self.following.shape[1]

    def reset(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """The first states of ``count`` episodes, (N,)."""
        if len(self.starts) == 1:
            return self.starts.expand(count)
        return self.starts[torch.randint(len(self.starts), (count,), generator=generator)]

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,), (N,) → the states that follow, the rewards, and whether each episode is over."""
        after = self.following[states, actions]
        return after, self.rewards[states, actions], self.ends[after]


@dataclass(frozen=True)
class Episodes:
    """What was done and earned, (N, T) each; after an episode's end nothing is, whatever the actions."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor  # True where an action was taken
    last: Tensor  # (N,): the state after the last action
    over: Tensor  # (N,): whether that is an end, and not the limit of steps

    def returns(self, gamma: float) -> Tensor:
        """What each episode earned, discounted, (N,)."""
        return (self.rewards * gamma ** torch.arange(self.rewards.shape[1], dtype=torch.float64)).sum(1)


def play(world: World, act: Callable[[Tensor], Tensor], first: Tensor, limit: int) -> Episodes:
    """Play an episode from each of the states ``first`` (N,), at most ``limit`` actions; ``act``: states → actions."""
    states, over = first, world.ends[first]
    seen: list[tuple[Tensor, ...]] = []
    for _ in range(limit):
        if bool(over.all()):
            break
        actions = act(states)
        after, rewards, done = world.step(states, actions)
        seen.append((states, actions, rewards, ~over))
        states, over = after, over | done
    columns = (torch.stack(column, 1) for column in zip(*seen, strict=True))
    return Episodes(*columns, last=states, over=over)


def drawn(policy: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Who acts by drawing from a policy's probabilities (S, A)."""
    return lambda states: torch.multinomial(policy[states], 1, generator=generator)[:, 0]


# -- what is exact


def action_values(world: World, values: Tensor) -> Tensor:
    """``r + γ V(what follows)``: (S,) → (S, A), 0 in an end."""
    return (world.rewards + world.gamma * values[world.following]) * ~world.ends[:, None]


def greedy(quality: Tensor, tolerance: float = 1e-9) -> Tensor:
    """All mass on the best actions of (S, A), shared alike where several are: (S, A)."""
    best = quality >= quality.max(-1, keepdim=True).values - tolerance
    return best.double() / best.sum(-1, keepdim=True)


def policy_values(world: World, policy: Tensor) -> Tensor:
    """What a policy (S, A) earns from each state, by solving Bellman's linear equations: (S,) f64. Differentiable."""
    policy = policy.double() * ~world.ends[:, None]
    moves = torch.zeros(world.states, world.states, dtype=torch.float64)
    moves = moves.scatter_add(1, world.following, policy)  # (S, S): the chance to go from one state to another
    system = torch.eye(world.states, dtype=torch.float64) - world.gamma * moves
    return torch.linalg.solve(system, (policy * world.rewards).sum(1))


def start_value(world: World, values: Tensor) -> Tensor:
    """The mean over the states in which episodes begin, a scalar."""
    return values[world.starts].mean()
