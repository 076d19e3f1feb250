"""How a file in this folder becomes a command: ``Group`` for several under one name, ``command`` for a single one.

A command is a function from a settings object to a dict (or None). Its flags come from the settings class, its help
from its docstring: the text before ``Examples:`` and, below, the examples as they stand.
"""

import inspect
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Result = dict[str, Any] | None
Work = Callable[[Any], Result]
Show = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Command:
    """One command: its settings class, its function and, optionally, how its result is shown to a person.

    ``show`` turns the returned dict into text; without it the dict is printed as a table. With ``--json`` the dict is
    printed as one JSON line in either case. A result whose ``"passed"`` is False exits with 1.
    """

    settings: type
    work: Work
    show: Show | None = None

    def __call__(self, settings: Any) -> Result:
        return self.work(settings)

    @property
    def help(self) -> str:
        """The docstring without its examples."""
        return _halves(self.work)[0]

    @property
    def examples(self) -> str:
        """The command lines under ``Examples:``, one a line."""
        return _halves(self.work)[1]

    @property
    def summary(self) -> str:
        """The docstring's first paragraph."""
        return self.help.partition("\n")[0]


@dataclass
class Group:
    """Several commands under one name: ``app = Group("data")``, then ``@app.command("clean", Curate)``.

    ``alone`` names the command that the group's name runs by itself, or with flags only; without it help is shown.
    """

    name: str
    commands: MutableMapping[str, Command] = field(default_factory=dict[str, Command])
    alone: str | None = None

    def command(self, name: str, settings: type, *, show: Show | None = None) -> Callable[[Work], Command]:
        """Register the decorated function as ``amauta GROUP NAME``."""

        def register(work: Work) -> Command:
            self.commands[name] = Command(settings, work, show)
            return self.commands[name]

        return register


def command(settings: type, *, show: Show | None = None) -> Callable[[Work], Command]:
    """Make the decorated function the one command of its file, named after the file."""

    def register(work: Work) -> Command:
        return Command(settings, work, show)

    return register


def _halves(work: Work) -> tuple[str, str]:
    text, _, examples = (inspect.getdoc(work) or "").partition("Examples:")
    paragraphs = [_unwrapped(paragraph) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs), inspect.cleandoc(examples.lstrip("\n")).strip()


def _unwrapped(paragraph: str) -> str:
    """A paragraph as one line, for a terminal of any width; one with indented lines (a list) stays as it is."""
    lines = paragraph.splitlines()
    return paragraph if any(line.startswith((" ", "- ")) for line in lines) else " ".join(lines)
