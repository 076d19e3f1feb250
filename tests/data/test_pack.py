"""Packing: every sequence once, no row too full, as tight as best-fit decreasing is known to be."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amauta.data.pack import best_fit


def naive(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing as its definition says, by looking at every row."""
    rows: list[list[int]] = []
    space: list[int] = []
    opened: list[int] = []  # when a row took its present space: equals go to the one that has waited longest
    for now, i in enumerate(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))):
        fits = [r for r in range(len(rows)) if space[r] >= lengths[i]]
        if fits:
            r = min(fits, key=lambda r: (space[r], opened[r]))
        else:
            rows.append([])
            space.append(capacity)
            opened.append(now)
            r = len(rows) - 1
        rows[r].append(i)
        space[r] -= lengths[i]
        opened[r] = now
    return rows


@given(st.lists(st.integers(1, 20), max_size=60))
def test_equals_the_definition(lengths: list[int]):
    assert best_fit(lengths, 20) == naive(lengths, 20)


@given(st.lists(st.integers(1, 50), max_size=80))
def test_every_sequence_once_and_no_row_too_full(lengths: list[int]):
    rows = best_fit(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 50 for row in rows)


def test_a_known_packing():
    assert best_fit([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]


def test_many_short_ones_leave_little_air():
    lengths = np.random.default_rng(0).integers(5, 90, 5000)
    rows = best_fit(lengths, 256)
    assert lengths.sum() / (len(rows) * 256) > 0.995
