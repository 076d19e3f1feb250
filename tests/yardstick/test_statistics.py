"""Intervals and rank correlations against SciPy."""

import pytest

from amauta.yardstick.statistics import interval, paired, rank_correlation, ranks

scipy_stats = pytest.importorskip("scipy.stats")
VALUES = [0.31, 0.52, 0.47, 0.90, 0.11, 0.47, 0.63, 0.72, 0.05, 0.38] * 4


@pytest.mark.parametrize("n", range(2, 32))
def test_the_interval_is_students(n: int):
    found = interval(VALUES[:n])
    low, high = scipy_stats.t.interval(0.95, n - 1, loc=found.mean, scale=scipy_stats.sem(VALUES[:n]))
    assert found.mean - found.half == pytest.approx(low, abs=1e-6)  # type: ignore[operator]
    assert found.mean + found.half == pytest.approx(high, abs=1e-6)  # type: ignore[operator]


def test_one_seed_has_no_interval():
    assert interval([2.0]).half is None and interval([2.0]).differs is None


def test_a_paired_difference_is_taken_within_a_seed():
    found = paired([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])  # seeds differ much, the difference not at all
    assert found.values == (0.5, 0.5, 0.5) and found.mean == 0.5 and found.half == 0.0 and found.differs
    assert paired([1.0, 2.0, 3.0], [2.0, 1.0, 3.5]).differs is False
    assert interval([0.1, -0.1, 0.05]).differs is False and interval([0.1, 0.11, 0.12]).differs is True


def test_ranks_and_their_correlation_with_ties():
    one, other = [3.0, 1.0, 3.0, 2.0, 5.0], [2.0, 2.0, 9.0, 1.0, 4.0]
    assert ranks(one) == [6 - r for r in scipy_stats.rankdata(one)]
    assert rank_correlation(one, other) == pytest.approx(scipy_stats.spearmanr(one, other)[0])
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None
