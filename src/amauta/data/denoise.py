"""BART's noise (Lewis et al. 2020, arXiv 1910.13461, section 2.2) and the split of a prefix language model.

Infilling: spans whose lengths are drawn from Poisson(3) become one mask each, a span of length 0 a mask between two
tokens. Where the paper leaves it open: spans are drawn until they cover the budget (the last is cut to it), and all
arrangements of masks among the kept tokens are equally likely, masks side by side included; there are never more masks
than hidden tokens, so that the noised text is never longer than the text.
"""

import numpy as np

RATE, MEAN = 0.3, 3.0


def infill(
    ids: np.ndarray, mask: int, rng: np.random.Generator, rate: float = RATE, mean: float = MEAN
) -> tuple[np.ndarray, np.ndarray]:
    """The text with ``round(rate · T)`` of its tokens hidden, and the lengths of the spans behind its masks."""
    hidden = min(len(ids), round(rate * len(ids)))
    lengths = _lengths(hidden, mean, rng)
    kept, spans = len(ids) - hidden, len(lengths)
    masked = np.zeros(kept + spans, dtype=bool)
    masked[rng.permutation(kept + spans)[:spans]] = True
    steps = np.ones(kept + spans, dtype=np.int64)  # how many tokens of the text each place stands for
    steps[masked] = lengths
    at = np.cumsum(steps) - steps
    noised = np.full(kept + spans, mask, dtype=np.int64)
    noised[~masked] = ids[at[~masked]]
    return noised, lengths


def permute(ids: np.ndarray, ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sentences of a text in random order; ``ends`` (T,) is True on the last token of a sentence."""
    parts = np.split(ids, np.flatnonzero(ends[:-1]) + 1)
    return np.concatenate([parts[i] for i in rng.permutation(len(parts))])


def split(length: int, rng: np.random.Generator) -> int:
    """How many first tokens are the prefix: 1 … length - 1, all equally likely (T5, section 3.2.3)."""
    return int(rng.integers(1, length))


def _lengths(total: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Lengths of spans that cover ``total`` tokens, those of length 0 among them; at most ``total`` lengths."""
    if total == 0:
        return np.zeros(0, dtype=np.int64)
    drawn = rng.poisson(mean, size=total)
    covered = np.cumsum(drawn)
    last = int(np.searchsorted(covered, total))  # the span with which the budget is met
    lengths = drawn[: last + 1].astype(np.int64)
    lengths[-1] += total - int(lengths.sum())  # cut to the budget, or stretched where too many had length 0
    return lengths
