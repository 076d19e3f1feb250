"""Finding many n-grams at once: a hash table from (history, token) to the n-gram's node, in numpy.

Open addressing with linear probing, at most half full: 8 to 16 bytes an n-gram. A table holds nodes only; that a node
is the one that was sought is seen from its token and from its history's range of successors.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Fibonacci hashing (Knuth, volume 3, section 6.4)


class Index:
    """The n-grams of one order: ``tokens`` (N,), ``starts`` (histories + 1,), V = ``size``."""

    def __init__(self, tokens: Ints, starts: Ints, size: int) -> None:
        self.tokens, self.starts, self.size = tokens, starts, size
        bits = max(4, (2 * len(tokens)).bit_length())
        self._shift, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        self.table = np.full(1 << bits, -1, np.int32 if len(tokens) < 2**31 else np.int64)
        histories = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        left = np.arange(len(tokens), dtype=self.table.dtype)
        slot = self._slots(histories, tokens)
        while len(left):
            free = np.flatnonzero(self.table[slot] < 0)
            self.table[slot[free]] = left[free]  # of several for one slot the last is written, and the others go on
            lost = self.table[slot] != left
            left, slot = left[lost], (slot[lost] + 1) & self._mask

    def find(self, histories: Ints, tokens: Ints) -> Ints:
        """The node of each (history, token), (T,) and (T,) -> (T,); -1 where there is none. Histories are nodes."""
        slot = self._slots(histories, tokens)
        node = self.table[slot]
        wrong = np.flatnonzero(self._wrong(node, histories, tokens))
        while len(wrong):
            slot[wrong] = (slot[wrong] + 1) & self._mask
            node[wrong] = self.table[slot[wrong]]
            wrong = wrong[self._wrong(node[wrong], histories[wrong], tokens[wrong])]
        return node

    def _wrong(self, node: Ints, histories: Ints, tokens: Ints) -> NDArray[np.bool_]:
        """Where a slot holds another n-gram."""
        mine = (self.tokens[node] == tokens) & (self.starts[histories] <= node) & (node < self.starts[histories + 1])
        return ~mine & (node >= 0)

    def _slots(self, histories: Ints, tokens: Ints) -> Ints:
        keys = (histories.astype(np.int64) * self.size + tokens).view(np.uint64)
        return ((keys * MIX) >> self._shift).view(np.int64)


def bisect(tokens: Ints, starts: Ints, histories: Ints, sought: Ints) -> Ints:
    """As ``Index.find`` without a table: all searches halve their ranges of successors together."""
    low, high = starts[histories].astype(np.int64), starts[histories + 1].astype(np.int64)
    end = high.copy()
    going = np.flatnonzero(low < high)
    while len(going):
        middle = (low[going] + high[going]) >> 1
        less = tokens[middle] < sought[going]
        low[going[less]], high[going[~less]] = middle[less] + 1, middle[~less]
        going = going[low[going] < high[going]]
    found = np.flatnonzero(low < end)
    node = np.full(len(low), -1, np.int64)
    right = found[tokens[low[found]] == sought[found]]
    node[right] = low[right]
    return node
