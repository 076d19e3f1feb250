"""Masking: which tokens a masked language model must guess, and what it sees in their places
(Devlin et al. 2019, arXiv 1810.04805, section 3.1).

Everything here is a function of its arguments and of the generator that is passed. ``candidates`` (T,) says which
tokens may be chosen: never special ones, never padding.
"""

import numpy as np

from amauta.losses.token import IGNORE

LONGEST = 3  # words of an n-gram (Lan et al. 2019, arXiv 1909.11942, section 4.1)


def budget(candidates: int, rate: float, most: float = 1.0) -> int:
    """How many of ``candidates`` tokens are chosen where the number is exact: ``max(1, round(rate · n))``, and not
    beyond the share ``most`` of them (BERT's data: 20 of 128)."""
    if candidates == 0:
        return 0
    return max(1, min(round(rate * candidates), int(most * candidates)))


def choose_each(candidates: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Each candidate with probability ``rate``, independently: (T,) bool."""
    return candidates & (rng.random(len(candidates)) < rate)


def choose_exactly(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of the candidates, every set of that size equally likely: (T,) bool."""
    chosen = np.zeros(len(candidates), dtype=bool)
    chosen[rng.permutation(np.flatnonzero(candidates))[:count]] = True
    return chosen


def choose_words(
    candidates: np.ndarray, starts: np.ndarray, count: int, rng: np.random.Generator, *, longest: int = 1
) -> np.ndarray:
    """Whole words in random order until ``count`` tokens are chosen: (T,) bool, never more than ``count``.

    ``starts`` (T,) is True where a token begins a word; a word ends where a token is no candidate. With ``longest``
    above 1, runs of n words, n drawn with probability (1/n) / Σ 1/k (ALBERT: 6/11, 3/11, 2/11 for 1, 2, 3). A run that
    would pass the budget loses words at its end, and is passed over when its first word does.
    """
    chosen = np.zeros(len(candidates), dtype=bool)
    before = np.concatenate(([False], candidates[:-1]))
    first = np.flatnonzero(candidates & (starts | ~before))  # of each word
    stop = np.append(np.flatnonzero(~candidates), len(candidates))
    last = np.minimum(np.append(first[1:], len(candidates)), stop[np.searchsorted(stop, first)])  # one beyond each word
    shares = 1 / np.arange(1, longest + 1)
    runs = rng.choice(np.arange(1, longest + 1), size=len(first), p=shares / shares.sum())
    left = count
    for word in rng.permutation(len(first)).tolist():
        if left <= 0:
            break
        for nth in range(word, word + int(runs[word])):
            # a run goes on only over words that touch, and takes a word whole or not at all
            if nth >= len(first) or (nth > word and last[nth - 1] != first[nth]) or chosen[first[nth]]:
                break
            size = int(last[nth] - first[nth])
            if size > left:
                break
            chosen[first[nth] : last[nth]] = True
            left -= size
    return chosen


def hide(
    ids: np.ndarray,
    chosen: np.ndarray,
    rng: np.random.Generator,
    *,
    mask: int,
    ordinary: np.ndarray,
    as_mask: float = 0.8,
    as_random: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """What the model reads and what it must guess: (T,) ids and (T,) targets, IGNORE outside ``chosen``.

    Of the chosen tokens a share ``as_mask`` becomes ``mask``, ``as_random`` a random one (it may be the token itself)
    and the rest stays. Random tokens come from ``ordinary``, the ids that a text can have: in BERT's code they come
    from the whole vocabulary, special ids included.
    """
    targets = np.where(chosen, ids, IGNORE).astype(np.int64)
    seen = ids.astype(np.int64)
    places = np.flatnonzero(chosen)
    drawn = rng.random(len(places))
    seen[places[drawn < as_mask]] = mask
    swapped = places[(drawn >= as_mask) & (drawn < as_mask + as_random)]
    seen[swapped] = rng.choice(ordinary, size=len(swapped))
    return seen, targets
