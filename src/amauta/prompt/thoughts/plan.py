"""What a graph of thoughts must know of a task: its plan of operations, and how parts are asked for, merged and scored.

A task that can be split is a ``PartedTask``; of any other several answers are generated, the best of them merged into
one, and that improved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from amauta.prompt.task import Task
from amauta.prompt.template import Prompt
from amauta.prompt.thoughts.settings import Thoughts
from amauta.prompt.thoughts.steps import asked

Kind = Literal["split", "generate", "aggregate", "improve", "score", "keep-best", "validate"]


@dataclass(frozen=True)
class Operation:
    """One operation of a plan, on the thoughts that the operations ``after`` gave (None: the one before it).

    ``split`` makes ``count`` parts of the question; ``generate`` ``count`` answers of each part; ``aggregate`` merges
    all answers of every ``together`` neighbouring parts (0: of all parts) into one, ``count`` times; ``improve`` makes
    ``count`` better ones of each, and keeps it; ``score`` judges; ``keep-best`` keeps ``count`` of each part;
    ``validate`` drops what the task does not allow.
    """

    kind: Kind
    count: int = 1
    together: int = 0
    after: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Parted:
    """``split(question, count)`` gives the parts, ``joined`` the question that several parts make together. ``solve``,
    ``merge`` and ``improve`` ask for an answer of a part: anew, from answers of smaller parts, from one that may be
    wrong; ``read`` finds it in what the model says. ``score`` is higher for a better answer; None asks the model.
    """

    plan: Callable[[Thoughts], tuple[Operation, ...]]
    split: Callable[[str, int], list[str]]
    joined: Callable[[Sequence[str]], str]
    solve: Callable[[str], Prompt]
    merge: Callable[[str, Sequence[str]], Prompt]
    improve: Callable[[str, str], Prompt]
    read: Callable[[str], str | None]
    score: Callable[[str, str], float] | None = None
    valid: Callable[[str, str], bool] = lambda question, text: True


@dataclass(frozen=True)
class PartedTask(Task):
    """A task that brings its own graph of thoughts."""

    parted: Parted | None = field(default=None, kw_only=True)


def parted_of(task: Task) -> Parted:
    """The task's own, or whole answers that are merged."""
    own = getattr(task, "parted", None)
    return own if own is not None else several(task)


def divide_and_merge(settings: Thoughts) -> tuple[Operation, ...]:
    """Split, answer the parts, merge them pairwise until one is left, and improve that; the best are kept each time."""

    def best(count: int) -> tuple[Operation, Operation]:
        return Operation("score"), Operation("keep-best", count)

    tries = settings.branching
    found = [Operation("split", settings.parts), Operation("generate", tries), *best(settings.keep)]
    left = settings.parts
    while left > 1:
        found += [Operation("aggregate", tries, together=2), *best(settings.keep)]
        left = (left + 1) // 2
    for _ in range(settings.improvements):
        found += [Operation("improve", tries), *best(settings.keep)]
    return (*found, Operation("keep-best", 1))


def merge_best(settings: Thoughts) -> tuple[Operation, ...]:
    """Answer whole, merge the best answers (two at least), and improve; the best of all is kept."""
    tries = settings.branching
    found = [
        Operation("generate", tries), Operation("score"), Operation("keep-best", max(2, settings.keep)),
        Operation("aggregate", tries), Operation("score"), Operation("keep-best", settings.keep, after=(2, 4)),
    ]  # fmt: skip
    for _ in range(settings.improvements):
        found += [Operation("improve", tries), Operation("score"), Operation("keep-best", settings.keep)]
    return (*found, Operation("keep-best", 1))


def several(task: Task) -> Parted:
    """The graph of any task: whole answers, each reasoned out; the model itself is the judge."""
    template = task.template

    def head(text: str) -> str:
        return f"{task.instruction}\n{text}".strip()

    def attempts(texts: Sequence[str]) -> str:
        return "\n\n".join(f"Attempt {number}:\n{text}" for number, text in enumerate(texts, start=1))

    solving = head('Reason step by step. The last line says "The answer is" and the answer.')
    merging = head('Here are attempts. Write one that joins what is right in them and ends with "The answer is".')
    improving = head('Here is an attempt that may be wrong. Write a better one that ends with "The answer is".')
    return Parted(
        merge_best,
        split=lambda question, count: [question],
        joined=lambda questions: questions[0],
        solve=lambda question: asked(template, solving, question),
        merge=lambda question, texts: asked(template, merging, f"{question}\n\n{attempts(texts)}"),
        improve=lambda question, text: asked(template, improving, f"{question}\n\n{attempts([text])}"),
        read=lambda text: text.strip() or None,
    )
