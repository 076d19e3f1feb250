"""Fit sequences of many lengths into rows of one length, so that work is proportional to tokens and not to padding."""

from collections.abc import Sequence

import numpy as np


def best_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: the longest first, each into the fullest row that still holds it.

    Returns rows of indices into ``lengths``. Every length must be between 1 and ``capacity``. Ties go to the lower
    index and to the row opened first, so the result is a function of the input alone.
    """
    lengths = np.asarray(lengths)
    assert lengths.size == 0 or (lengths.min() >= 1 and lengths.max() <= capacity), "a length does not fit a row"
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the space that they have left
    open_spaces = 0  # bit s is set when some row has s slots left
    for index in np.argsort(-lengths, kind="stable").tolist():
        need = int(lengths[index])
        fitting = open_spaces >> need
        if fitting:
            space = need + (fitting & -fitting).bit_length() - 1
            row = by_space[space].pop(0)
            if not by_space[space]:
                open_spaces &= ~(1 << space)
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        left = space - need
        if left:
            by_space[left].append(row)
            open_spaces |= 1 << left
    return rows
