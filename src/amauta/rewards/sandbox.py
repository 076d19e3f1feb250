"""Run a program that a model wrote, with little time, little memory and nothing to break, and test it.

The program runs in a process of its own: Python isolated from the environment and from installed packages, in an empty
folder that is removed after, with hard limits of processor time, memory, file size, open files and processes, and
killed when its time is over. Where the system lets a process give up what it has (Linux with user namespaces) it has no
network either, and can write nowhere but in that folder; ``Outcome.shut`` tells whether that was so. It can still read
what the user can read: this keeps accidents in, not an attacker. For each test that passes a secret word is written to
a file that the program is not told of, so that one which ends early passes none of the rest.
"""

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from amauta.base.errors import ConfigError

MEBIBYTE = 2**20
MEMORY = 512 * MEBIBYTE
START = 2.0  # seconds that a busy machine may need to begin

# What the child runs. It limits itself before it reads a line of the program; hard limits cannot be raised again.
CHILD = """
import ctypes, json, os, resource, struct, sys
order = json.load(sys.stdin)
verdict = os.fdopen(order["verdict"], "w")
for name, value in order["limits"].items():
    kind = getattr(resource, name, None)
    if kind is not None:
        try:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            pass
def shut():
    # namespaces of users, mounts and the network, then every mount read-only but this folder
    system, here = ctypes.CDLL(None), os.getcwd().encode()
    def attribute(path, put, taken, propagation, flags):
        given = struct.pack("QQQQ", put, taken, propagation, 0)
        return system.syscall(MOUNT_SETATTR, AT_FDCWD, path, flags, given, len(given))
    return (
        system.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) == 0
        and system.mount(here, here, None, MS_BIND, None) == 0
        and attribute(b"/", READ_ONLY, 0, MS_PRIVATE, AT_RECURSIVE) == 0
        and attribute(here, 0, READ_ONLY, 0, 0) == 0
        and os.chdir(here) is None
    )
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, MS_BIND, MS_PRIVATE = 0x10000000, 0x20000, 0x40000000, 4096, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
try:
    print(json.dumps({"shut": sys.platform == "linux" and shut()}), file=verdict, flush=True)
except (OSError, AttributeError):
    pass
sys.setrecursionlimit(10000)
words, place = order["words"], {"__name__": "__main__"}
def tell(word, error):
    print(json.dumps([word, error]), file=verdict, flush=True)
def attempt(text, name):
    try:
        exec(compile(text, name, "exec"), place)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None
failed = attempt(order["program"], "program")
for word, test in zip(words, order["tests"]):
    error = failed or attempt(test, "test")
    tell(word if error is None else None, error)
os._exit(0)
"""


@dataclass(frozen=True)
class Outcome:
    """How many of the tests passed, what was wrong with the first that did not, and whether the program had no network
    and could not write outside its folder."""

    passed: int
    tests: int
    fault: str | None
    shut: bool


def run(program: str, tests: Sequence[str], *, seconds: float = 5.0, memory: int = MEMORY) -> Outcome:
    """Run ``program``, then each of ``tests`` in the same names; a test passes when it raises nothing.

    ``seconds`` are those of all together, of the processor and (with 2 s to begin) of a clock; ``memory`` bytes of
    address space. What does not finish has not passed. ConfigError where the system has no such limits (Windows).
    """
    if os.name != "posix":
        raise ConfigError("rewards.no-sandbox")
    words = [secrets.token_hex(8) for _ in tests]
    with tempfile.TemporaryFile() as verdict, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        order = {"program": program, "tests": list(tests), "words": words, "verdict": verdict.fileno(),
                 "limits": _limits(seconds, memory)}  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", CHILD], cwd=folder, env={}, start_new_session=True,
            pass_fds=[verdict.fileno()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            child.communicate(json.dumps(order).encode(), timeout=seconds + START)
            killed = child.returncode in (-signal.SIGKILL, -signal.SIGXCPU)  # its processor time was over
            ended = f"> {seconds:g} s" if killed else f"exit {child.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"> {seconds:g} s"
        finally:
            _kill(child)
        verdict.seek(0)
        return _outcome(verdict.read().decode(errors="replace"), words, ended)


def _limits(seconds: float, memory: int) -> dict[str, int]:
    return {"RLIMIT_CPU": math.ceil(seconds), "RLIMIT_AS": memory, "RLIMIT_FSIZE": MEBIBYTE, "RLIMIT_NOFILE": 64,
            "RLIMIT_NPROC": 0, "RLIMIT_CORE": 0}  # fmt: skip


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """The child, and whatever of its session is left."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has ended, and left nothing
        pass
    child.wait()


def _outcome(written: str, words: Sequence[str], ended: str) -> Outcome:
    """What the child wrote, read with care: the program that it ran may have written too."""
    passed: set[str] = set()
    faults: list[str] = []
    shut = False
    for line in written.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict):
            shut = shut or told.get("shut") is True
        elif isinstance(told, list) and len(told) == 2:
            passed |= {told[0]} & set(words) if isinstance(told[0], str) else set()
            faults += [told[1]] if isinstance(told[1], str) else []
    fault = None if len(passed) == len(words) else next(iter(faults), ended)
    return Outcome(len(passed), len(words), fault, shut)
