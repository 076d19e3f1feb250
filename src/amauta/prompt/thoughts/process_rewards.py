"""The reward of single steps, measured by rollouts: OmegaPRM (Luo et al. 2024, arXiv 2406.06592).

MC(s), the worth of a state (a question and the first steps of a solution), is the share of solutions sampled from
there that end right. A step is wrong when no rollout after it succeeds while some before it did; in a wrong solution
the first such step is found by halving, with MC of at most ceil(log2 steps) states, as if no state after a hopeless one
had hope. Which wrong solution is looked at next is decided by Q(s, r) + U(s), where

    Q(s, r) = alpha^(1 - MC(s)) beta^(tokens of r / L)        U(s) = c sqrt(sum_i N(s_i)) / (1 + N(s))

(their section 3.2): the likeliest to be solved first, and the short ones. It is a *Monte Carlo* tree search; nothing
in it is a Markov decision tree. Differences from the paper: a state's rollouts are sampled once and kept, however often
it is met; solutions that differ in no step are looked at once; right solutions are written too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amauta.prompt.outcome import Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.thoughts.settings import ProcessRewards
from amauta.prompt.thoughts.steps import Path, begun
from amauta.prompt.thoughts.thinking import Thinking


@dataclass(frozen=True)
class Rollout:
    """One solution sampled from a state: the steps after it, and whether its answer is right."""

    steps: Path
    right: bool
    tokens: int
    answer: str | None = None


@dataclass
class Place:
    """A state and its rollouts; ``visits`` (N) counts how often a wrong solution of it was looked at."""

    path: Path
    rollouts: Sequence[Rollout]
    visits: int = 0

    @property
    def mc(self) -> float:
        """The share of rollouts that end right."""
        return sum(one.right for one in self.rollouts) / len(self.rollouts)


@dataclass(frozen=True)
class Found:
    """A solution and what is known of its steps: ``values[t]`` is MC after t steps where it was measured, and
    ``first_wrong`` the number of the first wrong step, from 1; None in a right solution."""

    steps: Path
    values: dict[int, float]
    first_wrong: int | None
    answer: str | None = None


@dataclass
class Search:
    """What was found of one question, and by how many rollouts. ``places``: every state that was measured."""

    places: dict[Path, Place] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    rollouts: int = 0


def first_wrong_step(steps: int, worth: Callable[[int], float | None]) -> int | None:
    """The number t of the first step whose state has no worth left: worth(t - 1) > 0 and worth(t) = 0, by halving.

    The state before step 1 has worth, that after the last step has none: neither is asked for. At most ceil(log2 steps)
    others are; where a worth is None (it could not be had) the search is given up.
    """
    good, bad = 0, steps
    while bad - good > 1:
        middle = (good + bad) // 2
        found = worth(middle)
        if found is None:
            return None
        good, bad = (middle, bad) if found > 0 else (good, middle)
    return bad


def rank(mc: float, tokens: int, settings: ProcessRewards) -> float:
    """Q(s, r) of a wrong rollout r with so many tokens."""
    return settings.alpha ** (1 - mc) * settings.beta ** (tokens / settings.length)


def bonus(visits: int, all_visits: int, c: float) -> float:
    """U(s)."""
    return c * math.sqrt(all_visits) / (1 + visits)


def search(sample: Callable[[Path, int], Sequence[Rollout]], settings: ProcessRewards) -> Search:
    """Look for first wrong steps in the solutions of one question.

    ``sample(path, k)`` gives k rollouts after some steps, or fewer when no more may be had: then the search ends with
    what it has. Nothing can be found where all rollouts of the question itself are right, or none is.
    """
    made = Search()
    pool: list[tuple[Place, Rollout]] = []

    def place_of(path: Path) -> Place | None:
        if path not in made.places:
            rollouts = sample(path, settings.rollouts)
            made.rollouts += len(rollouts)
            if len(rollouts) < settings.rollouts:
                return None
            made.places[path] = Place(path, rollouts)
            pool.extend(_wrong(made.places[path]))
        return made.places[path]

    root = place_of(())
    if root is None:
        return made
    right = {one.steps: one for one in root.rollouts if one.right}
    for steps, one in list(right.items())[: settings.right]:
        made.found.append(Found(steps, {0: root.mc, len(steps): 1.0}, None, one.answer))
    seen: set[Path] = set()
    for _ in range(settings.searches):
        pool = [(place, rollout) for place, rollout in pool if place.path + rollout.steps not in seen]
        if not pool:
            break
        visits = sum(place.visits for place in made.places.values())
        scores = [
            rank(place.mc, one.tokens, settings) + bonus(place.visits, visits, settings.exploration)
            for place, one in pool
        ]
        place, rollout = pool.pop(scores.index(max(scores)))
        place.visits += 1
        seen.add(place.path + rollout.steps)
        found = _look(place, rollout, place_of)
        if found is None:
            break
        made.found.append(found)
    return made


def _wrong(place: Place) -> list[tuple[Place, Rollout]]:
    """The rollouts worth looking at: wrong ones that have steps, of a state from which others succeed."""
    return [(place, one) for one in place.rollouts if not one.right and one.steps and place.mc > 0]


def _look(place: Place, rollout: Rollout, place_of: Callable[[Path], Place | None]) -> Found | None:
    """Where a wrong rollout goes wrong; None where the limits forbid to find it."""
    start, steps = len(place.path), place.path + rollout.steps
    values = {start: place.mc, len(steps): 0.0}

    def worth(t: int) -> float | None:
        after = place_of(steps[: start + t])
        if after is not None:
            values[start + t] = after.mc
        return None if after is None else after.mc

    wrong = first_wrong_step(len(rollout.steps), worth)
    return None if wrong is None else Found(steps, values, start + wrong, rollout.answer)


def measure(
    model: Any, task: Task, example: Example, prompting: Prompting, settings: ProcessRewards
) -> tuple[Search, Outcome]:
    """The search of one example by a model, and what it cost, with its tree: a right answer is one of grade 1."""
    thinking = Thinking("process-rewards", model, task, example, prompting, settings)
    tree = thinking.tree
    nodes: dict[Path, int] = {(): 0}

    def sample(path: Path, count: int) -> list[Rollout]:
        above = max((known for known in nodes if path[: len(known)] == known), key=len)
        if path != above:
            nodes[path] = tree.add(nodes[above], (), begun(path[len(above) :]), kind="thought", state="kept")
        found = [
            Rollout(one.steps, task.grade(example, one.answer) == 1, one.tokens, one.answer)
            for one in thinking.solve(nodes[path], count)
        ]
        tree.set(nodes[path], value=sum(one.right for one in found) / max(1, len(found)), visits=0)
        return found

    made = search(sample, settings)
    for path, place in made.places.items():
        tree.set(nodes[path], visits=place.visits)
    outcome = thinking.requests.outcome(None, "", rollouts=made.rollouts, found=len(made.found))
    return made, outcome


def records(example: Example, made: Search) -> list[dict[str, Any]]:
    """A record for each solution, in TRL's shape for stepwise supervision: ``prompt``, ``completions`` (the steps) and
    ``labels`` (true up to the first wrong step), and beside it ``values`` (MC after each step, null where it was not
    measured), ``first_wrong`` (from 1; null: none), the solution's ``answer`` and the question's own MC."""
    return [
        {
            "prompt": example.question,
            "completions": list(one.steps),
            "labels": [one.first_wrong is None or t < one.first_wrong for t in range(1, len(one.steps) + 1)],
            "values": [one.values.get(t) for t in range(1, len(one.steps) + 1)],
            "first_wrong": one.first_wrong,
            "answer": one.answer,
            "question_value": made.places[()].mc,
        }
        for one in made.found
    ]
