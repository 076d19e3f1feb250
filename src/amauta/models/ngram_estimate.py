"""From counts to probabilities: maximum likelihood, add-k and interpolated Kneser-Ney, all vectorised.

Every estimator here has the form

    p_k(w|h) = kept(hw) + gamma(h) * below(w|h)

where ``kept`` is what the counts of order k give, ``gamma(h)`` is the mass that they leave, and ``below`` is p_{k-1}
after the history without its oldest token (``chain``) or the uniform distribution (add-k). A history that was never
seen has gamma 1. Order 0 is uniform over the V-1 ids that can be predicted: all but ``begin``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amauta.models.ngram_counts import Counts, Ints
from amauta.models.ngram_settings import Estimator

Floats = NDArray[np.float64]
FALLBACK = 0.5  # the discount of an order without n-grams seen once or twice (lmplz's fallback for a count of 1)


@dataclass(frozen=True)
class Table:
    """The probabilities of one order, in nats."""

    log_p: Floats  # (N,) of each n-gram of this order, all orders below already mixed in
    log_gamma: Floats  # (nodes of the order below,) mass of a history left to what stands below; 0 where never seen
    discount: float


def estimate(counts: Counts, estimator: Estimator) -> list[Table]:
    """A Table for each order of ``counts``, lowest first.

    Kneser-Ney (Kneser and Ney 1995, interpolated as in Chen and Goodman 1999): the highest order discounts its raw
    counts, a lower one the number of distinct tokens that stand before the n-gram, except n-grams at the start of a
    document, where nothing stands before and the raw count is kept (Heafield et al. 2013). The discount of an order,
    where none is given, is n1 / (n1 + 2 n2) of its own counts of counts; 0.5 where n1 or n2 is 0, so that an unknown
    token keeps a probability. Maximum likelihood after a history never seen uses the longest part of it that was.
    """
    uniform = np.full(counts.size, 1 / (counts.size - 1))
    uniform[counts.begin] = 0.0
    suffixes, tables, below = counts.suffixes(), [], uniform
    weights = _adjusted(counts, suffixes) if estimator.smoothing == "kneser-ney" else counts.counts
    for level in range(counts.order):
        history, token = counts.split(level)
        total = counts.totals(level, weights[level])
        discount = _discount(estimator, weights[level], level)
        if estimator.smoothing == "add-k":
            added = estimator.k * (counts.size - 1)
            kept, left, scale = weights[level], np.full(len(total), added), total + added
        else:
            kept = np.maximum(weights[level] - discount, 0.0)
            left, scale = discount * counts.totals(level, weights[level] > 0), total
        seen = total > 0
        gamma = np.divide(left, scale, out=np.ones(len(total)), where=seen)
        share = np.divide(kept, scale[history], out=np.zeros(len(kept)), where=seen[history])
        lower = below[suffixes[level]] if estimator.chain else uniform[token]
        below = share + gamma[history] * lower
        with np.errstate(divide="ignore"):  # log 0 is -inf, and meant
            tables.append(Table(np.log(below), np.log(gamma), discount))
    counts.forget()
    return tables


def _adjusted(counts: Counts, suffixes: list[Ints]) -> list[Ints]:
    """Kneser-Ney's counts: raw at the highest order, below it the number of distinct left neighbours, (N,) a level."""
    adjusted = list(counts.counts)
    for level, start in enumerate(counts.at_start()[:-1]):
        neighbours = np.bincount(suffixes[level + 1], minlength=len(counts.keys[level]))
        adjusted[level] = np.where(start, counts.counts[level], neighbours)
    return adjusted


def _discount(estimator: Estimator, weights: Ints, level: int) -> float:
    """What is taken from each count of this level."""
    if estimator.smoothing != "kneser-ney" or (level == 0 and estimator.base == "none"):
        return 0.0
    if estimator.discount is not None:
        return estimator.discount
    once, twice = int(np.count_nonzero(weights == 1)), int(np.count_nonzero(weights == 2))
    return once / (once + 2 * twice) if once and twice else FALLBACK
