"""Means over seeds with their 95 % intervals, and the agreement of two orderings."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# The .975 quantile of Student's t for 1 … 30 degrees of freedom.
_T = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814, 2.20099, 2.17881,
      2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387, 2.06866, 2.06390,
      2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; ``half`` is half of its 95 % interval, None where one seed tells nothing of it."""

    mean: float
    half: float | None
    values: tuple[float, ...]

    @property
    def differs(self) -> bool | None:
        """Whether the interval leaves 0 out; None without an interval."""
        return None if self.half is None else abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Mean:
    """The mean and ``t · s / √n`` (Student 1908), with t of n - 1 degrees of freedom and s the sample's deviation.

    It covers what changes with the seed (first weights, order of the data, noise) and neither the choice of the
    corpus nor that of the held-out texts. At most 31 values.
    """
    n = len(values)
    half = None if n < 2 else _T[n - 2] * statistics.stdev(values) / math.sqrt(n)
    return Mean(statistics.fmean(values), half, tuple(values))


def paired(before: Sequence[float], after: Sequence[float]) -> Mean:
    """``after - before``, seed by seed: what is common to a seed falls out of the interval."""
    return interval([b - a for a, b in zip(before, after, strict=True)])


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the greatest; equal values share the mean of their ranks."""
    return [1 + sum(b > a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's: Pearson's correlation of the ranks; None where one side is constant."""
    a, b = ranks(one), ranks(other)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return statistics.correlation(a, b)
