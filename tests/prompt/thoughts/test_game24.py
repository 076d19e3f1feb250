"""The game of 24: its solver against all bracketings, its checker against what is and is no solution."""

import operator
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ConfigError
from amauta.prompt.task import Example
from amauta.prompt.tasks import game24
from amauta.prompt.tasks.game24 import TASK, expression, extract, grade, moves, read_steps, solution, worth
from tests.prompt.thoughts.players import legal

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def solvable(numbers: tuple[int, ...]) -> bool:
    """By the five ways to set brackets over every order of the numbers."""

    def run(name: str, a: Fraction | None, b: Fraction | None) -> Fraction | None:
        if a is None or b is None or (name == "/" and b == 0):
            return None
        return OPERATORS[name](a, b)

    for order in set(permutations(map(Fraction, numbers))):
        a, b, c, d = order
        for x, y, z in product("+-*/", repeat=3):
            ways = (
                run(z, run(y, run(x, a, b), c), d), run(z, run(x, a, run(y, b, c)), d),
                run(y, run(x, a, b), run(z, c, d)), run(x, a, run(z, run(y, b, c), d)),
                run(x, a, run(y, b, run(z, c, d))),
            )  # fmt: skip
            if 24 in ways:
                return True
    return False


def test_the_solver_finds_what_bracketing_finds():
    every = list(combinations_with_replacement(range(1, 14), 4))
    assert len(every) == 1820
    for numbers in Random(3).sample(every, 25):
        assert (solution(numbers) is not None) == solvable(numbers), numbers


def test_hard_ones_need_fractions():
    assert expression("3 3 8 8", solution((3, 3, 8, 8)) or ()) is not None
    assert grade(Example("3 3 8 8", ""), "8 / (3 - 8 / 3)") == 1
    assert solution((1, 1, 1, 1)) is None
    assert solution((5, 5, 5, 1)) is not None  # (5 - 1 / 5) * 5


def test_examples_are_solved_by_their_own_answers():
    found = game24.examples(8, seed=1)
    assert len({each.question for each in found}) == 8
    assert all(grade(each, each.answer) == 1 for each in found)
    assert found == game24.examples(9, seed=1)[:8]  # more of them begin with the same
    assert found != game24.examples(8, seed=2)
    assert not {each.question for each in game24.DEMONSTRATIONS} & {each.question for each in found}
    assert all(sorted(map(int, each.question.split())) == list(map(int, each.question.split())) for each in found)


def test_no_demonstration_is_asked(monkeypatch: pytest.MonkeyPatch):
    first = game24.examples(2, seed=1)
    monkeypatch.setattr(game24, "DEMONSTRATIONS", tuple(first))
    assert not {each.question for each in first} & {each.question for each in game24.examples(3, seed=1)}


def test_too_many_examples(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(game24, "LARGEST", 2)  # 1 1 1 1 … 2 2 2 2: none can be solved
    with pytest.raises(ConfigError) as error:
        game24.examples(1, seed=0)
    assert error.value.key == "thoughts.too-many-examples" and error.value.fields["known"] == 0


def test_demonstrations_and_judgements_are_true():
    for each in game24.DEMONSTRATIONS:
        steps = each.facts["reasoning"].splitlines()
        assert expression(each.question, tuple(steps)) == each.answer and grade(each, each.answer) == 1
        numbers = each.question.split()
        for step in steps:  # each is a legal move from what was left
            assert step in [game24.spelt(move) for move in moves([Fraction(one) for one in numbers])]
            numbers = game24.left(each.question, (step,))
    for numbers, _, word in game24.JUDGED:
        if word != "likely":
            assert (solution([int(one) for one in numbers.split()]) is not None) == (word == "sure"), numbers


def test_moves_by_hand():
    found = {game24.spelt(move) for move in moves([Fraction(3), Fraction(6)])}
    assert found == {
        "3 + 6 = 9 (left: 9)", "3 - 6 = -3 (left: -3)", "3 * 6 = 18 (left: 18)", "3 / 6 = 1/2 (left: 1/2)",
        "6 - 3 = 3 (left: 3)", "6 / 3 = 2 (left: 2)",
    }  # fmt: skip
    assert [game24.spelt(move) for move in moves([Fraction(0), Fraction(0)])] == [
        "0 + 0 = 0 (left: 0)", "0 - 0 = 0 (left: 0)", "0 * 0 = 0 (left: 0)",
    ]  # fmt: skip
    assert len(moves([Fraction(5)] * 2)) == 4  # equal numbers: no step twice
    firsts = [move[3] for move in moves([Fraction(3), Fraction(6)])][:4]
    assert all(one > 0 and one.denominator == 1 for one in firsts)  # as people would begin


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1 + 2) * 3 - 4", (Fraction(5), [1, 2, 3, 4])),
        ("8/(3-8/3)", (Fraction(24), [8, 3, 8, 3])),
        ("2 ** 3", None),
        ("7 // 2", None),
        ("-4 + 28", None),
        ("1 / 0", None),
        ("1 / (2 - 2)", None),
        ("2 3", None),
        ("6(4)", None),
        ("__import__('os')", None),
        ("24", (Fraction(24), [24])),
        ("(" * 3000, None),
        ("1" + "+1" * 150, None),
        ("1.5 * 16", None),
        ("1_2 * 2", None),
        ("", None),
    ],
)
def test_expressions(text: str, value: object):
    assert worth(text) == value


@given(st.text(alphabet="0123456789+-*/() eval_'\n\\", max_size=40))
def test_no_text_is_run_and_none_fails(text: str):
    found = worth(text)
    assert found is None or isinstance(found[0], Fraction)


@given(st.lists(st.integers(1, 13), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_an_expression_is_worth_what_its_steps_say(numbers: list[int], random: Random):
    """Any legal walk gives an expression of exactly those numbers with exactly that worth."""
    left, path = [Fraction(number) for number in numbers], []
    while len(left) > 1:
        move = random.choice(moves(left))
        path.append(game24.spelt(move))
        left = list(move[-1])
    found = worth(expression(" ".join(map(str, numbers)), tuple(path)) or "")
    assert found is not None and found[0] == left[0] and sorted(found[1]) == sorted(numbers)


def test_steps_are_read_and_wrong_ones_make_wrong_expressions():
    text = "I try:\n4 × 6 = 24 (left: 24  1 1)\nnonsense\n 24 / 1 = 24 (left: 24 1)\n4 + 6 = (left: 1)\n"
    text += "1 − 1 = 0 (left: x)"
    assert read_steps(text) == ["4 * 6 = 24 (left: 24 1 1)", "24 / 1 = 24 (left: 24 1)"]
    false = ("4 + 4 = 16 (left: 1 1 16)", "16 + 1 = 17 (left: 1 17)", "17 + 1 = 24 (left: 24)")
    assert expression("1 1 4 4", false) == "((4 + 4) + 1) + 1"  # as the steps have it; it is worth 10
    assert grade(Example("1 1 4 4", ""), expression("1 1 4 4", false)) == 0
    assert expression("1 1 4 4", ("4 + 9 = 13 (left: 1 1 13)",)) is None  # 9 is not there
    assert expression("1 1 4 4", ("4 + 4 = 8/0 (left: 1 1 8)",)) is None
    assert expression("1 1 4 4", ("no step",)) is None and expression("1 1 4 4", ()) is None


@pytest.mark.parametrize(
    ("answer", "right"),
    [("4 * 6 * 1 * 1", 1), ("4 * 6", 0), ("4 * 6 * 1", 0), ("4 * 6 + 1 - 1 + 0", 0), ("6 * 4 + 1 + 1", 0), (None, 0)],
)
def test_grades(answer: str | None, right: float):
    assert grade(Example("1 1 4 6", ""), answer) == right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (4 - 1) * 8 = 24.", "(4 - 1) * 8"),
        ("4 + 4 = 8\nThen: 6 × 4 = 24", "6 * 4"),
        ("nothing", None),
        ("24", None),
    ],
)
def test_answers_are_found(text: str, answer: str | None):
    assert extract(text) == answer


def test_prompts_end_where_the_answer_starts():
    example = game24.DEMONSTRATIONS[0]
    path = (example.facts["reasoning"].splitlines()[0],)
    assert TASK.steps is not None
    solve = TASK.steps.solve(example, path).text()
    assert solve.endswith(f"Numbers: 4 4 6 8\nSteps:\n{path[0]}\n")
    assert TASK.steps.propose(example, path).text().endswith("Numbers: 4 6 12\nSteps:\n")
    assert TASK.steps.value(example, path).text().endswith("Numbers: 4 6 12\n")
    assert "1:\n4 + 8 = 12 (left: 4 6 12)\n\n2:\n" in TASK.steps.vote(example, [path, path]).text()
    assert legal(TASK.steps.propose(example, path).text()) == legal(solve)
