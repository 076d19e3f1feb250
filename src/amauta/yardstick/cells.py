"""Finished pieces of a long measurement: each in a file, and none done twice."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amauta.base.errors import Interrupted
from amauta.base.messages import say
from amauta.metrics import console, plain
from amauta.runs import write_atomically

Cell = dict[str, Any]


class Cells:
    """The cells of the folder ``out``; ``total`` of them will be asked for."""

    def __init__(self, out: Path, total: int) -> None:
        self.out, self.total = out, total
        self.seen: set[Path] = set()

    def cell(self, name: str, seed: int | None, make: Callable[[], Cell]) -> Cell:
        """What ``make`` gives, or gave: it is kept in ``out/cells``. Interrupted says how to go on."""
        path = self.out / "cells" / (f"{name}.json" if seed is None else f"{name}.seed-{seed}.json")
        self.seen.add(path)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        console.print(say("yardstick.cell", done=len(self.seen), total=self.total, name=path.stem), markup=False)
        try:
            with quiet():
                made = plain(make())
        except Interrupted as stopped:
            raise Interrupted("yardstick.interrupted", name=path.stem, folder=self.out) from stopped
        write_atomically(path, json.dumps(made, ensure_ascii=False, indent=1) + "\n")
        return made


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Without the notes of the commands that are run here; errors are raised and so are not lost."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
