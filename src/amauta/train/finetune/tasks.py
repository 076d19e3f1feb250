"""The records that a run learns and those that it is graded by: read, put into prompts, kept apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError, DataError
from amauta.data.overlap import RUN, overlaps
from amauta.data.prompts import Templates, check_apart, load_templates
from amauta.data.read import Row, expand
from amauta.data.tasks import Example, Kind, Task, read_task
from amauta.train.finetune.settings import Finetune

Render = Callable[[Row], list[dict[str, Any]]]


def tasks_of(settings: Finetune) -> tuple[Task, Task | None]:
    """The task and its held-out records, None without any.

    ConfigError where templates do not go with the files, or a task with templates is learnt and held out at once.
    """
    held_in, render = _templates(settings.templates, settings.task)
    held_out, render_held = _templates(settings.heldout_templates, settings.heldout)
    if bool(held_in) != bool(held_out) and settings.heldout:
        raise ConfigError("finetune.templates-on-one-side")
    check_apart(held_in, held_out)
    kind: Kind | None = "text" if held_in else settings.kind
    task = read_task(
        settings.task, settings.columns, kind=kind, labels=settings.labels, may_skip=settings.may_skip, render=render
    )
    if not settings.heldout:
        return task, None
    held = read_task(settings.heldout, settings.columns, like=task, may_skip=settings.may_skip, render=render_held)
    return task, held


def _templates(files: Sequence[Path], patterns: Sequence[str]) -> tuple[list[Templates], Render | None]:
    """The templates, and what makes the records of a row: by the file that it stands in."""
    if not files:
        return [], None
    loaded = [load_templates(file) for file in files]
    records = expand(patterns)
    if len(loaded) == 1:
        return loaded, loaded[0].records
    if len(loaded) != len(records):
        raise ConfigError("finetune.templates-count", templates=len(loaded), files=len(records))
    by_file = dict(zip(records, loaded, strict=True))
    return loaded, lambda row: by_file[row.file].records(row)


def leaks(settings: Finetune, task: Task, heldout: Task) -> dict[str, int]:
    """How many held-out records are learnt too, whole or by a run of words. DataError where none may be."""
    same, shared = overlaps(map(_whole, task.examples), [_whole(example) for example in heldout.examples], run=RUN)
    if shared and settings.leaks == "error":
        place = heldout.examples[shared[0]].place
        raise DataError("finetune.leak", place=place, count=len(shared), whole=len(same), run=RUN)
    return {"leaked_whole": len(same), "leaked_runs": len(shared)}


def _whole(example: Example) -> str:
    """What is asked in an example, its answer left out."""
    return " ".join([example.text, example.pair or "", *example.choices])
