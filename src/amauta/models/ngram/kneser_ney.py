"""What Kneser-Ney smoothing counts, and how much it takes from each count.

The highest order keeps its raw counts; a lower one counts the distinct tokens that stand before an n-gram (Kneser and
Ney 1995), except for n-grams at the start of a document, where nothing stands before and the raw count is kept
(Heafield et al. 2013, section 3.2). Interpolated as in Chen and Goodman 1999 (TR-10-98), whose equation 26 gives the
discounts.
"""

import numpy as np
from numpy.typing import NDArray

from amauta.models.ngram.distinct import Ints
from amauta.models.ngram.room import Room, whole_number
from amauta.models.ngram.trie import Trie

Floats = NDArray[np.float64]
FALLBACK = 0.5  # the single discount of an order without n-grams seen once or twice (lmplz's for a count of 1)


def adjusted(trie: Trie, suffixes: list[Ints], room: Room) -> list[Ints]:
    """The counts that are smoothed, (N,) a level. ``suffixes``: of ``counting.count``."""
    assert trie.counts is not None
    found = list(trie.counts)
    for level in range(trie.order - 1):
        nodes = len(trie.tokens[level])
        neighbours = room.array(nodes, whole_number(max(map(int, trie.nodes)) + 1), fill=0)
        for part in room.blocks(len(suffixes[level + 1])):
            if room.on_disk:
                where, times = np.unique(suffixes[level + 1][part], return_counts=True)
                neighbours[where] += times.astype(neighbours.dtype)
                room.release(neighbours, suffixes[level + 1])
            else:
                np.add.at(neighbours, suffixes[level + 1][part], 1)
        start = trie.at_start(level)
        neighbours[start] = trie.counts[level][start]
        found[level] = neighbours
    return found


def counts_of_counts(counts: Ints, room: Room) -> list[int]:
    """How many n-grams have the count 1, 2, 3 and 4."""
    found = np.zeros(6, np.int64)
    for part in room.blocks(len(counts)):
        found += np.bincount(np.minimum(counts[part], 5), minlength=6)
    return found[1:5].tolist()


def one_discount(t: list[int]) -> float | None:
    """t1 / (t1 + 2 t2), or None where t1 or t2 is 0. ``t``: of ``counts_of_counts``."""
    return t[0] / (t[0] + 2 * t[1]) if t[0] and t[1] else None


def three_discounts(t: list[int]) -> tuple[float, float, float] | None:
    """The discounts of a count of 1, of 2, and of 3 or more; None where the counts of counts do not give them.

    D_j = j - (j + 1) Y t_{j+1} / t_j with Y = t1 / (t1 + 2 t2): none when t1, t2 or t3 is 0 or a D_j is not in [0, j].
    Unlike lmplz in 64 bits; and lmplz takes the last n-gram of each order into t by its raw count, which is a slip.
    """
    if 0 in t[:3]:
        return None
    y = t[0] / (t[0] + 2 * t[1])
    d1, d2, d3 = (j - (j + 1) * y * t[j] / t[j - 1] for j in (1, 2, 3))
    return (d1, d2, d3) if 0 <= d1 <= 1 and 0 <= d2 <= 2 and 0 <= d3 <= 3 else None


def taken(counts: Floats, discounts: tuple[float, ...]) -> Floats:
    """What is taken from each count, (N,): the discount of that count, the last one for all above, nothing from 0."""
    table = np.array([0.0, *discounts])
    return np.minimum(counts, table[np.minimum(counts, len(discounts)).astype(np.int64)])
