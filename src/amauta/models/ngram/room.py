"""Where big arrays live while n-grams are counted: in memory, or beyond a limit in nameless files.

A nameless file has no entry in any folder from the moment it is made, so whatever happens nothing of it is left.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

IN_CORE = 220  # bytes of memory that a token takes at the peak of counting and estimating in memory (measured: 150-200)
PER_TOKEN, PER_NODE = 100, 200  # the same for one token of a chunk that is sorted, one n-gram of a block
SMALLEST = 1 << 10  # tokens of a chunk, however little memory there is


class Room:
    """``memory`` bytes for the work on ``tokens`` tokens; None: no limit. ``folder``: where the files lie.

    With enough memory there is one chunk, the whole. Otherwise arrays are files, sorted by chunks and merged.
    """

    def __init__(self, tokens: int, memory: int | None = None, folder: Path | None = None) -> None:
        self.on_disk = memory is not None and tokens * IN_CORE > memory
        self.folder = folder
        room = memory if memory is not None else 1 << 40
        self.chunk = max(SMALLEST, room // PER_TOKEN) if self.on_disk else max(1, tokens)
        self.block = min(max(SMALLEST, room // PER_NODE), 1 << 18)  # n-grams at a time; so many fit a processor's cache

    def array(self, length: int, kind: DTypeLike, fill: float | None = None) -> NDArray[Any]:
        """A new array of ``length``; its values are undefined unless ``fill`` gives them."""
        if not self.on_disk or length == 0:
            return np.empty(length, kind) if fill is None else np.full(length, fill, kind)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.truncate(length * np.dtype(kind).itemsize)
            made = np.memmap(file, dtype=kind, mode="r+", shape=(length,))
        if fill:
            for start in range(0, length, self.block):
                made[start : start + self.block] = fill
        return made

    def chunks(self, length: int) -> Iterator[slice]:
        """Slices of a stream, each small enough to be sorted in memory."""
        return (slice(start, min(start + self.chunk, length)) for start in range(0, length, self.chunk))

    def blocks(self, length: int) -> Iterator[slice]:
        """Slices of an array of n-grams, each small enough to be worked on in memory."""
        return (slice(start, min(start + self.block, length)) for start in range(0, length, self.block))

    def release(self, *arrays: NDArray[Any]) -> None:
        """Give the memory of file-backed arrays back to the system; their values stay in the files."""
        for array in arrays:
            mapped = getattr(array, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


class Growing:
    """An array of int32 that grows at its end: in memory up to ``memory`` bytes, then in a nameless file."""

    def __init__(self, memory: int | None = None, folder: Path | None = None) -> None:
        self.memory, self.folder = memory, folder
        self.length = 0
        self._parts: list[NDArray[np.int32]] = []
        self._file: IO[bytes] | None = None

    def append(self, values: NDArray[np.int32]) -> None:
        self.length += len(values)
        self._parts.append(values)
        if self.memory is not None and 4 * self.length > self.memory:
            self._file = self._file or tempfile.TemporaryFile(dir=self.folder)
            for part in self._parts:
                self._file.write(np.ascontiguousarray(part, np.int32).data)
            self._parts = []

    def whole(self) -> NDArray[np.int32]:
        """All of it; a view of the file where there is one. Nothing may be appended after."""
        if self._file is None:
            return np.concatenate([np.zeros(0, np.int32), *self._parts])
        self._file.flush()
        with self._file as file:  # the view keeps what the name was for
            return np.memmap(file, dtype=np.int32, mode="r+", shape=(self.length,))


def whole_number(limit: int) -> type[np.signedinteger[Any]]:
    """The smaller of int32 and int64 that holds the numbers below ``limit``."""
    return np.int32 if limit < 2**31 else np.int64


def memory_of_machine() -> int | None:
    """Half of the machine's memory in bytes; None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return None
