"""What a search over steps must know of a task: how the next step is asked for, read, judged, and when it is the last.

A path is the example's steps so far, a line each. A task that knows its own steps is a ``SteppedTask``; any other is
asked to reason in lines until one says "the answer is".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from amauta.prompt.task import Example, Task
from amauta.prompt.template import Prompt, Shot, Template

Path: TypeAlias = tuple[str, ...]
# The worth of each word of a judgement (Yao et al. 2023, game of 24; the numbers are those of their program)
VALUES = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
HIGHEST = max(VALUES.values())
_WORD = re.compile(rf"\b({'|'.join(VALUES)})\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_SAID = re.compile(r"answer is", re.IGNORECASE)


@dataclass(frozen=True)
class Steps:
    """``solve`` asks for the lines after a path, ``propose`` for several next ones, a line each; ``value`` for sure,
    likely or impossible; ``vote`` for the number (from 1) of the best of some paths. ``read`` gives the steps that a
    text holds, spelt as a path spells them. ``check`` tells a right answer without knowing it, where that can be.
    """

    depth: int  # most steps of a solution
    solve: Callable[[Example, Path], Prompt]
    propose: Callable[[Example, Path], Prompt]
    value: Callable[[Example, Path], Prompt]
    vote: Callable[[Example, Sequence[Path]], Prompt]
    read: Callable[[str], list[str]]
    finished: Callable[[Example, Path], bool]
    answer: Callable[[Example, Path], str | None]
    check: Callable[[Example, str], bool] | None = None


@dataclass(frozen=True)
class SteppedTask(Task):
    """A task that brings its own steps."""

    steps: Steps | None = field(default=None, kw_only=True)


def steps_of(task: Task) -> Steps:
    """The task's own steps, or lines of reasoning."""
    own = getattr(task, "steps", None)
    return own if own is not None else reasoning(task)


def value_of(judgement: str) -> float | None:
    """The worth of the last of the three words in a text; None where there is none."""
    found = _WORD.findall(judgement)
    return VALUES[found[-1].lower()] if found else None


def vote_of(judgement: str, count: int) -> int | None:
    """The place, from 0, that a text votes for: its last number, when that is one of 1 to ``count``."""
    found = _NUMBER.findall(judgement)
    return int(found[-1]) - 1 if found and 1 <= int(found[-1]) <= count else None


def lines_of(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def begun(path: Path) -> str:
    """A path as the beginning of an answer."""
    return "".join(f"{step}\n" for step in path)


def asked(template: Template, head: str, question: str, path: Path = (), shown: Sequence[Shot] = ()) -> Prompt:
    """A prompt for what comes after ``path``."""
    return Prompt(template, head, tuple(shown), Shot(question, begun(path)))


def listed(paths: Sequence[Path]) -> str:
    """Several paths, numbered from 1, to choose from."""
    return "\n\n".join(f"{number}:\n{begun(path)}".rstrip() for number, path in enumerate(paths, start=1))


def reasoning(task: Task, depth: int = 8) -> Steps:
    """Steps of any task: lines of reasoning, of which the last says what the answer is."""
    template = task.template

    def head(text: str) -> str:
        return f"{task.instruction}\n{text}".strip()

    def so_far(example: Example, path: Path) -> str:
        return f"{example.question}\n\nSteps so far:\n{begun(path) or '(none)'}".rstrip()

    def answer(example: Example, path: Path) -> str | None:
        return task.extract("\n".join(path)) if path else None

    solving = head('Reason step by step, one short step a line. The last line says "The answer is" and the answer.')
    proposing = head("Propose several different next steps, one a line.")
    valuing = head("Can these steps lead to the right answer? Say sure, likely or impossible.")
    voting = head("Which of these ways to the answer is the best? Say its number.")
    return Steps(
        depth,
        solve=lambda example, path: asked(template, solving, example.question, path),
        propose=lambda example, path: asked(template, proposing, so_far(example, path)),
        value=lambda example, path: asked(template, valuing, so_far(example, path)),
        vote=lambda example, paths: asked(template, voting, f"{example.question}\n\n{listed(paths)}"),
        read=lines_of,
        finished=lambda example, path: bool(path) and _SAID.search(path[-1]) is not None,
        answer=answer,
    )
