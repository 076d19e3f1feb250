"""Masking: proportions by chi-square, budgets to the token, words whole."""

import numpy as np
import pytest
from scipy.stats import chisquare

from amauta.data import masked
from amauta.losses.token import IGNORE

MASK, V = 4, 1000
ORDINARY = np.arange(8, V)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def likely(observed: list[int], shares: list[float]) -> None:
    """The counts could well have come from these shares."""
    assert chisquare(observed, np.array(shares) / sum(shares) * sum(observed)).pvalue > 1e-3


def test_fifteen_percent_of_a_million_and_eighty_ten_ten():
    ids = rng(1).integers(8, V, 1_000_000)
    candidates = np.ones(len(ids), dtype=bool)
    candidates[::10] = False
    chosen = masked.choose_each(candidates, 0.15, rng(2))
    n = int(chosen.sum())
    assert not chosen[::10].any()
    likely([n, 900_000 - n], [0.15, 0.85])
    seen, targets = masked.hide(ids, chosen, rng(3), mask=MASK, ordinary=ORDINARY)
    assert ((targets != IGNORE) == chosen).all() and (targets[chosen] == ids[chosen]).all()
    assert (seen[~chosen] == ids[~chosen]).all()
    hidden, same = seen[chosen] == MASK, seen[chosen] == ids[chosen]
    drawn_itself = 0.1 / len(ORDINARY)  # a random token may be the token itself
    likely(
        [int(hidden.sum()), int((~hidden & ~same).sum()), int(same.sum())],
        [0.8, 0.1 - drawn_itself, 0.1 + drawn_itself],
    )
    random = seen[chosen][~hidden & ~same]
    assert random.min() >= 8  # never a special token
    likely(np.bincount(random - 8, minlength=len(ORDINARY)).tolist(), [1.0] * len(ORDINARY))


@pytest.mark.parametrize(
    ("n", "most", "wanted"), [(0, 1.0, 0), (1, 1.0, 1), (3, 1.0, 1), (100, 1.0, 15), (128, 0.1, 12)]
)
def test_the_exact_budget(n: int, most: float, wanted: int):
    assert masked.budget(n, 0.15, most) == wanted


def test_an_exact_number_of_which_every_token_is_as_likely():
    candidates = np.array([False] + [True] * 10 + [False])
    counts = np.zeros(12, dtype=int)
    for seed in range(3000):
        chosen = masked.choose_exactly(candidates, 3, rng(seed))
        assert chosen.sum() == 3
        counts += chosen
    assert counts[0] == counts[-1] == 0
    likely(counts[1:-1].tolist(), [1.0] * 10)


def words_of(starts: np.ndarray) -> np.ndarray:
    return np.cumsum(starts)


@pytest.mark.parametrize("longest", [1, 3])
def test_words_are_hidden_whole_and_within_the_budget(longest: int):
    reached = []
    for seed in range(300):
        g = rng(seed)
        n = int(g.integers(5, 80))
        starts = g.random(n) < 0.6
        candidates = np.ones(n, dtype=bool)
        candidates[[0, n - 1]] = False
        starts[[0, 1, n - 1]] = True
        count = int(g.integers(1, 20))
        chosen = masked.choose_words(candidates, starts, count, rng(seed), longest=longest)
        assert chosen.sum() <= count and not chosen[~candidates].any()
        for word in np.unique(words_of(starts)):
            mine = words_of(starts) == word
            assert chosen[mine & candidates].all() or not chosen[mine].any()
        reached.append(chosen.sum() == min(count, n - 2))
    assert np.mean(reached) > 0.8  # short of the budget only where what is left are longer words


def test_lengths_of_runs_are_six_three_and_two_elevenths():
    n = 40_000
    ones = np.ones(n, dtype=bool)
    counts = np.zeros(3, dtype=int)
    chosen = masked.choose_words(ones, ones, 40, rng(5), longest=3)
    for seed in range(150):  # few of many, so that two runs hardly ever touch
        chosen = masked.choose_words(ones, ones, 40, rng(seed), longest=3)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(int), [0]))))
        lengths = edges[1::2] - edges[::2]
        whole = lengths[lengths <= 3]
        counts += np.bincount(whole, minlength=4)[1:]
    likely(counts.tolist(), [6 / 11, 3 / 11, 2 / 11])
