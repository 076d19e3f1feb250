"""What a run says while it works: metrics.jsonl for programs, progress and notes on stderr for people."""

import json
import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from amauta.base.errors import RunError
from amauta.base.messages import say
from amauta.runs import raise_if_full, write_atomically

console = Console(stderr=True, highlight=False)
QUIET_SECONDS = 10.0  # between two lines of progress when stderr is no terminal


class Journal:
    """metrics.jsonl of one run: one JSON object a line, each with its ``step``."""

    def __init__(self, path: Path, *, from_step: int | None) -> None:
        """Open the journal. None starts it anew; k keeps the lines with step <= k, so that a resumed run tells the
        steps after its checkpoint once.
        """
        kept = read(path) if from_step is not None and path.exists() else []
        lines = [json.dumps(row) + "\n" for row in kept if from_step is not None and row["step"] <= from_step]
        write_atomically(path, "".join(lines))
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, **values: Any) -> None:
        """Append one line and hand it to the system at once.

        Numbers of numpy and torch become plain ones; NaN and infinities become null, as JSON has neither.
        Raises RunError when the disk is full.
        """
        try:
            self._file.write(json.dumps(plain({"step": step, **values}), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise_if_full(error, self.path)
            raise

    def close(self) -> None:
        """Flush to the disk and close; closing twice is allowed."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal, in order. A last line that was cut off by a crash is left out.

    Raises RunError when there is no such file, or when a line other than the last is no JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise RunError("metrics.no-file", file=path) from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):  # no newline after it: the writer was stopped in the middle
                break
            raise RunError("metrics.malformed-line", file=path, line=number, reason=error) from None
        rows.append(row)
    return rows


def newest(path: Path, name: str) -> Any:
    """The newest value of ``name`` in a journal, or None."""
    return next((row[name] for row in reversed(read(path)) if name in row), None)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: paths as text, array and tensor values as numbers and lists, NaN and ±inf null."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "tolist"):  # numpy and torch, scalars included
        return plain(value.tolist())
    return str(value)


class Bar:
    """What ``progress`` hands out: ``advance(n, loss=…)`` counts and shows the newest values."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self.shown: dict[str, Any] = {}
        self.began = time.monotonic()

    def advance(self, n: int = 1, **shown: Any) -> None:
        self.done += n
        self.shown.update(shown)
        self._draw()

    def seconds(self) -> float:
        """Seconds since the bar began."""
        return time.monotonic() - self.began

    def _values(self) -> str:
        return " ".join(f"{name} {_short(value)}" for name, value in self.shown.items())

    def _draw(self) -> None:
        raise NotImplementedError


class _Drawn(Bar):
    """A bar of rich on a terminal."""

    def __init__(self, description: str, total: int | None, rich: Progress, task: TaskID) -> None:
        super().__init__(description, total)
        self._rich, self._task = rich, task

    def _draw(self) -> None:
        self._rich.update(self._task, completed=self.done, values=self._values())


class _Lines(Bar):
    """A line now and then, for a log file."""

    def __init__(self, description: str, total: int | None) -> None:
        super().__init__(description, total)
        self._last = self.began

    def _draw(self) -> None:
        if time.monotonic() - self._last >= QUIET_SECONDS:
            self.line()

    def line(self) -> None:
        self._last = time.monotonic()
        count = str(self.done) if self.total is None else f"{self.done}/{self.total}"
        text = say("metrics.progress", what=self.description, count=count, seconds=f"{self.seconds():.1f}")
        console.print(f"{text} {self._values()}".rstrip(), markup=False, soft_wrap=True)


@contextmanager
def progress(description: str, total: int | None) -> Generator[Bar, None, None]:
    """A progress bar on stderr; where stderr is no terminal, a line about every ten seconds and one at the end.

    ``total`` None: the end is not known. The last line is written after an error too: it says how far the work got.
    """
    if not console.is_terminal:
        lines = _Lines(description, total)
        try:
            yield lines
        finally:
            lines.line()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[values]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as rich:
        task = rich.add_task(description, total=total, values="")
        yield _Drawn(description, total, rich, task)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
