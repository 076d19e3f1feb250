"""What a model is asked: the three requests of Self-Instruct in the words of ``wording.toml``, in two languages.

They have the form of the published ones (appendix A, tables 5 to 8): eight tasks to go on from, 12 tasks that are
classification and 19 that are not, tasks with examples input first, and tasks with a label before its input. The
demonstrations are our own.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

WANTED = 8  # tasks that a request for instructions asks for


@dataclass(frozen=True)
class Shown:
    """A task with instances, as a demonstration."""

    instruction: str
    instances: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Wording:
    """The words of one language; ``wording.toml`` says what each is for."""

    task: str
    example: str
    input: str
    output: str
    label: str
    yes: str
    no: str
    series: str
    series_chat: str
    judge: str
    question: str
    input_first: str
    output_first: str
    barred: tuple[str, ...]
    classification: tuple[str, ...]
    other: tuple[str, ...]
    shown: tuple[Shown, ...]
    labelled: tuple[Shown, ...]


@dataclass(frozen=True)
class Request:
    """What is asked, and how the answer begins: a model goes on after ``begun``. ``stop``: texts that end it."""

    text: str
    begun: str
    stop: tuple[str, ...]


@cache
def wording(language: str) -> Wording:
    """The words of a language of ``wording.toml``."""
    text = resources.files("amauta.train.self_instruct").joinpath("wording.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)[language]
    tasks = {name: tuple(Shown(one["instruction"], tuple((a, b) for a, b in one["instances"])) for one in found[name])
             for name in ("shown", "labelled")}  # fmt: skip
    lists = {name: tuple(found[name]) for name in ("barred", "classification", "other")}
    return Wording(**{**found, **tasks, **lists})


def for_instructions(shown: Sequence[str], say: Wording, *, chat: bool = False) -> Request:
    """A request to go on from ``shown`` instructions. In a chat it tells to which number; plain text just goes on."""
    last = len(shown) + WANTED
    opening = say.series_chat.format(first=len(shown) + 1, last=last - 1) if chat else say.series
    lines = [opening, *(f"{say.task} {n}: {' '.join(one.split())}" for n, one in enumerate(shown, start=1))]
    return Request("\n".join(lines), f"{say.task} {len(shown) + 1}:", (f"{say.task} {last}",))


def for_judgement(instruction: str, say: Wording) -> Request:
    """A request to say whether a task is classification with a limited number of labels."""
    # both kinds spread evenly, in one order for all
    spread = [(place / len(group), one, answer)
              for group, answer in ((say.classification, say.yes), (say.other, say.no))
              for place, one in enumerate(group)]  # fmt: skip
    shown = [(one, answer) for _, one, answer in sorted(spread)]
    blocks = [f"{say.task}: {one}\n{say.question} {answer}" for one, answer in shown]
    asked = f"{say.task}: {instruction}"
    return Request("\n\n".join([say.judge, *blocks, asked]), say.question, ("\n", f"{say.task}:"))


def for_instances(instruction: str, say: Wording, *, classification: bool, most: int) -> Request:
    """A request for instances: for classification a label first and then its input, else an input first."""
    if classification:
        blocks = [_labels_first(one, say) for one in say.labelled]
        opening, begun = say.output_first, f"{say.label}:"
    else:
        blocks = [_inputs_first(one, say) for one in say.shown]
        opening, begun = say.input_first, ""
    stop = (f"\n{say.task}:", f"{say.example} {most + 1}")
    return Request("\n\n".join([opening, *blocks, f"{say.task}: {instruction}"]), begun, stop)


def _inputs_first(task: Shown, say: Wording) -> str:
    lines = [f"{say.task}: {task.instruction}"]
    for number, (given, output) in enumerate(task.instances, start=1):
        if len(task.instances) > 1:
            lines.append(f"{say.example} {number}")
        lines += [f"{say.input}: {given}"] if given else []
        lines.append(f"{say.output}: {output}")
    return "\n".join(lines)


def _labels_first(task: Shown, say: Wording) -> str:
    lines = [f"{say.task}: {task.instruction}"]
    for given, output in task.instances:
        lines.append(f"{say.label}: {output}")
        lines += [f"{say.input}: {given}"] if given else []
    return "\n".join(lines)
