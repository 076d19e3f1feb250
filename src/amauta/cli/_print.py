"""How a command's result is printed: one JSON line for programs, a small table for people."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast


def show_result(
    result: dict[str, Any] | None, *, as_json: bool, show: Callable[[dict[str, Any]], str] | None = None
) -> None:
    """Print ``result`` on stdout. None is a command that has printed all that it had to say (``{}`` in JSON)."""
    from amauta.metrics import plain

    if as_json:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(plain(result or {}), ensure_ascii=not utf8, allow_nan=False), flush=True)
    elif result is not None and show is not None:
        print(show(result), flush=True)
    elif result:
        _table(list(flat(plain(result))))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a table: nested dicts become dotted names, lists of plain values one cell, lists of dicts a row each."""
    if isinstance(value, dict):
        for key, part in cast(dict[str, Any], value).items():
            yield from flat(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        parts = cast(list[Any], value)
        if any(isinstance(part, dict | list) for part in parts):
            for number, part in enumerate(parts):
                yield from flat(part, f"{name}.{number}")
        else:
            yield name, ", ".join(_cell(part) for part in parts)
    else:
        yield name, _cell(value)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


def _table(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:  # a file or a pipe: no folding at some width that nobody chose
        widest = max(len(name) for name, _ in rows)
        for name, cell in rows:
            print(f"{name:{widest}}  {cell}".rstrip(), flush=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, cell in rows:
        table.add_row(Text(name), Text(cell))
    console.print(table)
