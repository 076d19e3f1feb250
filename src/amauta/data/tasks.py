"""The records of a task: texts with a class, a number, an answer in a passage, choices, or a text to be written.

| kind | columns | label |
|---|---|---|
| classification | ``text`` (``text_pair``) ``label`` | a class by name, or by number from 0 |
| regression | ``text`` (``text_pair``) ``label`` | a number |
| choice | ``text`` ``choices`` ``label`` | the right choice, by number from 0 or as it stands |
| span | ``question`` ``context`` ``answers`` (SQuAD's, or a text or texts; none: unanswerable) | where one stands |
| text | ``prompt`` ``completion`` | what is to be written |

The columns of the first three may have other names (``Columns``).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from amauta.base.errors import DataError
from amauta.data.read import Row, excerpt, read
from amauta.data.records import question_of

Kind = Literal["classification", "regression", "choice", "span", "text"]
Label = str | int | float | bool


@dataclass(frozen=True)
class Columns:
    """How a task's columns are called."""

    text: Annotated[str, Doc("column of the text")] = "text"
    pair: Annotated[str, Doc("column of the second text of a pair, where records have one")] = "text_pair"
    label: Annotated[str, Doc("column of the class, the number or the right choice")] = "label"
    choices: Annotated[str, Doc("column of the choices")] = "choices"


@dataclass
class Example:
    """One record. ``pair``: the second text, or a span's passage; ``label``: a class or choice by number, a number."""

    text: str
    place: str  # file:line
    pair: str | None = None
    label: Any = None
    choices: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    start: int | None = None  # the character of the passage where the first answer begins
    completion: str = ""
    columns: dict[str, Any] = field(default_factory=dict)  # the whole record


@dataclass
class Task:
    """Examples of one kind; ``labels``: the names of the classes, () where they are numbers; ``sizes``: examples of
    each file."""

    kind: Kind
    examples: list[Example]
    labels: tuple[str, ...]
    classes: int
    skipped: int
    files: list[Path]
    sizes: dict[Path, int]


def read_task(
    patterns: Sequence[str],
    columns: Columns,
    *,
    kind: Kind | None = None,
    labels: Sequence[str] = (),
    like: Task | None = None,
    may_skip: int = 0,
    render: Callable[[Row], list[dict[str, Any]]] | None = None,
) -> Task:
    """The task in some files. ``like``: the training task whose kind and classes these held-out records must have.

    ``kind`` is found from the columns of the first record, and from its label, where it is not said. ``render`` makes
    other records of each (prompt templates). Raises DataError, with file and line: a column that is not there (with
    those that are), a label of another type or not in the set; and a class without examples in training.
    """
    reader = read(patterns, may_skip=may_skip)
    labels = like.labels if like else tuple(labels)
    found: list[Example] = []
    chosen = like.kind if like else kind

    def reading(row: Row) -> list[Example]:
        nonlocal chosen
        values = [row.value] if render is None else render(row)
        chosen = chosen or _kind_of(values[0] if values else row.value, columns)
        return [READERS[chosen](Row(value, row.file, row.line), columns) for value in values]

    sizes: Counter[Path] = Counter()
    for row, examples in reader.each(reading):
        found += examples
        sizes[row.file] += len(examples)
    assert chosen is not None
    where = ", ".join(map(str, reader.patterns))
    if not found:
        raise DataError("finetune.no-examples", where=where)
    classes = like.classes if like else 0
    if chosen == "classification":
        if not like:
            labels, classes = _classes(found, labels, where)
        for example in found:
            example.label = _class_of(example, labels, classes)
        if not like:
            _check_each_class(found, labels, classes, where)
    return Task(chosen, found, labels, classes, reader.skipped, reader.files, dict(sizes))


def _kind_of(value: dict[str, Any], columns: Columns) -> Kind:
    if "prompt" in value and "completion" in value:
        return "text"
    if "question" in value and "context" in value and columns.label not in value:
        return "span"
    if value.get(columns.choices) is not None:
        return "choice"
    return "regression" if isinstance(value.get(columns.label), float) else "classification"


def _column(row: Row, *wanted: str) -> list[Any]:
    """The values of columns; DataError names those that are missing, beside those that are there."""
    missing = [name for name in wanted if row.value.get(name) is None]
    if missing:
        seen = ", ".join(row.value) or "–"
        raise DataError(
            "finetune.no-column", file=row.file, line=row.line, missing=", ".join(missing), seen=seen,
            wanted=", ".join(wanted),
        )  # fmt: skip
    return [row.value[name] for name in wanted]


def _text(row: Row, name: str) -> str:
    (value,) = _column(row, name)
    if not isinstance(value, str):
        raise _bad(row, name, value, "text")
    return value


def _bad(row: Row, name: str, value: Any, allowed: str) -> DataError:
    return DataError(
        "finetune.bad-column", file=row.file, line=row.line, name=name, value=excerpt(value), allowed=allowed
    )


def _labelled(row: Row, columns: Columns) -> Example:
    text, label = _column(row, columns.text, columns.label)
    if not isinstance(label, str | int):
        raise _bad(row, columns.label, label, "text | 0, 1, 2 …")
    return _with_texts(row, columns, label)


def _numbered(row: Row, columns: Columns) -> Example:
    text, label = _column(row, columns.text, columns.label)
    if isinstance(label, bool) or not isinstance(label, int | float) or label != label or abs(label) == float("inf"):
        raise _bad(row, columns.label, label, "0.5, 3.8 …")
    return _with_texts(row, columns, float(label))


def _with_texts(row: Row, columns: Columns, label: Label) -> Example:
    pair = _text(row, columns.pair) if row.value.get(columns.pair) is not None else None
    return Example(_text(row, columns.text), f"{row.file}:{row.line}", pair, label, columns=dict(row.value))


def _choosing(row: Row, columns: Columns) -> Example:
    choices, label = _column(row, columns.choices, columns.label)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
        raise _bad(row, columns.choices, choices, '["…", "…"]')
    if isinstance(label, str) and label in choices:
        label = choices.index(label)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        raise _bad(row, columns.label, label, f"0 … {len(choices) - 1} | " + " | ".join(choices))
    place = f"{row.file}:{row.line}"
    return Example(_text(row, columns.text), place, label=label, choices=choices, columns=dict(row.value))


def _asking(row: Row, columns: Columns) -> Example:
    _column(row, "question", "context")
    if "answers" not in row.value and "answer" not in row.value:
        _column(row, "answers")
    asked = question_of(row)
    example = Example(asked.question, f"{row.file}:{row.line}", asked.context, answers=asked.answers)
    if asked.answers:
        told = row.value.get("answers")
        starts = told.get("answer_start") if isinstance(told, dict) else row.value.get("start")
        start = starts[0] if isinstance(starts, list) and starts else starts
        if start is None or isinstance(start, list):
            start = asked.context.find(asked.answers[0])
        if not isinstance(start, int) or asked.context[start : start + len(asked.answers[0])] != asked.answers[0]:
            raise DataError("finetune.no-answer", file=row.file, line=row.line, answer=excerpt(asked.answers[0]))
        example.start = start
    return example


def _writing(row: Row, columns: Columns) -> Example:
    _column(row, "prompt", "completion")
    example = Example(_text(row, "prompt"), f"{row.file}:{row.line}", completion=_text(row, "completion"))
    example.choices, example.columns = list(row.value.get("choices") or []), dict(row.value)
    return example


READERS: dict[Kind, Callable[[Row, Columns], Example]] = {
    "classification": _labelled,
    "regression": _numbered,
    "choice": _choosing,
    "span": _asking,
    "text": _writing,
}


def _classes(examples: Sequence[Example], labels: Sequence[str], where: str) -> tuple[tuple[str, ...], int]:
    """The names of the classes and their number: those that were said, else those that the examples have."""
    if labels:
        if len(set(labels)) != len(labels):
            raise DataError("finetune.label-twice", labels=", ".join(labels))
        return tuple(labels), len(labels)
    seen = {example.label for example in examples}
    if all(isinstance(label, str) for label in seen):
        return tuple(sorted(map(str, seen))), len(seen)
    if any(isinstance(label, str) for label in seen):
        raise DataError("finetune.mixed-labels", where=where, labels=excerpt(sorted(map(str, seen))))
    if min(seen) < 0:
        raise DataError("finetune.negative-label", where=where, label=min(seen))
    return (), int(max(seen)) + 1


def _class_of(example: Example, labels: Sequence[str], classes: int) -> int:
    """The number of an example's class; DataError for one that is not in the set."""
    label = example.label
    if str(label) in labels:
        return list(labels).index(str(label))
    numbered = not isinstance(label, str) and not any(name.lstrip("-").isdigit() for name in labels)
    if numbered and 0 <= int(label) < classes:
        return int(label)
    allowed = ", ".join(labels) or f"0 … {classes - 1}"
    raise DataError("finetune.unknown-label", place=example.place, label=excerpt(label), allowed=allowed)


def _check_each_class(examples: Sequence[Example], labels: Sequence[str], classes: int, where: str) -> None:
    seen = Counter(example.label for example in examples)
    names = [labels[n] if labels else str(n) for n in range(classes)]
    empty = [names[n] for n in range(classes) if not seen[n]]
    if empty or classes < 2:
        held = ", ".join(f"{names[n]}: {seen[n]}" for n in sorted(seen))
        raise DataError("finetune.empty-class", where=where, empty=", ".join(empty) or "–", held=held)
