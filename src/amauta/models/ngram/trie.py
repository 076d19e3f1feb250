"""N-grams over integer ids as a trie of arrays, one level an order.

A node of level k-1 is an n-gram of order k. The nodes of a level are in the order of their words: sorted by history,
then by last token, so that the successors of a history stand side by side. Level 0 holds all V ids: a node there is the
id itself. A node takes 4 bytes for its token, 4 for where its successors begin and 4 for its count, whatever its order.

N is the number of nodes of a level, T the number of tokens of a stream, V the size of the vocabulary.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from amauta.base.errors import ModelError
from amauta.models.ngram.index import Index, bisect

Ints = NDArray[Any]  # int32, or int64 where that is too small
MANY = 8  # a table for finding is built when at least 1/8 as many n-grams are sought at once as there are


class Trie:
    """``tokens[level]`` (N,) and ``starts[level]`` (nodes of the level below + 1,): history h has the successors
    ``starts[h] … starts[h + 1]``. ``counts[level]`` (N,): how often each is an event (its last token is predicted, its
    others stand before); 0 for ``begin``, which is context only. None for a model whose counts are not known.
    """

    def __init__(
        self, tokens: list[Ints], starts: list[Ints], counts: list[Ints] | None, *, size: int, begin: int
    ) -> None:
        self.tokens, self.starts, self.counts, self.size, self.begin = tokens, starts, counts, size, begin
        self._indices: dict[int, Index] = {}

    @property
    def order(self) -> int:
        """The longest n-gram; 0 for no n-grams at all."""
        return len(self.tokens)

    @property
    def nodes(self) -> list[int]:
        """The number of n-grams of each order, as the header of an ARPA file tells it: all V ids first."""
        return [len(tokens) for tokens in self.tokens]

    @property
    def types(self) -> list[int]:
        """The number of distinct n-grams of each order that were seen as events."""
        counts = self.counts or []
        return [int(np.count_nonzero(numbers)) for numbers in counts]

    @property
    def bytes(self) -> int:
        """Memory of the arrays, tables for finding included."""
        held = [*self.tokens, *self.starts, *(self.counts or []), *(index.table for index in self._indices.values())]
        return sum(array.nbytes for array in held)

    def successors(self, level: int, history: int) -> slice:
        """The nodes of ``level`` whose history is node ``history`` of the level below."""
        return slice(int(self.starts[level][history]), int(self.starts[level][history + 1]))

    def one(self, level: int, history: int, token: int) -> int:
        """The node of one n-gram, -1 where there is none or ``history`` is -1."""
        if level == 0:
            return token
        if history < 0:
            return -1
        among = self.successors(level, history)
        place = among.start + int(np.searchsorted(self.tokens[level][among], token))
        return place if place < among.stop and self.tokens[level][place] == token else -1

    def find(self, level: int, histories: Ints, tokens: Ints) -> Ints:
        """The node of each n-gram (history node, token) of a level above 0, two (T,) -> (T,); -1: there is none."""
        index = self._indices.get(level)
        if not len(self.tokens[level]):  # all were pruned
            return np.full(len(tokens), -1, np.int64)
        if index is None:
            return bisect(self.tokens[level], self.starts[level], histories, tokens)
        return index.find(histories, tokens)

    def prepare(self, tokens: int) -> None:
        """Build the tables for finding where so many tokens to come are worth it."""
        for level in range(1, self.order):
            if level not in self._indices and tokens * MANY >= len(self.tokens[level]):
                self._indices[level] = Index(self.tokens[level], self.starts[level], self.size)

    def at_start(self, level: int) -> slice:
        """The nodes of a level whose first token is ``begin``: they stand side by side."""
        low, high = self.begin, self.begin + 1
        for upper in range(1, level + 1):
            low, high = int(self.starts[upper][low]), int(self.starts[upper][high])
        return slice(low, high)

    def check(self, stream: Ints) -> None:
        """ModelError naming the first id of a stream that is not in [0, V)."""
        if len(stream) and not 0 <= int(stream.min()) <= int(stream.max()) < self.size:
            place = int(np.argmax((stream < 0) | (stream >= self.size)))
            raise ModelError("ngram.bad-id", place=place, id=int(stream[place]), size=self.size)

    def without(self, kept: list[NDArray[np.bool_]]) -> "Trie":
        """Only the nodes that are marked, (N,) a level; the successors of a node that goes must go too."""
        tokens, starts, counts = [self.tokens[0]], [self.starts[0]], self.counts and [self.counts[0]]
        for level in range(1, self.order):
            before = np.concatenate([[0], np.cumsum(kept[level])])  # how many stay before each node
            ends = before[self.starts[level][1:][kept[level - 1]]]
            starts.append(np.concatenate([[0], ends]).astype(self.starts[level].dtype))
            tokens.append(self.tokens[level][kept[level]])
            if self.counts is not None and counts is not None:
                counts.append(self.counts[level][kept[level]])
        return Trie(tokens, starts, counts, size=self.size, begin=self.begin)


def path(trie: Trie, level: int, nodes: slice) -> list[Ints]:
    """The ids of the n-grams of a run of nodes, first words first: ``level + 1`` columns, (nodes,) each."""
    place = np.arange(nodes.start, nodes.stop)
    columns: list[Ints] = []
    for upper in range(level, -1, -1):
        columns.append(trie.tokens[upper][place])
        if upper:  # the places ascend, so this reads the starts in order
            place = np.searchsorted(trie.starts[upper], place, side="right") - 1
    return columns[::-1]
