"""A task: examples with right answers, how they are asked, and when an answer is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amauta.data.extract import number_in, same_number
from amauta.prompt.template import QUESTION, Template


@dataclass(frozen=True)
class Example:
    """A question and its right answer. ``facts``: what a method or a grade needs besides (``reasoning``: the steps that
    lead to the answer, shown by demonstrations of a chain of thought; ``scratch``: the lines of a scratchpad)."""

    question: str
    answer: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def _same(example: Example, answer: str | None) -> float:
    return float(same_number(answer, example.answer))


@dataclass(frozen=True)
class Task:
    """``examples(count, seed)`` are those to be asked, the first of a longer list too; ``demonstrations`` those that
    may be shown; no example is both. ``labels`` are all possible answers, where there are few. ``extract(text)`` is the
    answer that a text gives, None where it gives none; ``grade(example, answer)`` is 1 for a right one, 0 for a wrong
    one, and may lie between.
    """

    name: str
    examples: Callable[[int, int], list[Example]]
    demonstrations: tuple[Example, ...] = ()
    instruction: str = ""
    template: Template = QUESTION
    labels: tuple[str, ...] | None = None
    extract: Callable[[str], str | None] = number_in
    grade: Callable[[Example, str | None], float] = _same
    max_tokens: int = 32  # of an answer without steps
    training: Callable[[int, int], list[Example]] | None = None  # as ``examples``: what a model may learn from
