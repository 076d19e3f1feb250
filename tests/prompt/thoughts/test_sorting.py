"""Sorting digits: errors counted by hand and by a naive count, parts and their joining."""

from hypothesis import given
from hypothesis import strategies as st

from amauta.prompt.tasks import sorting
from amauta.prompt.tasks.sorting import TASK, errors, extract, grade, joined, numbers_in, score, split

DIGITS = st.lists(st.integers(0, 9), min_size=1, max_size=40)


def test_errors_by_hand():
    assert errors([3, 1, 2], [1, 2, 3]) == 0
    assert errors([3, 1, 2], [3, 1, 2]) == 1  # 3 before 1
    assert errors([3, 1, 2], [3, 2, 1]) == 2
    assert errors([3, 1, 2], [1, 2]) == 1  # 3 is missing
    assert errors([3, 1, 2], [1, 2, 2, 3]) == 1  # 2 too often
    assert errors([3, 1, 2], [1, 2, 4]) == 2  # 3 is missing, 4 too many
    assert errors([3, 1, 2], []) == 3
    assert errors([1, 1], [1, 1]) == 0  # equal neighbours are in order


@given(DIGITS, DIGITS)
def test_errors_by_naive_counting(question: list[int], answer: list[int]):
    wrong_order = len([1 for i in range(len(answer) - 1) if answer[i] > answer[i + 1]])
    occurrences = sum(abs(question.count(digit) - answer.count(digit)) for digit in range(10))
    assert errors(question, answer) == wrong_order + occurrences
    assert (errors(question, answer) == 0) == (sorted(question) == answer)


@given(DIGITS, st.integers(1, 9))
def test_parts_join_to_the_whole(numbers: list[int], count: int):
    question = sorting.spelt(numbers)
    parts = split(question, count)
    assert joined(parts) == question
    sizes = [len(numbers_in(part) or ()) for part in parts]
    assert len(parts) == min(count, len(numbers)) and max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def test_answers_are_found_and_graded():
    assert extract("Lists [3] and so [1, 2,  3]") == "[1, 2, 3]"
    assert extract("1, 2 and 3") == "[1, 2, 3]"
    assert extract("none") is None
    example = sorting.examples(1, seed=0)[0]
    assert grade(example, example.answer) == 1 and grade(example, example.question) == 0 and grade(example, None) == 0
    assert score("[2, 1]", "[2, 1]") == -1 and score("[2, 1]", "[1, 2]") == 0
    assert len(numbers_in(example.question) or ()) == sorting.LENGTH
    assert sorting.examples(3, seed=0)[:1] == [example] and sorting.examples(1, seed=1) != [example]


def test_demonstrations_are_right():
    assert all(grade(each, each.answer) == 1 for each in TASK.demonstrations)
    for shot in sorting._MERGES:
        one, other = (numbers_in(line) or [] for line in shot.question.splitlines())
        assert one == sorted(one) and other == sorted(other)
        assert errors(one + other, numbers_in(shot.answer) or ()) == 0
    for shot in sorting._MENDED:
        question, _, wrong = shot.question.partition("\nSorted with errors: ")
        assert score(question, shot.answer) == 0 and score(question, wrong) < 0
