"""A task from the user's own records: questions with answers, or texts with labels.

| a record has | as | the question | the answer |
|---|---|---|---|
| ``question answer`` | GSM8K, StrategyQA | the question | what follows ``####``, else all; ``rationale``, or what stands before ``####``, is its reasoning |
| ``question passage answer`` | BoolQ | the passage, then the question | true and false are yes and no |
| ``Body Question Answer`` | SVAMP | both | a whole number without its ``.0`` |
| ``text label`` | any classification | the text | the label |
| ``instruction output`` | | the instruction, with its ``input`` | ``answer`` where there is one, else the output |

Answers that are all numbers are compared as numbers; a few that recur are labels; others are compared word for word.
"""  # noqa: E501

import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.extract import decimal, label_in, words_in
from amauta.data.read import Row, excerpt, read
from amauta.grades import words_of
from amauta.prompt.task import Example, Task
from amauta.prompt.template import LINES, QUESTION

POOL = 64  # records that are demonstrations and never asked, a quarter of the file at most
MOST_LABELS = 20
_WORKED = re.compile(r"<<.*?>>")  # GSM8K's marks for a calculator


def task_from(file: Path, demonstrations: Path | None = None) -> Task:
    """The task of a file. ``demonstrations``: another file of them; without one, the first records are only shown.

    DataError, with file and line, for a record of no known shape.
    """
    asked = [example for _, example in read(file).each(example_of)]
    if demonstrations is not None:
        shown = [example for _, example in read(demonstrations).each(example_of)]
    else:
        pool = min(POOL, len(asked) // 4)
        shown, asked = asked[:pool], asked[pool:]
    seen = {one.question for one in shown}
    asked = list({one.question: one for one in asked if one.question not in seen}.values())
    if not asked:
        raise DataError("prompt.nothing-to-ask", file=file, shown=len(shown))
    return _judged(file.stem, asked, tuple(shown))


def _judged(name: str, asked: Sequence[Example], shown: tuple[Example, ...]) -> Task:
    """The task, its answers judged by what they all are."""
    answers = [one.answer for one in (*asked, *shown)]
    labels = tuple(dict.fromkeys(sorted(answers)))
    task = partial(Task, name, examples=_sampled(asked), demonstrations=shown)
    if any("label" in one.facts for one in asked):
        return task(template=LINES, labels=labels, extract=label_in(labels), grade=_same_label)
    if all(decimal(answer) is not None for answer in answers):
        return task()
    if len(labels) <= MOST_LABELS and len(answers) >= 3 * len(labels):
        return task(template=QUESTION, labels=labels, extract=label_in(labels), grade=_same_label)
    return task(extract=words_in, grade=_same_words, max_tokens=64)


def example_of(row: Row) -> Example:
    """One record; DataError where it has none of the known shapes."""
    value = row.value
    if "text" in value and "label" in value:
        return Example(_text(row, "text"), _text(row, "label"), {"label": True})
    if "Body" in value and "Question" in value:
        body = _text(row, "Body").strip()
        stop = "" if body.endswith((".", ",", "?")) else "."
        return Example(f"{body}{stop} {_text(row, 'Question').strip()}", _text(row, "Answer"))
    if "question" in value and "answer" in value:
        question = _text(row, "question")
        if "passage" in value:
            question = f"{_text(row, 'passage')}\n{question}"
        steps, mark, answer = _text(row, "answer").rpartition("####")
        reasoning = value.get("rationale", _WORKED.sub("", steps).strip() if mark else None)
        facts = {} if not reasoning else {"reasoning": " ".join(str(reasoning).split())}
        return Example(question, answer.strip(), facts)
    if "instruction" in value and "output" in value:
        question = "\n".join(part for part in (_text(row, "instruction"), value.get("input")) if part)
        return Example(question, _text(row, "answer" if "answer" in value else "output"))
    raise DataError("prompt.no-shape", file=row.file, line=row.line, seen=", ".join(value) or "-")


def _text(row: Row, name: str) -> str:
    """A column as text: 51.0 as 51, true as yes. DataError for what is neither a text nor a number."""
    value: Any = row.value.get(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise DataError("prompt.bad-column", file=row.file, line=row.line, name=name, value=excerpt(value))
    return str(value)


def _sampled(asked: Sequence[Example]) -> Callable[[int, int], list[Example]]:
    """``count`` of them, drawn by the seed, the first of a longer draw too; all where there are fewer."""

    def examples(count: int, seed: int) -> list[Example]:
        drawn = list(asked)
        random.Random(derive(seed, "examples")).shuffle(drawn)
        return drawn[:count]

    return examples


def _same_label(example: Example, answer: str | None) -> float:
    return float(answer == example.answer)


def _same_words(example: Example, answer: str | None) -> float:
    return float(answer is not None and words_of(answer) == words_of(example.answer))
