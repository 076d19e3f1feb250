"""Counts of n-grams over integer ids: sorted arrays of packed keys, one table an order.

The tables form a trie. The n-gram ``(h, w)`` of order k is one 64-bit key, ``node(h) * size + w``, where ``node(h)`` is
the row of its history in the table of order k-1; so any order and any vocabulary fit one integer, the successors of a
history stand side by side, and looking up a million n-grams is one binary search of an array. Level 0 holds the
unigrams: their key is the id itself, and their history is the one empty history, node 0.

N is the number of n-grams of a level, T the number of tokens of a stream, V the size of the vocabulary.
"""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amauta.base.errors import DataError, ModelError

Ints = NDArray[np.int64]


class Counts:
    """How often every n-gram of order 1 to ``order`` is an event: its last token is predicted, its others stand before.

    ``keys[level]`` (N,) sorted int64, ``counts[level]`` (N,) int64; level = order - 1. ``counts[0]`` is dense, (V,),
    with 0 for ``begin``, which is context only. No n-gram crosses a document's border.
    """

    def __init__(self, keys: list[Ints], counts: list[Ints], *, size: int, begin: int) -> None:
        self.keys, self.counts, self.size, self.begin = keys, counts, size, begin
        self._known: dict[int, tuple[Ints, Ints]] = {}

    @property
    def order(self) -> int:
        """The longest n-gram that is counted; 0 for no counts at all."""
        return len(self.keys)

    @property
    def types(self) -> list[int]:
        """The number of distinct n-grams of each order that were seen as events."""
        return [int(np.count_nonzero(counts)) for counts in self.counts]

    def find(self, level: int, history: Ints, tokens: Ints) -> Ints:
        """The node of each n-gram ``(history node, token)``, (T,) and (T,) -> (T,); -1 where it was never counted."""
        if level == 0:
            return tokens
        keys = self.keys[level]
        if not len(keys):
            return np.full(len(tokens), -1, np.int64)
        sought = history * self.size + tokens  # negative, so in no table, where the history is -1
        place = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
        return np.where(keys[place] == sought, place, -1)

    def successors(self, level: int, history: int) -> slice:
        """The nodes of ``level`` whose history is node ``history``: a slice, for keys are sorted."""
        if level == 0:
            return slice(0, self.size)
        first, last = np.searchsorted(self.keys[level], [history * self.size, (history + 1) * self.size])
        return slice(int(first), int(last))

    def split(self, level: int) -> tuple[Ints, Ints]:
        """The history node (N,) and the last token (N,) of every n-gram of a level."""
        if level == 0:
            return np.zeros(self.size, np.int64), np.arange(self.size)
        if level not in self._known:
            history, token = np.divmod(self.keys[level], self.size)
            self._known[level] = history, token
        return self._known[level]

    def suffixes(self) -> list[Ints]:
        """For every level, the node one level below of each n-gram without its oldest token, (N,).

        It always exists: whatever was an event after a long history was one after the shorter history too.
        """
        found: list[Ints] = []
        for level in range(self.order):
            history, token = self.split(level)
            found.append(self.find(level - 1, found[level - 1][history], token) if level else token)
        return found

    def at_start(self) -> list[NDArray[np.bool_]]:
        """For every level, which n-grams begin with ``begin``, (N,)."""
        marks: list[NDArray[np.bool_]] = []
        for level in range(self.order):
            history, token = self.split(level)
            marks.append(marks[level - 1][history] if level else token == self.begin)
        return marks

    def totals(self, level: int, weights: NDArray[Any]) -> NDArray[np.float64]:
        """Sums of ``weights`` (N,) over the successors of each history: (nodes of the level below,)."""
        histories = len(self.keys[level - 1]) if level else 1
        return np.bincount(self.split(level)[0], weights, minlength=histories).astype(np.float64)

    def forget(self) -> None:
        """Free what ``split`` remembers; it is made again when asked for."""
        self._known.clear()


def count(documents: Iterable[Sequence[int]], *, size: int, begin: int, order: int) -> Counts:
    """Counts of all n-grams up to ``order`` of documents that each read ``[begin, …]`` with ids in [0, size).

    Raises DataError for a document that does not start with ``begin``, has it inside, or holds an id out of range.
    """
    stream, starts = join(documents)
    check_ids(stream, size)
    if not np.array_equal(np.flatnonzero(stream == begin), starts):
        raise DataError("ngram.no-begin", document=_first_wrong(stream, starts, begin) + 1, begin=begin)
    if size * max(size, len(stream)) >= 2**63:
        raise DataError("ngram.too-large", size=size, tokens=len(stream))
    event = stream != begin
    keys, counts = [np.arange(size)], [np.bincount(stream[event], minlength=size)]
    node = stream
    for _ in range(1, order):
        place = np.flatnonzero(event[1:] & (node[:-1] >= 0)) + 1
        found, inverse, number = np.unique(
            node[place - 1] * size + stream[place], return_inverse=True, return_counts=True
        )
        node = np.full(len(stream), -1, np.int64)
        node[place] = inverse
        keys.append(found)
        counts.append(number.astype(np.int64))
    return Counts(keys[:order], counts[:order], size=size, begin=begin)


def join(documents: Iterable[Sequence[int]]) -> tuple[Ints, Ints]:
    """Documents laid end to end, (T,), and the place where each begins, (documents,). DataError when one is empty."""
    parts = [np.asarray(document, dtype=np.int64) for document in documents]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    if not lengths.all():
        raise DataError("ngram.empty-document", document=int(np.argmin(lengths)) + 1)
    stream = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return stream, np.cumsum(lengths) - lengths


def check_ids(stream: Ints, size: int) -> None:
    """ModelError naming the first id of a stream that is not in [0, size)."""
    wrong = (stream < 0) | (stream >= size)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ModelError("ngram.bad-id", place=place, id=int(stream[place]), size=size)


def write_counts(path: Path, counts: Counts) -> None:
    """The tables as a numpy archive without pickled objects."""
    tables = {f"keys_{level + 1}": keys for level, keys in enumerate(counts.keys) if level}
    tables |= {f"counts_{level + 1}": numbers for level, numbers in enumerate(counts.counts)}
    np.savez(path, allow_pickle=False, **tables)


def read_counts(path: Path, *, size: int, begin: int, order: int) -> Counts:
    """What ``write_counts`` wrote; ModelError when a table is missing, torn or of a shape that cannot be."""
    try:
        with np.load(path, allow_pickle=False) as tables:
            counts = [tables[f"counts_{level + 1}"] for level in range(order)]
            keys = [tables[f"keys_{level + 1}"] if level else np.arange(size) for level in range(order)]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError("ngram.bad-folder", folder=path.parent, reason=error) from None
    for level in range(order):
        same = keys[level].dtype == counts[level].dtype == np.int64 and keys[level].shape == counts[level].shape
        below = len(keys[level - 1]) if level else 1
        if not same or (len(keys[level]) and not 0 <= keys[level][0] <= keys[level][-1] < below * size):
            raise ModelError("ngram.bad-folder", folder=path.parent, reason=f"{path.name}: order {level + 1}")
    return Counts(keys, counts, size=size, begin=begin)


def _first_wrong(stream: Ints, starts: Ints, begin: int) -> int:
    """The number of the first document that does not start with ``begin`` or has it inside."""
    marks = stream == begin
    right = np.zeros(len(stream), bool)
    right[starts] = True
    place = int(np.argmax(marks != right))
    return int(np.searchsorted(starts, place, side="right")) - 1
