"""One stage as a child process: its result is read, Ctrl-C reaches it once, and two runs never share a folder."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from amauta.base.errors import RunError

_PATIENCE = 15.0  # seconds that an orphan of a killed run has to save and end
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (128 + n when signal n ended it), its result, and its seconds.

    ``result`` is the JSON object on the last line of its stdout, or None; ``interrupted`` says that Ctrl-C or a
    termination signal was passed on to it.
    """

    code: int
    result: dict[str, Any] | None
    seconds: float
    interrupted: bool


def run_child(command: Sequence[str], *, hold: int | None = None) -> Ended:
    """Run ``command`` to its end; stderr is inherited, and what it prints on stdout before its result follows there.

    The child has its own process group, so that a terminal's Ctrl-C reaches only this process, which passes it on:
    one Ctrl-C is one signal. ``hold`` is an open file that the child keeps open too (the folder's lock). On Linux the
    child is told to save and end when this process is killed.
    """
    begin = time.monotonic()
    # Signals wait from before the child exists until it can be told: none is lost in between.
    with _passing_on() as told:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
            pass_fds=() if hold is None else (hold,), process_group=0 if os.name == "posix" else None,
            preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
        )  # fmt: skip
        told.child = child
        told.pass_on()
        if hold is not None:
            _sign(hold, os.getpid(), child.pid)
        last = ""
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                if last:
                    print(last, file=sys.stderr, end="")
                last = line
        code = child.wait()
        told.child = None
    result = _object(last)
    if result is None and last:
        print(last, file=sys.stderr, end="")
    return Ended(128 - code if code < 0 else code, result, time.monotonic() - begin, told.signals > 0)


class _Told:
    """The signals that came while a child runs, and whom to pass them on to."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[str] | None = None
        self.signals = 0
        self.passed = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self.pass_on()

    def pass_on(self) -> None:
        while self.child is not None and self.passed < self.signals:
            self.passed += 1
            self.child.send_signal(signal.SIGINT)  # does nothing when the child has ended


@contextlib.contextmanager
def _passing_on() -> Generator[_Told]:
    """While inside, Ctrl-C and termination signals go to the child instead of ending this process."""
    told = _Told()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        names = []
    before = {name: signal.signal(getattr(signal, name), told.receive) for name in names}
    try:
        yield told
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler if handler is not None else signal.SIG_DFL)


def _end_with_parent() -> Callable[[], None]:
    """What a child does first: ask the kernel to interrupt it when its parent dies, so that nobody works on unseen."""
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PARENT_DEATH, signal.SIGINT)


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@contextlib.contextmanager
def lock(folder: Path) -> Generator[int | None]:
    """Hold a run's folder: one run at a time works in it, its children included. Yields the open lock file.

    Raises RunError when another run (or a stage that a killed run left behind) holds it for longer than a moment.
    """
    if os.name != "posix":
        yield None
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                runner, *stages = os.pread(handle, 50, 0).decode(errors="replace").split() or ["?"]
                if _alive(runner) or time.monotonic() > until:
                    pid = next((pid for pid in (runner, *stages) if _alive(pid)), "?")
                    raise RunError("recipes.locked", dir=folder, pid=pid) from None
                time.sleep(0.1)
        _sign(handle, os.getpid())
        yield handle
        fcntl.flock(handle, fcntl.LOCK_UN)  # for every process that inherited it
    finally:
        os.close(handle)


def _sign(handle: int, *pids: int) -> None:
    """Write into the lock file who is at work: the run, and the stage that may outlive it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, " ".join(map(str, pids)).encode(), 0)


def _alive(pid: str) -> bool:
    """Whether the run that took the lock still lives: then waiting a moment is of no use."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
