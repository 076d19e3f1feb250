"""The container GGUF: its metadata, its table of tensors, and the numbers of one tensor at a time.

As in ggml's docs/gguf.md, versions 2 and 3, little-endian: magic, version, count of tensors, count of entries, the
entries (name, type, value), the table (name, dimensions, type, offset), padding, the data. The `gguf` package reads
the same; it makes a numpy array of each string, 2.6 s for a vocabulary of 49,152, and this takes 0.1 s.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes, unless the file says otherwise
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
CHUNK = 1 << 21  # numbers that are turned to f32 at a time, so that no second copy of a large table is ever held


@dataclass(frozen=True)
class TensorInfo:
    """One line of the table. ``shape`` as torch writes it, rows first; ``offset`` from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    kind: str  # "Q4_1"
    offset: int
    size: int  # bytes


class Contents(Protocol):
    """The metadata and the table of a file, or of one that is to be written."""

    @property
    def path(self) -> Path: ...
    @property
    def fields(self) -> dict[str, Any]: ...
    @property
    def tensors(self) -> dict[str, TensorInfo]: ...
    def fill(self, info: TensorInfo, into: Tensor) -> None: ...


class GgufFile:
    """``fields`` (name → value; arrays are lists) and ``tensors`` (name → TensorInfo) of the file at ``path``.

    Raises ModelError: not a GGUF, another version, cut off (with the offset), damaged, a tensor that does not end
    within the file or is of a type that is not read here (by its name).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.fields: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            with self.path.open("rb") as file:
                self.size = file.seek(0, 2)
                if self.size < 24:
                    raise ModelError("gguf.not-gguf", path=path)
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    self._parse(_Cursor(data, self.path))
        except OSError as error:
            raise ModelError("gguf.unreadable", path=path, reason=error) from None

    def raw(self, info: TensorInfo, first: int = 0, rows: int | None = None) -> np.ndarray:
        """The stored bytes of ``rows`` rows from ``first`` on: (rows, bytes in a row), uint8."""
        count = _rows(info.shape)
        rows = count if rows is None else rows
        row = info.size // count if count else 0
        found = np.fromfile(self.path, np.uint8, rows * row, offset=info.offset + first * row)
        if found.size != rows * row:
            raise ModelError("gguf.truncated", path=self.path, what=info.name, offset=info.offset, size=self.size)
        return found.reshape(rows, row)

    def fill(self, info: TensorInfo, into: Tensor) -> None:
        """Put the numbers of a tensor into ``into``, which has its shape and any floating type."""
        flat = into.reshape(-1, info.shape[-1]) if info.shape else into.reshape(1, 1)
        step = max(1, CHUNK // max(1, flat.shape[1]))
        for first in range(0, flat.shape[0], step):
            rows = min(step, flat.shape[0] - first)
            flat[first : first + rows].copy_(numbers(self.raw(info, first, rows), info.kind))

    def _parse(self, at: "_Cursor") -> None:
        if at.take(4) != MAGIC:
            raise ModelError("gguf.not-gguf", path=self.path)
        version = at.number("I")
        if version not in VERSIONS:
            if version & 0xFFFF == 0 and version >> 24 in VERSIONS:
                raise ModelError("gguf.big-endian", path=self.path)
            raise ModelError("gguf.version", path=self.path, version=version, allowed=", ".join(map(str, VERSIONS)))
        tensors, fields = at.number("Q"), at.number("Q")
        for _ in range(fields):
            name = at.text("metadata")
            if name in self.fields:
                raise ModelError("gguf.twice", path=self.path, name=name)
            self.fields[name] = at.value(name, at.number("I"))
        names = {number: kind for kind, number in codes().items()}
        lines = [self._line(at, names) for _ in range(tensors)]
        alignment = self.fields.get(ALIGNMENT, DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ModelError("gguf.bad-value", path=self.path, name=ALIGNMENT, value=alignment)
        self._place(lines, -(-at.at // alignment) * alignment, alignment)

    def _line(self, at: "_Cursor", names: Mapping[int, str]) -> TensorInfo:
        """One line of the table as it stands: its offset still counts from the beginning of the data."""
        begin = at.at
        name = at.text("tensor table")
        dimensions = at.number("I")
        if dimensions > 4:
            raise ModelError("gguf.bad-shape", path=self.path, name=name, offset=begin, seen=dimensions)
        shape = tuple(at.number("Q") for _ in range(dimensions))[::-1]
        number, offset = at.number("I"), at.number("Q")
        kind = names.get(number, str(number))
        if kind not in READABLE:
            raise ModelError("gguf.tensor-type", path=self.path, name=name, seen=kind, allowed=", ".join(READABLE))
        block, size = block_of(kind)
        row = shape[-1] if shape else 1
        if row % block or not 0 < math.prod(shape) < 1 << 50:
            raise ModelError("gguf.bad-shape", path=self.path, name=name, offset=begin, seen=shape)
        return TensorInfo(name, shape, kind, offset, math.prod(shape) // block * size)

    def _place(self, lines: list[TensorInfo], data: int, alignment: int) -> None:
        """Check that the tensors stand one after another, as they must, and end within the file."""
        expected = 0
        for line in lines:
            if line.name in self.tensors:
                raise ModelError("gguf.twice", path=self.path, name=line.name)
            if line.offset != expected:
                raise ModelError(
                    "gguf.tensor-misplaced",
                    path=self.path, name=line.name, offset=data + line.offset, expected=data + expected,
                )  # fmt: skip
            begin = data + line.offset
            if begin + line.size > self.size:
                raise ModelError(
                    "gguf.tensor-cut-off",
                    path=self.path, name=line.name, offset=begin, end=begin + line.size, size=self.size,
                )  # fmt: skip
            expected += -(-line.size // alignment) * alignment
            self.tensors[line.name] = TensorInfo(line.name, line.shape, line.kind, begin, line.size)


class _Cursor:
    """Reads values one after another; every reading past the end of the file is a ModelError with its offset."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0

    def take(self, count: int, what: str = "header") -> bytes:
        if self.at + count > len(self.data):
            raise ModelError("gguf.truncated", path=self.path, what=what, offset=self.at, size=len(self.data))
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self, what: str) -> str:
        begin = self.at
        try:
            return self.take(self.number("Q"), what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError("gguf.not-text", path=self.path, what=what, offset=begin, reason=error) from None

    def value(self, name: str, kind: int) -> Any:
        if kind == STRING:
            return self.text(name)
        if kind == ARRAY:
            return list(self._items(name, self.number("I"), self.number("Q")))
        if kind not in SCALARS:
            raise ModelError("gguf.value-type", path=self.path, name=name, offset=self.at, seen=kind)
        return self.number(SCALARS[kind])

    def _items(self, name: str, kind: int, count: int) -> Iterator[Any]:
        if kind == STRING:
            return (self.text(name) for _ in range(count))
        if kind not in SCALARS:  # an array of arrays is allowed by the format and used by no model
            raise ModelError("gguf.value-type", path=self.path, name=name, offset=self.at, seen=kind)
        code = SCALARS[kind]
        return iter(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code), name)))


def numbers(raw: np.ndarray, kind: str) -> Tensor:
    """(rows, bytes) as stored -> (rows, numbers) in f32; F16 and BF16 are not widened here."""
    if kind in ("F32", "F16", "BF16"):
        plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
        return torch.from_numpy(raw).view(plain)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(raw, GGMLQuantizationType[kind]))


def block_of(kind: str) -> tuple[int, int]:
    """How many numbers of a row share a block, and how many bytes a block takes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]]


def codes() -> dict[str, int]:
    """The name of a type -> its number in the file."""
    from gguf.constants import GGMLQuantizationType

    return {kind.name: int(kind) for kind in GGMLQuantizationType}


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
