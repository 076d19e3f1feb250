"""Monte Carlo tree search: its formulas by hand, its statistics on spaces whose values are enumerated, then games."""

import math
from itertools import product
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ConfigError
from amauta.prompt.methods import METHODS
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.tasks import game24
from amauta.prompt.thoughts.montecarlo import Place, puct, rule, search, uct
from amauta.prompt.thoughts.settings import Thoughts
from tests.prompt.scripted import Scripted
from tests.prompt.thoughts.players import asked, spendings, wanderer


class Leaves:
    """A full tree whose leaves have known rewards; a rollout goes down at random. States are numbered as made."""

    def __init__(self, branching: int, depth: int, reward, seed: int = 0, priors=None) -> None:
        self.branching, self.depth, self.reward = branching, depth, reward
        self.priors = priors or [1 / branching] * branching
        self.paths: list[tuple[int, ...]] = [()]
        self.random = Random(seed)
        self.rolled: list[tuple[int, ...]] = []

    def expand(self, state: int) -> dict[int, float]:
        if len(self.paths[state]) == self.depth:
            return {}
        start = len(self.paths)
        self.paths += [(*self.paths[state], choice) for choice in range(self.branching)]
        return {start + choice: self.priors[choice] for choice in range(self.branching)}

    def rollout(self, state: int) -> float:
        path = self.paths[state]
        self.rolled.append(path)
        while len(path) < self.depth:
            path = (*path, self.random.randrange(self.branching))
        return self.reward(path)

    def run(self, simulations: int, name: str = "uct", c: float = math.sqrt(2)) -> dict[tuple[int, ...], Place]:
        found = search(self.expand, self.rollout, rule(name, c), simulations=simulations)
        return {self.paths[state]: place for state, place in found.items()}


def test_uct_by_hand():
    assert uct(0.5, 10, 4, math.sqrt(2)) == pytest.approx(1.57298301, abs=1e-8)  # in 30 decimal digits
    assert uct(0.0, 10, 0, 1.0) == math.inf
    assert uct(0.25, 10, 4, 0.0) == 0.25


def test_puct_by_hand():
    assert puct(0.5, 0.2, 9, 2, 1.5) == pytest.approx(0.5 + 1.5 * 0.2 * 3 / 3)
    assert puct(0.0, 0.2, 0, 0, 1.0) < puct(0.0, 0.3, 0, 0, 1.0)  # before any visit the likeliest is first


@given(st.integers(0, 999), st.integers(1, 60), st.sampled_from(["uct", "puct"]))
def test_statistics_are_sums_over_the_rollouts_below(seed: int, simulations: int, name: str):
    rewards = Random(seed)
    table = {path: rewards.random() for path in product(range(2), repeat=3)}
    earned: list[tuple[tuple[int, ...], float]] = []
    space = Leaves(2, 3, table.__getitem__, seed)
    roll = space.rollout

    def rollout(state: int) -> float:
        reward = roll(state)
        earned.append((space.paths[state], reward))
        return reward

    space.rollout = rollout
    places = space.run(simulations, name)
    for path, place in places.items():
        below = [reward for state, reward in earned if state[: len(path)] == path]
        assert place.visits == len(below) and place.total == pytest.approx(sum(below))
        if place.children and path:  # its first visit was a rollout of its own
            assert place.visits == 1 + sum(places[(*path, choice)].visits for choice in range(2))
    assert places[()].visits == simulations == sum(places[(choice,)].visits for choice in range(2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["uct", "puct"])
def test_it_comes_to_the_best_leaf(name: str, seed: int):
    """27 leaves, one of them best by a fifth: after 3,000 walks most go there, and its means are near its reward."""
    rewards = Random(seed)
    table = {path: 0.8 * rewards.random() for path in product(range(3), repeat=3)}
    best = rewards.choice(list(table))
    table[best] = 1.0
    places = Leaves(3, 3, table.__getitem__, seed).run(3000, name, c=0.5)
    for depth in (1, 2, 3):
        siblings = [(*best[: depth - 1], choice) for choice in range(3)]
        assert max(siblings, key=lambda path: places[path].visits) == best[:depth]
    assert places[best].mean == 1.0
    assert places[best[:1]].mean > 0.85


def test_means_of_arms_come_to_their_exact_expectation():
    """One level of choice, then three at random: the exact mean of an arm is that of its leaves, by enumeration."""
    rewards = Random(5)
    table = {path: rewards.random() for path in product(range(2), repeat=4)}
    space = Leaves(2, 4, table.__getitem__, seed=2)
    expand = space.expand
    space.expand = lambda state: expand(state) if state == 0 else {}  # nothing below is made: rollouts only
    places = space.run(4000, c=100.0)
    for arm in range(2):
        leaves = [reward for path, reward in table.items() if path[0] == arm]
        sd = math.sqrt(mean((one - mean(leaves)) ** 2 for one in leaves) / places[(arm,)].visits)
        assert places[(arm,)].mean == pytest.approx(mean(leaves), abs=4 * sd)
        assert 1900 < places[(arm,)].visits < 2100  # so large a c visits all alike


def test_bernoulli_arms():
    chance = Random(1)
    space = Leaves(3, 1, lambda path: float(chance.random() < (0.2, 0.5, 0.8)[path[0]]))
    places = space.run(2000, c=0.7)
    visits = [places[(arm,)].visits for arm in range(3)]
    assert visits.index(max(visits)) == 2 and visits[2] > 1500
    assert places[(2,)].mean == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / visits[2]))


def test_a_step_is_tried_before_what_comes_after_it():
    space = Leaves(3, 3, lambda path: 1.0)
    space.run(4)
    assert space.rolled[:3] == [(0,), (1,), (2,)] and space.rolled[3] == (0, 0)


def test_priors_lead_the_search():
    space = Leaves(3, 2, lambda path: 0.5, priors=[0.1, 0.7, 0.2])
    places = space.run(60, "puct", c=1.0)
    visits = [places[(choice,)].visits for choice in range(3)]
    assert space.rolled[0] == (1,) and visits[1] > visits[2] > visits[0]
    assert places[(1,)].prior == 0.7


def test_what_cannot_be_expanded_is_asked_for_once():
    space = Leaves(2, 1, lambda path: 1.0)
    expand, calls = space.expand, []
    space.expand = lambda state: calls.append(state) or expand(state)
    space.run(20)
    assert sorted(calls) == [0, 1, 2]


def test_it_ends_when_no_more_rollouts_may_be_had():
    space = Leaves(2, 3, lambda path: 1.0)
    left = [1.0] * 5 + [None]  # and is not asked for more
    places = {
        space.paths[state]: place
        for state, place in search(space.expand, lambda state: left.pop(0), rule("uct", 1.0), simulations=50).items()
    }
    assert places[()].visits == 5 and places[()].total == 5


# Game of 24


def played(seed: int = 0, puzzle: str = "1 2 6 12", **settings):
    model = Scripted(wanderer(seed))
    outcome = METHODS["mcts"](model, game24.TASK, Example(puzzle, ""), Prompting(thoughts=Thoughts(**settings)))
    return model, outcome


@pytest.mark.parametrize("name", ["uct", "puct"])
@pytest.mark.parametrize("reward", ["check", "value"])
def test_a_player_at_random_is_led_to_24(reward: str, name: str):
    model, outcome = played(simulations=150, branching=4, reward=reward, judgements=1, rule=name)
    assert game24.grade(Example("1 2 6 12", ""), outcome.answer) == 1
    assert outcome.facts["rollouts"] == 150
    assert outcome.facts["rewards"][outcome.answer.casefold()] == max(outcome.facts["rewards"].values())
    tree = outcome.tree
    assert tree.budget == {"generated": model.generated, "read": model.read, "calls": model.calls}
    assert tree.nodes[0].facts["visits"] == 150
    chosen = [node for node in tree.nodes if node.state == "chosen"]
    assert "".join(node.text for node in chosen) == outcome.text and outcome.text.endswith("(left: 24)\n")
    with_prior = [node for node in tree.nodes if "prior" in node.facts and node.parents]
    by_parent: dict[int, float] = {}
    for node in with_prior:
        by_parent[node.parents[0]] = by_parent.get(node.parents[0], 0.0) + node.facts["prior"]
    assert all(total == pytest.approx(1.0) for total in by_parent.values())


def test_priors_are_the_softmax_of_mean_logprobs():
    lines = [("1 + 2 = 3 (left: 3 6 12)", -24.0), ("2 - 1 = 1 (left: 1 6 12)", -48.0)]  # 24 characters each
    model = Scripted(lambda prompt, times: lines[times % 2] if prompt.endswith("12\nSteps:\n") else "hm")
    outcome = METHODS["mcts"](
        model, game24.TASK, Example("1 2 6 12", ""), Prompting(thoughts=Thoughts(simulations=1, branching=2))
    )
    found = [node.facts["prior"] for node in outcome.tree.nodes[1:3]]
    assert found == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


def test_solutions_without_an_answer_earn_nothing_and_are_not_judged():
    def hopeless(prompt: str, times: int) -> str:
        assert prompt.startswith(game24.STEPPING)
        return "9 + 9 = 18 (left: 18 1)"  # there is no 9

    outcome = METHODS["mcts"](
        Scripted(hopeless),
        game24.TASK,
        Example("1 2 6 12", ""),
        Prompting(thoughts=Thoughts(simulations=3, branching=1)),
    )
    assert outcome.answer is None and outcome.facts["rewards"] == {} and outcome.tree.nodes[0].facts["value"] == 0


def test_a_value_is_measured_from_0_to_1_and_a_finished_state_is_judged_once():
    def one_way(prompt: str, times: int) -> str:
        return "likely" if prompt.startswith(game24.VALUING) else "12 * 2 = 24 (left: 24)"

    model = Scripted(one_way)
    outcome = METHODS["mcts"](
        model, game24.TASK, Example("2 12", ""), Prompting(thoughts=Thoughts(simulations=5, branching=1, judgements=1))
    )
    assert outcome.answer == "12 * 2" and outcome.tree.nodes[0].facts["value"] == pytest.approx(1 / 20)
    assert sum(prompt.startswith(game24.VALUING) for prompt in model.prompts) == 1
    assert len(model.prompts) == 2  # the step is a whole solution itself: nothing is rolled out


def test_the_answer_is_the_one_that_earned_most_not_the_commonest():
    """Two wrong steps that give the same answer are visited twice as often as the right one."""
    steps = ["1 + 1 = 2 (left: 2)", "1 + 1 = 2 (left: 3)", "2 * 12 = 24 (left: 24)"]

    def say(prompt: str, times: int) -> str:
        if prompt.startswith(game24.VALUING):
            return "sure" if asked(prompt)[0] == "24" else "impossible"
        return steps[times]

    outcome = METHODS["mcts"](
        Scripted(say), game24.TASK, Example("1 1 2 12", ""),
        Prompting(thoughts=Thoughts(simulations=9, branching=3, exploration=100.0, judgements=1)),
    )  # fmt: skip
    assert outcome.answer == "2 * 12"
    assert outcome.facts["rewards"] == {"1 + 1": pytest.approx(6 * 0.001 / 20), "2 * 12": 3.0}


def test_no_step_is_deeper_than_the_depth():
    _, outcome = played(simulations=30, branching=2, depth=1)
    depths = outcome.tree.depths()
    assert {depths[place] for place, node in enumerate(outcome.tree.nodes) if node.kind == "thought"} == {1}


@pytest.mark.parametrize("limit", [{"most_calls": 12}, {"most_tokens": 500}, {"most_thoughts": 5}])
def test_limits(limit: dict[str, int]):
    _, outcome = played(simulations=500, branching=3, judgements=1, thought_tokens=30, judgement_tokens=20, **limit)
    assert outcome.facts["rollouts"] < 500 or "most_thoughts" in limit
    assert outcome.facts["spent"]
    spent = spendings(outcome)
    assert all(spent[name] <= most for name, most in limit.items())


def test_a_task_without_a_check_says_so():
    with pytest.raises(ConfigError) as error:
        METHODS["mcts"](
            Scripted({}), Task("sums", lambda count, seed: []), Example("1+1", "2"),
            Prompting(thoughts=Thoughts(reward="check")),
        )  # fmt: skip
    assert error.value.key == "thoughts.no-check" and error.value.fields == {"task": "sums"}
