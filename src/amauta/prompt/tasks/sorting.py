"""Sorting digits (Besta et al. 2023, arXiv 2308.09687, section 5.1): easy to check, hard to do in one breath.

The errors of an answer are its neighbours that stand in the wrong order, plus, for each digit, how far its number of
occurrences is from that of the question.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from amauta.base.seeds import derive
from amauta.prompt.task import Example
from amauta.prompt.template import Shot, Template
from amauta.prompt.thoughts.plan import Parted, PartedTask, divide_and_merge
from amauta.prompt.thoughts.steps import asked

LENGTH = 32  # the shortest lists of the paper
_LIST = re.compile(r"\[([\d\s,-]*)\]")
_ITEM = re.compile(r"-?\d+")


def numbers_in(text: str) -> list[int] | None:
    """The last list in square brackets, else all numbers of a text without brackets; None where there is no number."""
    lists = _LIST.findall(text)
    found = [int(number) for number in _ITEM.findall(lists[-1] if lists else text)]
    return found or None


def errors(question: Sequence[int], answer: Sequence[int]) -> int:
    """Pairs of neighbours in the wrong order, plus wrong occurrences of each number (section 5.1)."""
    wanted, seen = Counter(question), Counter(answer)
    occurrences = sum(abs(wanted[number] - seen[number]) for number in wanted.keys() | seen.keys())
    return sum(one > next for one, next in pairwise(answer)) + occurrences


def spelt(numbers: Sequence[int]) -> str:
    """A list as questions and answers spell it."""
    return f"[{', '.join(map(str, numbers))}]"


def extract(text: str) -> str | None:
    """The sorted list of an answer."""
    found = numbers_in(text)
    return None if found is None else spelt(found)


def grade(example: Example, answer: str | None) -> float:
    """1 without any error, else 0."""
    return float(answer is not None and score(example.question, answer) == 0)


def score(question: str, answer: str) -> float:
    """Minus the errors of an answer."""
    return -float(errors(numbers_in(question) or (), numbers_in(answer) or ()))


def split(question: str, count: int) -> list[str]:
    """A list as ``count`` lists of like length, in order; fewer when it has not as many numbers."""
    numbers = numbers_in(question) or []
    count = max(1, min(count, len(numbers)))
    ends = [len(numbers) * part // count for part in range(count + 1)]
    return [spelt(numbers[start:end]) for start, end in pairwise(ends)]


def joined(questions: Sequence[str]) -> str:
    """Several lists as one."""
    return spelt([number for question in questions for number in numbers_in(question) or []])


def examples(count: int, seed: int) -> list[Example]:
    """Lists of 32 digits, with repetitions."""
    random = Random(derive(seed, "sorting"))
    return [_example([random.randrange(10) for _ in range(LENGTH)]) for _ in range(count)]


def _example(numbers: Sequence[int]) -> Example:
    return Example(spelt(numbers), spelt(sorted(numbers)))


SORTING = "Sort the list of numbers in ascending order. Output only the sorted list."
MERGING = "Merge the sorted lists into one sorted list that has all their numbers. Output only the merged list."
IMPROVING = (
    "The sorted list is meant to be the list, sorted, but it has errors: numbers that are missing, too many, or out of "
    "order. Output only the sorted list without errors."
)
TEMPLATE = Template("sorting", opening="List: ", separator="\nSorted: ")
MERGE_TEMPLATE = Template("sorting-merge", opening="Lists: ", separator="\nMerged: ")
DEMONSTRATIONS = tuple(
    _example(numbers)
    for numbers in (
        (5, 1, 0, 1, 2, 0, 4, 8),
        (3, 7, 0, 2, 8, 1, 2, 2, 2, 4, 7, 8, 5, 5, 3, 9),
        (4, 4, 9, 7, 9, 7, 0, 0, 4, 9, 1, 7, 9, 5, 8, 7, 5, 6, 3, 8, 6, 7, 5, 8, 5, 0, 6, 3, 7, 0, 5, 3),
    )
)
_SHOTS = tuple(Shot(each.question, each.answer) for each in DEMONSTRATIONS[:2])
_MERGES = (
    Shot("[1, 2, 2, 3, 7, 8]\n[0, 4, 5, 5, 8, 9]", "[0, 1, 2, 2, 3, 4, 5, 5, 7, 8, 8, 9]"),
    Shot("[0, 2, 7]\n[1, 2, 3, 9]", "[0, 1, 2, 2, 3, 7, 9]"),
)
_MENDED = (
    Shot("[3, 7, 0, 2, 8, 1, 2]\nSorted with errors: [0, 1, 2, 3, 7, 7, 8]", "[0, 1, 2, 2, 3, 7, 8]"),
    Shot("[6, 4, 5, 7, 5, 6]\nSorted with errors: [4, 5, 5, 6, 7]", "[4, 5, 5, 6, 6, 7]"),
)

TASK = PartedTask(
    "sorting",
    examples,
    DEMONSTRATIONS,
    SORTING,
    TEMPLATE,
    extract=extract,
    grade=grade,
    max_tokens=160,
    parted=Parted(
        divide_and_merge,
        split=split,
        joined=joined,
        solve=lambda question: asked(TEMPLATE, SORTING, question, shown=_SHOTS),
        merge=lambda question, texts: asked(MERGE_TEMPLATE, MERGING, "\n".join(texts), shown=_MERGES),
        improve=lambda question, text: asked(
            TEMPLATE, IMPROVING, f"{question}\nSorted with errors: {text}", shown=_MENDED
        ),
        read=extract,
        score=score,
        valid=lambda question, text: score(question, text) == 0,
    ),
)
