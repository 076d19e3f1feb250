"""Seed tasks: what people wrote, one or more instances of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amauta.base.errors import DataError
from amauta.data.read import Row, excerpt, read
from amauta.train.self_instruct.parse import Instance


@dataclass
class Task:
    """An instruction with its instances. ``likeness``: the greatest ROUGE-L with the tasks before it, ``to_seeds``:
    with seed tasks only; ``nearest``: the text that it is likest to."""

    instruction: str
    instances: list[Instance] = field(default_factory=list)
    classification: bool | None = None
    likeness: float = 0.0
    to_seeds: float = 0.0
    nearest: str = ""


def read_seeds(patterns: Sequence[str], *, least: int, may_skip: int = 0) -> tuple[list[Task], int]:
    """The seed tasks of some files, each instruction once, and how many records were skipped. DataError for fewer than
    ``least``."""
    reader = read(patterns, may_skip=may_skip)
    found: dict[str, Task] = {}
    for _, task in reader.each(task_of):
        if task.instruction in found:  # another instance of it, as in a file with a record for each
            held = found[task.instruction].instances
            held += [one for one in task.instances if one not in held]
        else:
            found[task.instruction] = task
    if len(found) < least:
        raise DataError("self_instruct.few-seeds", where=", ".join(reader.patterns), count=len(found), least=least)
    return list(found.values()), reader.skipped


def task_of(row: Row) -> Task:
    """``{"instruction", "instances": [{"input", "output"}], "is_classification"}``, or an Alpaca record.

    Raises DataError, with file and line, for any other.
    """
    value = row.value
    given = value.get("instances") if value.get("instances") is not None else [value]
    fields: list[Any] = [value.get("instruction")]
    if isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        fields += [one.get("output") for one in given] + [one.get("input") or "" for one in given]
        if all(isinstance(text, str) for text in fields) and fields[0].strip():
            instances = [((one.get("input") or "").strip(), one["output"].strip()) for one in given]
            return Task(" ".join(fields[0].split()), instances, value.get("is_classification"))
    raise DataError("self_instruct.bad-seed", file=row.file, line=row.line, value=excerpt(value))
