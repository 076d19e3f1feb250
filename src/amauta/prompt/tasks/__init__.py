"""The tasks that come with the package: a file here is a task, called ``TASK`` in it, under the name of the file."""

from importlib import import_module
from pathlib import Path

from amauta.base.errors import ConfigError
from amauta.base.names import one_of
from amauta.prompt.task import Task


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def named(name: str) -> Task:
    """The task of that name; ConfigError, with the nearest name, for none."""
    if name not in names():
        raise ConfigError("prompt.unknown-task", name=name, hint=one_of(name, names()))
    return import_module(f"{__name__}.{name}").TASK
