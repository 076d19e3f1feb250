"""From counts to probabilities, order by order, all vectorised.

Every estimator but stupid backoff has the form

    p_k(w|h) = kept(hw) + gamma(h) * below(w|h)

where ``kept`` is what the counts of order k give, ``gamma(h)`` is the mass that they leave, and ``below`` is p_{k-1}
after the history without its oldest token, or the uniform distribution (add-k). A history that was never seen has
gamma 1. Order 0 is uniform over the V-1 ids that can be predicted: all but ``begin``.

Pruned n-grams (raw count <= the order's threshold) go, and what they kept goes to gamma (lmplz's rule); discounts and
totals are those of all n-grams.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from amauta.base.errors import ConfigError
from amauta.models.ngram.distinct import Ints
from amauta.models.ngram.kneser_ney import (
    FALLBACK,
    Floats,
    adjusted,
    counts_of_counts,
    one_discount,
    taken,
    three_discounts,
)  # fmt: skip
from amauta.models.ngram.room import Room
from amauta.models.ngram.trie import Trie
from amauta.models.ngram_settings import Estimator


@dataclass(frozen=True)
class Table:
    """The probabilities of one order, in nats."""

    log_p: Floats  # (N,) of each n-gram of this order, all orders below already mixed in
    log_gamma: Floats  # (nodes of the order below,) mass of a history left to what stands below; 0 where never seen
    discounts: tuple[float, ...] = ()  # Kneser-Ney's one, or the three of its modified form
    fallback: bool = False  # the discounts are not the corpus's own, which cannot be computed


@dataclass(frozen=True)
class _Block:
    """A run of histories with successors, and these."""

    nodes: slice
    first: Ints  # (histories,) the place in ``nodes`` at which each history's successors begin
    number: Ints  # (histories,) how many it has
    histories: Ints  # (histories,)


def estimate(
    trie: Trie, suffixes: list[Ints], estimator: Estimator, room: Room | None = None
) -> tuple[Trie, list[Table]]:
    """The trie of the n-grams that stay, and a Table for each of its orders, lowest first.

    Maximum likelihood, interpolated Kneser-Ney with one discount, modified Kneser-Ney (``kneser_ney.py``), Witten-Bell
    (Witten and Bell 1991, method C, interpolated), add-k (Lidstone) and stupid backoff (Brants et al. 2007, equation 5:
    scores, not probabilities). Maximum likelihood after a history never seen uses the longest part of it that was.
    """
    assert trie.counts is not None
    room = room or Room(1)
    thresholds = pruning(estimator.prune, trie.order)
    kneser_ney = estimator.smoothing in ("kneser-ney", "modified-kneser-ney")
    weights = adjusted(trie, suffixes, room) if kneser_ney else trie.counts
    uniform = np.full(trie.size, 1 / max(1, trie.size - 1))
    uniform[trie.begin] = 0.0
    tables: list[Table] = []
    below = uniform
    for level in range(trie.order):
        discounts, fallback = _discounts(estimator, weights[level], level, room)
        lower = below if estimator.chain else uniform
        p = room.array(len(trie.tokens[level]), np.float64)
        log_p = room.array(len(p), np.float64)
        log_gamma = room.array(len(trie.starts[level]) - 1, np.float64, fill=estimator.log_unseen)
        for block in _blocks(trie, level, room):
            lost = trie.counts[level][block.nodes] <= thresholds[level] if thresholds[level] else None
            under = lower[
                suffixes[level][block.nodes] if level and estimator.chain else trie.tokens[level][block.nodes]
            ]
            w = weights[level][block.nodes].astype(np.float64)
            p[block.nodes], gamma = _smoothed(w, lost, under, discounts, block, estimator, level, trie.size)
            with np.errstate(divide="ignore"):  # log 0 is -inf, and meant
                log_gamma[block.histories] = np.log(gamma)
                log_p[block.nodes] = np.log(p[block.nodes])
            room.release(p, log_p, log_gamma, lower, weights[level], suffixes[level], trie.tokens[level])
        tables.append(Table(log_p, log_gamma, discounts, fallback))
        below = p
    return _pruned(trie, tables, thresholds) if any(thresholds) else (trie, tables)


def pruning(prune: tuple[int, ...], order: int) -> list[int]:
    """The threshold of every order: the last one given stands for those above. ConfigError for what cannot be."""
    given = list(prune) or [0]
    if given[0] or len(given) > max(1, order) or sorted(given) != given:
        raise ConfigError("ngram.bad-prune", prune=",".join(map(str, prune)), order=order)
    return given + given[-1:] * (order - len(given))


def _blocks(trie: Trie, level: int, room: Room) -> Iterator[_Block]:
    """All nodes of a level, whole histories at a time."""
    starts, nodes = trie.starts[level], len(trie.tokens[level])
    low = 0
    while low < len(starts) - 1:
        limit = int(starts[low]) + room.block
        high = max(low + 1, int(np.searchsorted(starts, limit, side="right")) - 1) if limit < nodes else len(starts) - 1
        part = starts[low : high + 1].astype(np.int64)
        number = np.diff(part)
        met = np.flatnonzero(number)
        if len(met):
            yield _Block(slice(int(part[0]), int(part[-1])), part[:-1][met] - part[0], number[met], low + met)
        low = high


def _smoothed(
    w: Floats, lost: Ints | None, under: Floats, discounts: tuple[float, ...], block: _Block,
    estimator: Estimator, level: int, size: int,
) -> tuple[Floats, Floats]:  # fmt: skip
    """p of each n-gram of a block, (N,), and gamma of each of its histories; ``lost``: which n-grams are pruned."""
    total = np.add.reduceat(w, block.first)
    bare = level == 0 and estimator.base == "none"
    if estimator.smoothing == "stupid-backoff":
        alpha = estimator.alpha
        seen = w > 0
        p = np.where(seen, w / np.repeat(total, block.number), 0.0 if bare else alpha * under)
        return p, np.full(len(total), alpha)
    away = taken(w, discounts) if discounts else np.zeros(len(w))  # of each count to gamma
    scale, extra = total, np.zeros(len(total))
    if estimator.smoothing == "add-k":
        extra = np.full(len(total), estimator.k * (size - 1))
    elif estimator.smoothing == "witten-bell" and not bare:
        extra = np.add.reduceat((w > 0).astype(np.float64), block.first)
    scale = total + extra
    if lost is not None:
        away[lost] = w[lost]
    gamma = (np.add.reduceat(away, block.first) + extra) / scale
    p = (w - away) / np.repeat(scale, block.number) + np.repeat(gamma, block.number) * under
    return p, gamma


def _discounts(estimator: Estimator, weights: Ints, level: int, room: Room) -> tuple[tuple[float, ...], bool]:
    """What is taken from the counts of this level, and whether that is a fallback."""
    if estimator.smoothing not in ("kneser-ney", "modified-kneser-ney"):
        return (), False
    if level == 0 and estimator.base == "none":
        return (0.0,), False
    if estimator.smoothing == "modified-kneser-ney":
        three = three_discounts(counts_of_counts(weights, room))
        return three or _fallback(estimator.fallback_discounts), three is None
    if estimator.discount is not None:
        return (estimator.discount,), False
    one = one_discount(counts_of_counts(weights, room))
    return (FALLBACK if one is None else one,), one is None


def _fallback(given: tuple[float, ...]) -> tuple[float, ...]:
    if len(given) != 3 or not all(0 <= value <= j for j, value in enumerate(given, start=1)):
        raise ConfigError("ngram.bad-fallback", given=",".join(map(str, given)))
    return given


def _pruned(trie: Trie, tables: list[Table], thresholds: list[int]) -> tuple[Trie, list[Table]]:
    assert trie.counts is not None
    kept = [counts > threshold for counts, threshold in zip(trie.counts, thresholds, strict=True)]
    kept[0][:] = True  # the vocabulary stays
    histories = [np.ones(1, bool), *kept[:-1]]
    smaller = [
        Table(table.log_p[stays], table.log_gamma[above], table.discounts, table.fallback)
        for table, stays, above in zip(tables, kept, histories, strict=True)
    ]
    return trie.without(kept), smaller
