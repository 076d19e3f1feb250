"""Forms of an answer: how they are asked for, how they are allowed, and how they are read.

| form | an answer |
|---|---|
| text | anything |
| json | one object with the fields and no others |
| csv | one line, a value for each field |
| labels | one of the task's labels and nothing else |
| xml | each field between its tags |
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.names import one_of
from amauta.prompt.settings import Output
from amauta.prompt.task import Example, Task


class Unreadable(Exception):
    """An answer that has not the form; the text says why, and is told to the model."""


@dataclass(frozen=True)
class Form:
    """``ask``: how the form is asked for. ``read``: the value of each field in a text, or Unreadable. ``write``: an
    example's answer in this form. ``only``: arguments of ``generate`` that allow nothing else."""

    ask: str
    read: Callable[[str], dict[str, str]]
    write: Callable[[Example], str]
    answer: str  # the field that holds the answer
    only: dict[str, Any] = field(default_factory=dict)


def form_of(output: Output, task: Task) -> Form:
    """ConfigError: labels of a task without labels, a field that is named twice, or no field."""
    names = output.fields
    if not names or len(set(names)) < len(names):
        raise ConfigError("prompt.bad-fields", fields=", ".join(names) or "-")
    if output.form == "labels" and task.labels is None:
        raise ConfigError("prompt.no-labels", task=task.name)
    return _MAKERS[output.form](names, task)


def allowed(form: Form, lead: str) -> dict[str, Any]:
    """Arguments of ``generate`` that allow this form only, after the spaces that an answer begins with."""
    found = dict(form.only)
    if "choice" in found:
        found["choice"] = tuple(lead + label for label in found["choice"])
    if "regex" in found:
        found["regex"] = lead + found["regex"]
    return found


def _values(example: Example, names: Sequence[str]) -> dict[str, str]:
    """A demonstration's value of each field: its facts by name, its answer for the last. ConfigError without one."""
    known = {**example.facts, names[-1]: example.answer}
    for name in names:
        if name not in known:
            raise ConfigError("prompt.unknown-field", where="output", name=name, hint=one_of(name, sorted(known)))
    return {name: str(known[name]) for name in names}


def _text(names: Sequence[str], task: Task) -> Form:
    return Form("", lambda text: {names[-1]: text}, lambda example: example.answer, names[-1])


def _json(names: Sequence[str], task: Task) -> Form:
    schema = {
        "type": "object", "properties": {name: {"type": ["string", "number"]} for name in names},
        "required": list(names), "additionalProperties": False,
    }  # fmt: skip

    def read(text: str) -> dict[str, str]:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Unreadable(f"not JSON: {error}") from None
        if not isinstance(found, dict) or set(found) != set(names):
            raise Unreadable(f"not a JSON object with exactly the fields {', '.join(names)}")
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise Unreadable(f"{name} is neither a text nor a number")
        return {name: str(found[name]) for name in names}

    listed = ", ".join(f'"{name}"' for name in names)
    return Form(
        f"Answer with a JSON object with the fields {listed} and nothing else.",
        read, lambda example: json.dumps(_values(example, names), ensure_ascii=False), names[-1],
        {"schema": json.dumps(schema)},
    )  # fmt: skip


def _csv(names: Sequence[str], task: Task) -> Form:
    def read(text: str) -> dict[str, str]:
        try:
            lines = [line for line in csv.reader(io.StringIO(text.strip()), strict=True) if line]
        except csv.Error as error:
            raise Unreadable(f"not CSV: {error}") from None
        if len(lines) != 1 or len(lines[0]) != len(names):
            raise Unreadable(f"not one line of {len(names)} values ({','.join(names)})")
        return dict(zip(names, lines[0], strict=True))

    def write(example: Example) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(_values(example, names).values())
        return out.getvalue()

    one = r'("([^"\n]|"")*"|[^",\n]+)'
    return Form(
        f"Answer with one line of CSV: {','.join(names)}", read, write, names[-1],
        {"regex": ",".join([one] * len(names))},
    )  # fmt: skip


def _labels(names: Sequence[str], task: Task) -> Form:
    labels = task.labels or ()

    def read(text: str) -> dict[str, str]:
        if text.strip() not in labels:
            raise Unreadable(f"none of {', '.join(labels)}")
        return {names[-1]: text.strip()}

    return Form(
        f"Answer with one of: {', '.join(labels)}", read, lambda example: example.answer, names[-1],
        {"choice": tuple(labels)},
    )  # fmt: skip


def _xml(names: Sequence[str], task: Task) -> Form:
    def read(text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names:
            inside = re.findall(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>", text, re.DOTALL)
            if len(inside) != 1:
                raise Unreadable(f"{len(inside)} times <{name}>…</{name}>, not once")
            found[name] = inside[0].strip()
        return found

    def write(example: Example) -> str:
        return "".join(f"<{name}>{value}</{name}>" for name, value in _values(example, names).items())

    return Form(
        f"Answer with {' '.join(f'<{name}>…</{name}>' for name in names)}", read, write, names[-1],
        {"regex": r"\s*".join(f"<{re.escape(name)}>[^<]+</{re.escape(name)}>" for name in names)},
    )  # fmt: skip


_MAKERS: dict[str, Callable[[Sequence[str], Task], Form]] = {
    "text": _text, "json": _json, "csv": _csv, "labels": _labels, "xml": _xml,
}  # fmt: skip
