"""Rewards of steps: the first wrong step of solvers whose wrong step is known, counts of rollouts, ranks by hand."""

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example
from amauta.prompt.tasks import game24
from amauta.prompt.thoughts.process_rewards import (
    Place,
    Rollout,
    bonus,
    first_wrong_step,
    measure,
    rank,
    records,
    search,
)  # fmt: skip
from amauta.prompt.thoughts.settings import ProcessRewards
from tests.prompt.scripted import Scripted
from tests.prompt.thoughts.players import asked, fitful

SETTINGS = ProcessRewards()


@given(st.integers(1, 200), st.data())
def test_the_first_wrong_step_is_found_by_halving(steps: int, data: st.DataObject):
    wrong = data.draw(st.integers(1, steps))
    probed: list[int] = []

    def worth(t: int) -> float:
        assert 0 < t < steps and t not in probed  # the ends are known
        probed.append(t)
        return float(t < wrong)

    assert first_wrong_step(steps, worth) == wrong
    assert len(probed) <= math.ceil(math.log2(steps))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_where_hope_comes_back_it_still_finds_a_step_that_loses_it(hopes: list[bool]):
    worths = [True, *hopes, False]
    found = first_wrong_step(len(hopes) + 1, lambda t: float(worths[t]))
    assert found is not None and worths[found - 1] and not worths[found]


def test_a_worth_that_cannot_be_had_ends_it():
    assert first_wrong_step(8, lambda t: None) is None
    assert first_wrong_step(1, lambda t: None) == 1  # nothing has to be asked


def test_ranks_by_hand():
    assert rank(1.0, 0, SETTINGS) == 1.0
    assert rank(0.75, 250, SETTINGS) == pytest.approx(0.5**0.25 * 0.9**0.5)
    assert rank(0.75, 10, SETTINGS) > rank(0.5, 10, SETTINGS)  # the likelier state first
    assert rank(0.5, 10, SETTINGS) > rank(0.5, 400, SETTINGS)  # the shorter solution first
    assert bonus(0, 9, 0.125) == pytest.approx(0.375) and bonus(2, 9, 0.125) == pytest.approx(0.125)


def test_the_defaults_are_those_told_of_the_paper():
    assert (SETTINGS.alpha, SETTINGS.beta, SETTINGS.length, SETTINGS.exploration) == (0.5, 0.9, 500, 0.125)
    assert (SETTINGS.rollouts, SETTINGS.searches) == (8, 100)


class Solver:
    """Writes solutions of ``steps`` steps; every second one goes wrong, and does so in step ``wrong``.

    A step is named by its number, with "x" when it is wrong; after a wrong one nothing ends right.
    """

    def __init__(self, steps: int, wrong: int) -> None:
        self.steps, self.wrong = steps, wrong
        self.asked: list[tuple[str, ...]] = []

    def sample(self, path: tuple[str, ...], count: int) -> list[Rollout]:
        self.asked.append(path)
        lost = any(step.endswith("x") for step in path)
        found = []
        for number in range(count):
            wrong = self.wrong if number % 2 and self.wrong > len(path) and not lost else None
            rest = tuple(f"{t}x" if t == wrong else f"{t}" for t in range(len(path) + 1, self.steps + 1))
            found.append(Rollout(rest, not (lost or wrong), 10, "no" if lost or wrong else "yes"))
        return found


@pytest.mark.parametrize(("steps", "wrong"), [(1, 1), (2, 1), (2, 2), (7, 4), (8, 1), (8, 8), (16, 11), (31, 17)])
def test_a_solver_with_a_known_wrong_step(steps: int, wrong: int):
    """All its wrong solutions are the same: one halving finds the step, with at most ceil(log2 steps) states."""
    solver = Solver(steps, wrong)
    made = search(solver.sample, replace(SETTINGS, rollouts=4))
    right, found = made.found
    assert right.first_wrong is None and right.steps == tuple(map(str, range(1, steps + 1)))
    assert found.first_wrong == wrong and found.steps[wrong - 1] == f"{wrong}x" and found.answer == "no"
    probes = len(solver.asked) - 1  # the first is the question itself
    assert probes <= math.ceil(math.log2(steps)) and made.rollouts == 4 * (1 + probes)
    measured = {t: value for t, value in found.values.items() if 0 < t < steps}
    assert len(measured) == probes
    for t, value in measured.items():  # half of the rollouts succeed as long as the wrong step is to come, all after it
        assert value == (0.5 if t < wrong else 0.0)
    assert found.values[steps] == 0 and found.values[0] == 0.5


def test_questions_without_a_boundary():
    def always(right: bool):
        return lambda path, count: [Rollout(("a",), right, 5)] * count

    hard, easy = search(always(False), SETTINGS), search(always(True), SETTINGS)
    assert hard.found == [] and hard.places[()].mc == 0 and hard.rollouts == 8
    assert [one.first_wrong for one in easy.found] == [None] and easy.places[()].mc == 1 and easy.rollouts == 8
    assert search(always(True), replace(SETTINGS, right=0)).found == []


def test_wrong_solutions_found_on_the_way_are_searched_too():
    """Step 2 of the second way goes wrong at another place; it is only met from the state after step 1."""
    ways = {
        (): [Rollout(("a", "b", "c", "d"), True, 4), Rollout(("a", "b", "X", "d"), False, 4)],
        ("a", "b"): [Rollout(("c", "d"), True, 2), Rollout(("c", "Y"), False, 2)],
        ("a", "b", "X"): [Rollout(("d",), False, 1)] * 2,
        ("a", "b", "c"): [Rollout(("d",), True, 1), Rollout(("Z",), False, 1)],
    }
    made = search(lambda path, count: ways[path], replace(SETTINGS, rollouts=2))
    assert [(one.steps, one.first_wrong) for one in made.found] == [
        (("a", "b", "c", "d"), None),
        (("a", "b", "X", "d"), 3),
        (("a", "b", "c", "Y"), 4),
        (("a", "b", "c", "Z"), 4),
    ]
    assert [made.places[path].visits for path in ways] == [1, 1, 0, 1]
    assert made.rollouts == 8
    few = search(lambda path, count: ways[path], replace(SETTINGS, rollouts=2, searches=1))
    assert [one.first_wrong for one in few.found] == [None, 3]


def test_the_likeliest_state_and_the_shortest_solution_are_taken_first():
    """Both wrong ones are of the question: the shorter is first, then the other; MC and visits by hand."""
    wrong = [Rollout(("long", "wrong"), False, 400), Rollout(("short", "wrong"), False, 10)]
    ways = {(): [*wrong, Rollout(("ok",), True, 5)], ("long",): wrong * 2, ("short",): [Rollout(("w",), False, 1)] * 3}
    made = search(lambda path, count: ways[path][:count], replace(SETTINGS, rollouts=3, right=0))
    assert [one.steps[0] for one in made.found] == ["short", "long"]
    assert made.places[()].visits == 2 and made.places[()].mc == pytest.approx(1 / 3)


def test_it_ends_with_what_it_has_when_no_more_may_be_sampled():
    solver = Solver(16, 11)
    left = [8, 8, 3]
    made = search(lambda path, count: solver.sample(path, left.pop(0) if left else 0), SETTINGS)
    assert [one.first_wrong for one in made.found] == [None] and made.rollouts == 19 and len(made.places) == 2
    assert search(lambda path, count: [], SETTINGS).places == {}


@given(st.integers(0, 500))
def test_statistics_of_any_solver(seed: int):
    """Every record's boundary holds for the MC that was measured, no state is sampled twice, no record twice."""
    random = Random(seed)
    sampled: list[tuple[str, ...]] = []

    def sample(path: tuple[str, ...], count: int) -> list[Rollout]:
        sampled.append(path)
        rests = [tuple(random.choice("ab") for _ in range(random.randint(1, 6))) for _ in range(count)]
        return [Rollout(rest, random.random() < 0.4, len(rest)) for rest in rests]

    made = search(sample, replace(SETTINGS, rollouts=3, searches=6))
    assert len(sampled) == len(set(sampled)) == len(made.places)
    wrongs = [one for one in made.found if one.first_wrong is not None]
    assert len({one.steps for one in wrongs}) == len(wrongs) <= 6
    assert sum(place.visits for place in made.places.values()) == len(wrongs)
    for one in wrongs:
        assert one.values[one.first_wrong] == 0 and one.values[one.first_wrong - 1] > 0
        for t, value in one.values.items():
            if t < len(one.steps):
                assert value == made.places[one.steps[:t]].mc


def test_places():
    assert Place((), [Rollout((), True, 1), Rollout((), False, 1)]).mc == 0.5


# With a model: the game of 24


def test_a_player_whose_second_step_is_wrong():
    """It knows the solution; every second time it takes another second step, and then cannot come to 24."""
    question = "4 4 6 8"
    right = ("4 + 8 = 12 (left: 4 6 12)", "6 - 4 = 2 (left: 2 12)", "2 * 12 = 24 (left: 24)")
    wrong = (right[0], "6 + 4 = 10 (left: 10 12)", "10 + 12 = 22 (left: 22)")

    def play(prompt: str, times: int) -> str:
        _, path = asked(prompt)
        way = wrong if wrong[1] in path or (times % 2 and len(path) < 2) else right
        return "\n".join([*way[len(path) :], "1 * 24 = 24 (left: 24)"])  # what follows the end is no step of it

    model = Scripted(play)
    made, outcome = measure(model, game24.TASK, Example(question, ""), Prompting(), replace(SETTINGS, rollouts=4))
    rows = records(Example(question, ""), made)
    assert [row["first_wrong"] for row in rows] == [None, 2]
    assert rows[1] == {
        "prompt": question, "completions": list(wrong), "labels": [True, False, False], "values": [0.5, 0.0, 0.0],
        "first_wrong": 2, "answer": "(6 + 4) + (4 + 8)", "question_value": 0.5,
    }  # fmt: skip
    assert rows[0]["labels"] == [True] * 3 and rows[0]["values"] == [None, None, 1.0]
    assert outcome.calls == model.calls == made.rollouts == 12  # the question, after step 1, after step 2
    assert outcome.generated_tokens == model.generated and outcome.tree is not None
    tree = outcome.tree
    assert tree.budget == {"generated": model.generated, "read": model.read, "calls": 12}
    states = [node for node in tree.nodes if node.kind == "thought"]
    assert [(node.text, node.facts["value"], node.facts["visits"]) for node in states] == [
        (f"{wrong[0]}\n", 0.5, 0), (f"{wrong[1]}\n", 0.0, 0),
    ]  # fmt: skip
    assert tree.nodes[0].facts["visits"] == 1
    assert {settings["max_tokens"] for _, settings in model.asked} == {256}


def test_limits_of_a_question():
    _, outcome = measure(
        Scripted(fitful), game24.TASK, Example("4 4 6 8", ""), Prompting(), replace(SETTINGS, most_calls=20)
    )
    assert 8 < outcome.calls <= 20 and outcome.facts["spent"]
