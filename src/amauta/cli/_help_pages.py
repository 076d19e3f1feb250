"""The reference of all commands as a Markdown page a language, made from the same help that the terminal shows.

``python -m amauta.cli._help_pages FOLDER`` writes them (``make help-pages``); a test compares the committed pages.
"""

import io
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from amauta.base.messages import say
from amauta.cli._door import Command
from amauta.cli._root import Page, command_page, found, group_page, load, root_page, show_help
from amauta.runs import write_atomically

WIDTH = 100
FILES = {"en": "commands.md", "es": "ordenes.md"}


def page(language: str) -> str:
    """The whole reference in one language; the same text on every machine."""
    with _speaking(language):
        parts = [say("cli.page") + "\n"]
        parts += [f"## {title}\n\n```text\n{_drawn(one)}\n```\n" for title, one in _pages()]
    return "\n".join(parts)


@contextmanager
def _speaking(language: str) -> Generator[None, None, None]:
    before = os.environ.get("AMAUTA_LANG")
    os.environ["AMAUTA_LANG"] = language
    try:
        yield
    finally:
        del os.environ["AMAUTA_LANG"]
        os.environ |= {} if before is None else {"AMAUTA_LANG": before}


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
    """Write the pages into the folder that is named."""
    for language, name in FILES.items():
        write_atomically(Path(arguments[0]) / name, page(language))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
