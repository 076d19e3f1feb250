"""The only speller of run, checkpoint and cache paths, and the only way in which files and folders are replaced."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from amauta.base.errors import RunError

CONFIG = "config.json"  # what makes a folder a model folder
GENERATION = "generation_config.json"
ADAPTER_CONFIG = "adapter_config.json"  # what makes a folder an adapter's
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_OWN = "adapter.json"  # what peft's settings have no place for
CARD = "card.json"  # where a model comes from, and what became of it
PROBES = "probes.safetensors"  # what it said of its probes when it was trained or imported

_STEP = re.compile(r"step-(\d{6,})")
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Run:
    """The folder of one run. Every property is a path inside it; none of them is created here."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def config(self) -> Path:
        """The resolved settings; this file alone runs the run again."""
        return self.folder / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def records(self) -> Path:
        """Records that the run made, to train on."""
        return self.folder / "records.jsonl"

    @property
    def tasks(self) -> Path:
        """The tasks that a model invented, with what is known of each."""
        return self.folder / "tasks.jsonl"

    @property
    def stages(self) -> Path:
        """What a recipe has finished, with the digests of what it was made from."""
        return self.folder / "stages.json"

    @property
    def model(self) -> Path:
        """The finished model, in the layout that other libraries open."""
        return self.folder / "model"

    @property
    def generator(self) -> Path:
        """The finished generator, where one was trained beside the model."""
        return self.folder / "generator"

    @property
    def oracle(self) -> Path:
        """The run of the model by which tokens are chosen, where one was trained for that."""
        return self.folder / "oracle"

    @property
    def pairs(self) -> Path:
        """The records that were chosen for this run from those of a greater one."""
        return self.folder / "pairs.jsonl"

    @property
    def scores(self) -> Path:
        """What chose the tokens that were learnt: the score of each."""
        return self.folder / "scores.safetensors"

    @property
    def masks(self) -> Path:
        """What weighed the tokens of answers in training; the finished model goes without it."""
        return self.folder / "masks.safetensors"

    @property
    def result(self) -> Path:
        """What the finished run returned; its presence says that the run is finished."""
        return self.folder / "result.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def calibration(self) -> Path:
        """How often a reward model is right, beside how often it says so."""
        return self.folder / "calibration.svg"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after ``step`` steps."""
        return self.checkpoints / f"step-{step:06d}"

    def tokens(self, name: str) -> Path:
        """The token store called ``name``."""
        return self.folder / "tokens" / name

    def rollouts(self, iteration: int) -> Path:
        """The answers of an iteration of policy optimisation, with their rewards."""
        return self.folder / "rollouts" / f"iteration-{iteration:06d}.jsonl"

    def written(self, key: str, part: int) -> Path:
        """Texts that a teacher wrote, a part of them; ``key`` tells what it was asked."""
        return self.folder / "written" / key / f"part-{part:05d}.jsonl"

    def taught(self, key: str) -> Path:
        """What a teacher says of the run's texts; ``key`` tells of both."""
        return self.folder / "taught" / key

    def latest(self) -> Path | None:
        """The complete checkpoint with the most steps, or None.

        A checkpoint is written aside and renamed when it is whole, so a folder with the full name is a complete one;
        any other name (a writer's leftover) is not looked at.
        """
        steps = self.complete_checkpoints()
        return self.checkpoint(steps[-1]) if steps else None

    def complete_checkpoints(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        if not self.checkpoints.is_dir():
            return []
        named = ((_STEP.fullmatch(entry.name), entry) for entry in self.checkpoints.iterdir())
        return sorted(int(name[1]) for name, entry in named if name and entry.is_dir())


def cache_folder() -> Path:
    """Where what can be made again is kept: ``AMAUTA_CACHE``, or ``~/.cache/amauta``."""
    given = os.environ.get("AMAUTA_CACHE", "")
    return Path(given) if given else Path.home() / ".cache" / "amauta"


def weights_folder(name: str) -> Path:
    """Where the weights of the known model ``name`` are kept when no package can hold them as they are."""
    return cache_folder() / "models" / name


def reference_file(key: str) -> Path:
    """Where a reference model's log-probs of answers are kept; ``key`` tells of weights, answers and computation."""
    return cache_folder() / "reference" / f"{key}.safetensors"


def crash_file() -> Path:
    """Where the command line keeps the traceback of the last unexpected error."""
    return cache_folder() / "last-error.txt"


def aside(final: Path) -> Path:
    """A fresh hidden name beside ``final``, on the same file system, to write to before renaming."""
    return final.parent / f".{final.name}.{uuid4().hex[:12]}.tmp"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: aside, flushed to the disk, then renamed over ``path``.

    Whatever fails, an older file at ``path`` stays as it was and nothing is left beside it.
    Raises RunError when the disk is full; any other OSError passes unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    made = aside(path)
    try:
        handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(made, path)
    except BaseException as error:
        made.unlink(missing_ok=True)
        raise_if_full(error, path)
        raise
    _flush(path.parent)


def write_stream(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """As ``write_atomically`` for what is too long to be held: ``write`` is given the open file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = aside(path)
    try:
        with made.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(made, path)
    except BaseException as error:
        made.unlink(missing_ok=True)
        raise_if_full(error, path)
        raise
    _flush(path.parent)


def replace_folder(made: Path, final: Path) -> None:
    """Put the finished folder ``made`` in the place of ``final``; both must be on one file system.

    The contents are flushed to the disk first. An older ``final`` is moved away before, put back when the renaming
    fails, and removed after. Raises RunError when the disk is full: ``final`` is then untouched.
    """
    try:
        for part in [*made.rglob("*"), made]:
            _flush(part)
    except OSError as error:
        raise_if_full(error, final)
        raise
    final.parent.mkdir(parents=True, exist_ok=True)
    old = aside(final) if final.exists() else None
    if old:
        os.rename(final, old)
    try:
        os.rename(made, final)
    except BaseException:
        if old:
            os.rename(old, final)
        raise
    _flush(final.parent)
    if old:
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def write_folder(final: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a folder aside, then put it in the place of ``final``: whole or not at all.

    What ``write`` raises leaves ``final`` as it was; RunError when the disk is full.
    """
    made = aside(final)
    made.mkdir(parents=True)
    try:
        write(made)
        replace_folder(made, final)
    except BaseException as error:
        raise_if_full(error, final)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def raise_if_full(error: BaseException, path: Path) -> None:
    """Raise a RunError that names ``path`` when ``error`` says that the disk (or the quota) is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        raise RunError("runs.disk-full", path=path) from error


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content, or of a folder's file names and contents; times and modes do not count.

    Raises RunError when nothing is at ``path``.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise RunError("runs.nothing-there", path=path)
    total = hashlib.sha256()
    for file in sorted(part for part in path.rglob("*") if part.is_file()):
        name = file.relative_to(path).as_posix().encode()
        total.update(len(name).to_bytes(8, "big") + name + bytes.fromhex(digest(file)))
    return total.hexdigest()


def _flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
