"""The reference of all commands as one Markdown page, made from the same help that the terminal shows.

``python -m amauta.cli._help_pages FILE`` writes it (``make help-pages``); a test compares the committed page with it.
"""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from amauta.cli._door import Command
from amauta.cli._root import Page, command_page, found, group_page, load, root_page, show_help
from amauta.runs import write_atomically

WIDTH = 100


def page() -> str:
    """The whole reference; the same text on every machine."""
    parts = ["# Commands\n\nMade by `make help-pages` from the settings classes and docstrings; do not edit.\n"]
    parts += [f"## {title}\n\n```text\n{_drawn(one)}\n```\n" for title, one in _pages()]
    return "\n".join(parts)


def _pages() -> Iterator[tuple[str, Page]]:
    yield "amauta", root_page()
    for name in found():
        thing = load(name)
        if isinstance(thing, Command):
            yield f"amauta {name}", command_page(thing, name)
            continue
        yield f"amauta {name}", group_page(thing)
        for sub, command in thing.commands.items():
            yield f"amauta {name} {sub}", command_page(command, f"{name} {sub}")


def _drawn(one: Page) -> str:
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    show_help(one, console)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named, or to stdout."""
    os.environ["AMAUTA_LANG"] = "en"
    if arguments:
        write_atomically(Path(arguments[0]), page())
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
