"""Encoded documents on the disk: token ids read at random through the page cache, never loaded whole.

A store is a folder: ``tokens.bin`` (uint16 where the vocabulary fits, else uint32), ``starts.bin`` (N + 1 int64),
``bytes.bin`` (N int64), all little-endian, and ``index.json`` with the counts, the vocabulary and the tokenizer's
fingerprint. It is written aside, in bounded memory, and renamed when it is whole.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import DataError
from amauta.runs import aside, raise_if_full, replace_folder

Document = tuple[Sequence[int] | np.ndarray, int]  # token ids, and the UTF-8 bytes of the text they stand for
_INDEX, _TOKENS, _STARTS, _BYTES = "index.json", "tokens.bin", "starts.bin", "bytes.bin"
_FORMAT = 1
_LENGTH = np.dtype("<i8")


@dataclass(frozen=True)
class TokenStore:
    """An open store; ``store[i]`` is the i-th document's ids as a read-only array."""

    folder: Path
    tokens: np.ndarray  # (total,) uint16 or uint32, a memory map
    starts: np.ndarray  # (N + 1,) int64: document i is tokens[starts[i] : starts[i + 1]]
    bytes: np.ndarray  # (N,) int64: UTF-8 bytes of each document's text, for bits per byte
    vocabulary: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, document: int) -> np.ndarray:
        """The ids of one document; negative numbers count from the end. Raises IndexError beyond the ends."""
        if not -len(self) <= document < len(self):
            raise IndexError(document)
        document %= len(self)
        return self.tokens[self.starts[document] : self.starts[document + 1]]

    @classmethod
    def open(cls, folder: Path, *, fingerprint: str | None = None) -> "TokenStore":
        """Open a store, checked: files and index agree, and it was made with the tokenizer ``fingerprint`` (if given).

        Raises DataError: no store there, sizes or starts that disagree, another tokenizer (both are named).
        """
        folder = Path(folder)
        index = _read_index(folder)
        if fingerprint is not None and fingerprint != index["fingerprint"]:
            raise DataError("data.store-other-tokenizer", folder=folder, stored=index["fingerprint"], given=fingerprint)
        documents, total = index["documents"], index["tokens"]
        dtype = _dtype(index["vocabulary"])
        tokens = _map(folder, _TOKENS, dtype, total)
        starts = _map(folder, _STARTS, _LENGTH, documents + 1)
        sizes = _map(folder, _BYTES, _LENGTH, documents)
        ends = (int(starts[0]), int(starts[-1]))
        if ends != (0, total) or np.any(starts[1:] < starts[:-1]):
            raise DataError("data.store-broken", folder=folder, what=_STARTS, seen=f"{ends[0]}…{ends[1]}",
                            expected=f"0…{total}")  # fmt: skip
        return cls(folder, tokens, starts, sizes, index["vocabulary"], index["fingerprint"])


def write(folder: Path, documents: Iterable[Document], *, vocabulary: int, fingerprint: str) -> TokenStore:
    """Write a store of ``(ids, UTF-8 bytes of the text)`` pairs, one a document, and open it.

    A store that stands at ``folder`` is replaced when the new one is whole, and kept when anything fails. Raises
    DataError: an id outside [0, vocabulary) (document, place and id named), ids that are no flat list of whole
    numbers, nothing to store. Raises RunError when the disk is full.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = aside(folder)
    made.mkdir()
    try:
        count, total = _write_files(made, documents, vocabulary)
        if not total:
            raise DataError("data.store-empty", folder=folder)
        index = {"format": _FORMAT, "documents": count, "tokens": total, "vocabulary": vocabulary,
                 "fingerprint": fingerprint}  # fmt: skip
        (made / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        replace_folder(made, folder)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        raise_if_full(error, folder)
        raise
    return TokenStore.open(folder)


def _write_files(made: Path, documents: Iterable[Document], vocabulary: int) -> tuple[int, int]:
    """The three arrays, document by document; returns the number of documents and of tokens."""
    dtype = _dtype(vocabulary)
    count = total = 0
    with ExitStack() as open_files:
        tokens, starts, sizes = (
            open_files.enter_context((made / name).open("wb")) for name in (_TOKENS, _STARTS, _BYTES)
        )
        starts.write(np.array(0, _LENGTH).tobytes())
        for ids, size in documents:
            array = _checked(ids, count, vocabulary)
            tokens.write(array.astype(dtype).tobytes())
            total += len(array)
            count += 1
            starts.write(np.array(total, _LENGTH).tobytes())
            sizes.write(np.array(size, _LENGTH).tobytes())
    return count, total


def _checked(ids: Sequence[int] | np.ndarray, document: int, vocabulary: int) -> np.ndarray:
    """``ids`` as an array (T,), every one of them in the vocabulary: found here, not in a kernel that dies of it."""
    array = np.asarray(ids) if len(ids) else np.zeros(0, np.int64)
    huge = array.dtype.kind == "O" and all(isinstance(item, int) for item in ids)  # beyond 64 bits
    if array.ndim != 1 or not (array.dtype.kind in "iu" or huge):
        raise DataError("data.store-not-ids", document=document, value=f"{array.dtype} {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array >= vocabulary))
    if len(wrong):
        place = int(wrong[0])
        raise DataError("data.store-out-of-range", document=document, id=array[place], place=place,
                        vocabulary=vocabulary, last=vocabulary - 1)  # fmt: skip
    return array


def _dtype(vocabulary: int) -> np.dtype:
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("data.store-none", folder=folder, file=_INDEX) from None
    except ValueError as error:
        raise DataError("data.store-broken", folder=folder, what=_INDEX, seen=error, expected="JSON") from None
    needed = {"format", "documents", "tokens", "vocabulary", "fingerprint"}
    if not isinstance(index, dict) or index.get("format") != _FORMAT or needed - index.keys():
        seen = index.get("format") if isinstance(index, dict) else index
        raise DataError("data.store-broken", folder=folder, what=f"{_INDEX} format", seen=seen, expected=_FORMAT)
    return index


def _map(folder: Path, name: str, dtype: np.dtype, length: int) -> np.ndarray:
    """A memory map of ``length`` items, after a look at the file's size."""
    path, expected = folder / name, length * dtype.itemsize
    size = path.stat().st_size if path.is_file() else 0
    if size != expected:
        raise DataError("data.store-broken", folder=folder, what=f"{name} (bytes)", seen=size, expected=expected)
    return np.memmap(path, dtype=dtype, mode="r", shape=(length,))
