"""Parts of a long benchmark, each kept when it is done, so that the same call goes on where one was stopped."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amauta.metrics import plain
from amauta.runs import write_atomically


class Kept:
    """A folder of parts. ``seconds``: what those that were asked for took, whenever that was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0.0

    def __call__(self, name: str, asked: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``work`` found, now or earlier; what was found under other settings (``asked``) is found anew."""
        file, wanted = self.folder / f"{name}.json", json.loads(json.dumps(plain(asked)))
        held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if held.get("asked") != wanted:
            began = time.perf_counter()
            found = json.loads(json.dumps(plain(work())))
            held = {"asked": wanted, "found": found, "seconds": time.perf_counter() - began}
            write_atomically(file, json.dumps(held, ensure_ascii=False) + "\n")
            print(f"{name}: {held['seconds']:.0f} s", file=sys.stderr, flush=True)
        self.seconds += held["seconds"]
        return held["found"]
