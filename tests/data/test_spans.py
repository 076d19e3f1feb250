"""Span corruption: the published lengths, the worked example, the text restored from every source and target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from amauta.data import spans

SENTINELS, END = np.arange(1000, 900, -1), 1


@pytest.mark.parametrize(
    ("source", "length", "target"), [(128, 141, 29), (256, 284, 58), (512, 568, 114), (1024, 1137, 229)]
)
def test_the_published_lengths(source: int, length: int, target: int):
    assert spans.longest(source) == length
    found = spans.amount(length)
    assert (found.source, found.target) == (source, target)
    assert spans.amount(length + 1).source > source


@pytest.mark.parametrize(("length", "noise", "count"), [(568, 85, 28), (12, 2, 1), (20, 3, 1), (2, 1, 1), (3, 1, 1)])
def test_how_much_is_noise(length: int, noise: int, count: int):
    assert spans.amount(length)[:2] == (noise, count)


def test_the_worked_example():
    text = np.arange(10)
    noise = np.isin(text, [2, 3, 8])
    source, target = spans.corrupt(text, noise, SENTINELS, END)
    assert source.tolist() == [0, 1, 1000, 4, 5, 6, 7, 999, 9, END]
    assert target.tolist() == [1000, 2, 3, 999, 8, END]


@given(st.integers(2, 300), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 10_000), st.booleans())
def test_every_corruption_is_undone_and_has_its_lengths(
    length: int, density: float, mean: float, seed: int, ended: bool
):
    rng = np.random.default_rng(seed)
    noise = spans.draw(length, rng, density, mean)
    wanted = spans.amount(length, density, mean)
    firsts = noise & ~np.concatenate(([False], noise[:-1]))
    assert (int(noise.sum()), int(firsts.sum())) == wanted[:2]
    assert not noise[0] and noise[-1]
    text, end = rng.integers(2, 900, length), END if ended else None
    sentinels = np.arange(2000, 1000, -1)
    source, target = spans.corrupt(text, noise, sentinels, end)
    assert (len(source), len(target)) == (wanted.source - (not ended), wanted.target - (not ended))
    assert spans.restore(source, target, sentinels, end).tolist() == text.tolist()


def test_any_spans_that_are_given_are_undone():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        text, noise = rng.integers(2, 900, 40), rng.random(40) < 0.5
        source, target = spans.corrupt(text, noise, SENTINELS, END)
        assert spans.restore(source, target, SENTINELS, END).tolist() == text.tolist()


def test_all_compositions_are_equally_likely():
    rng = np.random.default_rng(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(6000):
        found = tuple(spans.composition(6, 3, rng).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 10 and all(sum(one) == 6 and min(one) >= 1 for one in counts)  # C(5, 2)
    assert chisquare(list(counts.values())).pvalue > 1e-3
