"""``amauta``: finds the commands by folder, runs one, and turns every ending into an exit code.

0 fine, 1 a goal missed, 2 a user's mistake, 70 a bug of ours, 130 interrupted.
"""

import ast
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from amauta.base.errors import AmautaError, ConfigError
from amauta.base.messages import say, translated
from amauta.base.names import did_you_mean
from amauta.cli._door import Command, Group

if TYPE_CHECKING:
    from cyclopts import App
    from rich.console import Console

BUG, INTERRUPTED = 70, 130  # 70: EX_SOFTWARE of sysexits.h; 130: what a shell gives for Ctrl-C
HELP = ("--help", "-h")


@dataclass(frozen=True)
class Page:
    """A page of help: what cyclopts draws, and the lines below it."""

    app: "App"
    foot: str


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; whatever goes wrong is said on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = dispatch(words)
        sys.stdout.flush()  # here, so that a reader that went away is met here
        return code
    except AmautaError as error:
        return _failed(words, error.exit_code, error.key, say("cli.error", text=error))
    except KeyboardInterrupt:
        return _failed(words, INTERRUPTED, "cli.interrupted", say("cli.interrupted"))
    except BrokenPipeError:  # `amauta … | head`: nobody listens any more, so end quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        text = say("cli.system", reason=error.strerror or error, path=error.filename or "-")
        return _failed(words, AmautaError.exit_code, "cli.system", text)
    except Exception as error:
        return _failed(words, BUG, "cli.bug", _kept(error))


def dispatch(words: Sequence[str]) -> int:
    """Run the command that ``words`` name. Raises whatever the command raises."""
    if not words or words[0] in HELP:
        show_help(root_page())
        return 0
    if words[0] == "--version":
        from amauta import __version__

        print(__version__)
        return 0
    name, *rest = words
    thing = load(name)
    if isinstance(thing, Command):
        return _execute(thing, name, rest)
    if thing.alone and (not rest or (rest[0].startswith("-") and rest[0] not in HELP)):
        rest = [thing.alone, *rest]
    if not rest or rest[0] in HELP:
        show_help(group_page(thing))
        return 0 if rest else AmautaError.exit_code
    if rest[0] not in thing.commands:
        raise ConfigError(
            "cli.unknown-command", name=f"{name} {rest[0]}", hint=did_you_mean(rest[0], thing.commands)
        )  # fmt: skip
    return _execute(thing.commands[rest[0]], f"{name} {rest[0]}", rest[1:])


def found() -> dict[str, Path]:
    """The file of every command, by the command's name: every Python file here whose name has no underscore first."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def load(name: str) -> Command | Group:
    """The command or the group of commands that a file defines. Only that file is imported."""
    files = found()
    if name not in files:
        raise ConfigError("cli.unknown-command", name=name, hint=did_you_mean(name, files))
    module = import_module(f"amauta.cli.{files[name].stem}")
    things = [thing for thing in vars(module).values() if isinstance(thing, Command | Group)]
    group = next((thing for thing in things if isinstance(thing, Group)), None)
    if group is None and len(things) != 1:
        raise AssertionError(f"cli/{files[name].name} must define one command or one group")
    return group or things[0]


def root_page() -> Page:
    """The list of all commands. No command's file is imported: its docstring's first line is read from the text."""
    return _list_page("amauta", say("cli.about"), {name: _about(name).partition("\n")[0] for name in found()})


def group_page(group: Group) -> Page:
    """The list of the commands of one group."""
    lines = {sub: _help(command, f"{group.name} {sub}") for sub, command in group.commands.items()}
    about = {sub: text.partition("\n")[0] for sub, text in lines.items()}
    return _list_page(f"amauta {group.name}", _about(group.name), about)


def command_page(command: Command, name: str) -> Page:
    """The flags of one command, its help and its examples. The settings class is imported, no torch."""
    from amauta.cli._flags import parser

    examples = "\n".join([say("cli.examples"), *(f"  {line}" for line in command.examples.splitlines())])
    text = _help(command, name)
    return Page(parser(command.settings, f"amauta {name}", text), examples if command.examples else "")


def show_help(page: Page, console: "Console | None" = None) -> None:
    """Print a page on stdout, or on ``console``. Its foot is never folded: command lines are there to be copied."""
    from rich.console import Console

    console = console or Console()
    page.app.help_print([], console=console)
    if page.foot:
        console.print(f"\n{page.foot}", markup=False, highlight=False, soft_wrap=True)


def _about(name: str) -> str:
    """The docstring of a command's file, in the user's language."""
    english = ast.get_docstring(ast.parse(found()[name].read_text(encoding="utf-8"))) or ""
    return translated("files", name, english)


def _help(command: Command, name: str) -> str:
    return translated("commands", name, command.help)


def _list_page(name: str, text: str, lines: dict[str, str]) -> Page:
    from cyclopts import App
    from cyclopts import Group as Panel

    panel = Panel(say("cli.commands"))
    page = App(
        name=name, help=text, help_format="plaintext", help_flags=[], version_flags=[], usage="",
        help_prologue=say("cli.usage-list", name=name), group_commands=panel,
    )  # fmt: skip
    for command, line in lines.items():
        page.command(App(name=command, help=line, help_format="plaintext", help_flags=[], version_flags=[]))
    return Page(page, say("cli.more-help", name=name))


def _execute(command: Command, name: str, words: Sequence[str]) -> int:
    if any(word in HELP for word in words):
        show_help(command_page(command, name))
        return 0
    from amauta.cli._flags import parse
    from amauta.cli._print import show_result

    given = parse(command.settings, words, f"amauta {name}")
    result = command(given.settings)
    show_result(result, as_json=given.json, show=command.show)
    return 1 if result is not None and result.get("passed") is False else 0


def _failed(words: Sequence[str], code: int, key: str, text: str) -> int:
    """Say on stderr what went wrong (with --debug where), and with --json as one JSON line on stdout."""
    if "--debug" in words:
        traceback.print_exc()
    print(text, file=sys.stderr)
    if "--json" in words:
        from amauta.cli._print import show_result

        show_result({"error": text, "key": key, "exit": code}, as_json=True)
    return code


def _kept(error: Exception) -> str:
    """The words for a bug of ours; its traceback goes to a file, or into the words when no file can be written."""
    from amauta.runs import crash_file, write_atomically

    trace = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {error}"
    try:
        write_atomically(crash_file(), trace)
    except (OSError, AmautaError):
        return say("cli.bug-unkept", what=what, trace=trace)
    return say("cli.bug", what=what, file=crash_file())
