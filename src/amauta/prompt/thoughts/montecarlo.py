"""Monte Carlo tree search over steps: select by UCT or PUCT, expand, roll out to a whole solution, back up the mean.

UCT: Kocsis & Szepesvári 2006, with the logarithm of the parent's visits (Auer et al. 2002, UCB1). PUCT: the form of
Silver et al. 2017. ``search`` knows nothing of a model. The answer is voted for: each rollout gives its answer its
reward (``vote.count``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from amauta.base.errors import ConfigError
from amauta.prompt.outcome import Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.thoughts.thinking import Solution, Thinking
from amauta.prompt.vote import Ballot, count


@dataclass
class Place:
    """What is known of a state: ``prior`` is the probability of its step among its siblings."""

    visits: int = 0
    total: float = 0.0  # of the rewards backed up
    prior: float = 1.0
    children: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Q; 0 before the first visit."""
        return self.total / self.visits if self.visits else 0.0


Score: TypeAlias = Callable[[Place, Place, Sequence[Place]], float]  # of a child: its parent, it, all its siblings


def uct(mean: float, parent_visits: int, visits: int, c: float) -> float:
    """Q + c sqrt(ln N(s) / N(s, a)); infinite before the first visit, so every step is tried once."""
    return mean + c * math.sqrt(math.log(parent_visits) / visits) if visits else math.inf


def puct(mean: float, prior: float, siblings_visits: int, visits: int, c: float) -> float:
    """Q(s, a) + c P(s, a) sqrt(sum_b N(s, b)) / (1 + N(s, a)).

    Before any child was visited the root is 0 and all would tie: then at least 1 is put under it, so that the likeliest
    is first.
    """
    return mean + c * prior * math.sqrt(max(1, siblings_visits)) / (1 + visits)


def rule(name: str, c: float) -> Score:
    """The score of selection by its name."""
    if name == "uct":
        return lambda parent, child, siblings: uct(child.mean, parent.visits, child.visits, c)
    return lambda parent, child, siblings: puct(
        child.mean, child.prior, sum(each.visits for each in siblings), child.visits, c
    )


def search(
    expand: Callable[[int], dict[int, float]],
    rollout: Callable[[int], float | None],
    score: Score,
    *,
    simulations: int,
    root: int = 0,
) -> dict[int, Place]:
    """What ``simulations`` walks from ``root`` have found of each state that was made.

    ``expand(state)`` gives new states with their priors (none: the end, or no more may be made), ``rollout(state)`` the
    reward of one whole solution after it, or None when no more may be had: then the search ends. A state is expanded
    when a walk comes to it a second time (the root: the first), so that a step that is tried once costs one rollout.
    """
    places = {root: Place()}
    barren: set[int] = set()
    for _ in range(simulations):
        way = [root]
        while True:
            node, place = way[-1], places[way[-1]]
            if not place.children and node not in barren and (place.visits or node == root):
                made = expand(node)
                if not made:
                    barren.add(node)
                place.children = list(made)
                places |= {child: Place(prior=prior) for child, prior in made.items()}
            if not place.children:
                break
            siblings = [places[child] for child in place.children]
            scores = [score(place, each, siblings) for each in siblings]
            way.append(place.children[scores.index(max(scores))])  # of equal ones the first
        reward = rollout(way[-1])
        if reward is None:
            break
        for node in way:
            places[node].visits += 1
            places[node].total += reward
    return places


def monte_carlo(model: Any, task: Task, example: Example, prompting: Prompting) -> Outcome:
    """The answer that earned most; ``facts["rewards"]`` tells what each earned, in ``facts["rollouts"]`` rollouts.

    A step's prior is the softmax over its siblings of its mean log-prob a token: the probability of the whole step
    would prefer short ones. A solution without an answer earns 0. ConfigError: reward "check" of a task without one.
    """
    settings = prompting.thoughts
    thinking = Thinking("mcts", model, task, example, prompting, settings)
    if settings.reward == "check" and thinking.steps.check is None:
        raise ConfigError("thoughts.no-check", task=task.name)
    ballots: list[tuple[Ballot, int]] = []  # of each rollout, and the node of its solution

    def expand(node: int) -> dict[int, float]:
        if thinking.finished(node) or len(thinking.path(node)) >= thinking.depth:
            return {}
        return priors(thinking, thinking.sample([node]))

    def rollout(node: int) -> float | None:
        if thinking.finished(node):
            solution = Solution(node, (), thinking.answer(node), 0)
        else:
            solution = next(iter(thinking.solve(node)), None)
        if solution is None:
            return None
        reward = _reward(thinking, solution)
        if reward is None:
            return None
        thinking.tree.set(solution.node, reward=reward)
        ballots.append((Ballot(solution.answer, thinking.tree.logprob(solution.node), reward), solution.node))
        return reward

    places = search(
        expand, rollout, rule(settings.rule, settings.exploration), simulations=settings.simulations
    )  # fmt: skip
    for node, place in places.items():
        state = "kept" if place.children else None
        thinking.tree.set(node, state, visits=place.visits, value=place.mean, prior=place.prior)
    counted = count([ballot for ballot, _ in ballots])
    best = 0 if counted.place is None else ballots[counted.place][1]
    thinking.tree.choose(best)
    return thinking.requests.outcome(
        counted.answer, thinking.tree.text(best),
        rewards=counted.weights, rollouts=places[0].visits, unread=thinking.unread, unclear=thinking.unclear,
    )  # fmt: skip


def priors(thinking: Thinking, nodes: Sequence[int]) -> dict[int, float]:
    """P(s, a) of new states: the softmax of the mean log-prob a token of each step."""
    each = [thinking.tree.nodes[node] for node in nodes]
    means = [one.logprob / max(1, len(one.ids)) for one in each]
    weights = [math.exp(mean - max(means)) for mean in means]
    return {node: weight / sum(weights) for node, weight in zip(nodes, weights, strict=True)}


def _reward(thinking: Thinking, solution: Solution) -> float | None:
    """From 0 to 1; None where the limits leave no room to judge."""
    if solution.answer is None:
        return 0.0
    check = thinking.steps.check
    if thinking.settings.reward == "check" and check is not None:
        return float(check(thinking.example, solution.answer))
    return thinking.worth(solution)
