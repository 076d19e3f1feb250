"""T5's span corruption (Raffel et al. 2020, arXiv 1910.10683, section 3.1.4; lengths as in the authors' code): spans of
a text become one sentinel each, and the target says what stood behind every sentinel.

As in the code and unlike the paper's illustration the target has no final sentinel. A text begins with kept tokens and
ends with a span.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DENSITY, MEAN = 0.15, 3.0


class Amount(NamedTuple):
    """How much of a text of some length is corrupted, and how long what becomes of it is."""

    noise: int  # tokens
    spans: int
    source: int  # tokens that the encoder reads, the end included
    target: int  # tokens that the decoder writes, the end included


def amount(length: int, density: float = DENSITY, mean: float = MEAN) -> Amount:
    """Of a text of ``length`` tokens, which must be at least 2: ``n = clip(round(density · L), 1, L-1)`` of noise in
    ``k = max(1, round(n / mean))`` spans, at most as many as tokens are kept."""
    assert length >= 2, "a text of one token has nothing to keep beside its span"
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(1, round(noise / mean)), length - noise)
    return Amount(noise, spans, length - noise + spans + 1, noise + spans + 1)


def longest(source: int, density: float = DENSITY, mean: float = MEAN) -> int:
    """The most tokens of text whose corrupted form has at most ``source`` tokens, the end included (512 → 568)."""
    length = 2
    while amount(length + 1, density, mean).source <= source:
        length += 1
    return length


def composition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """``parts`` positive whole numbers that add up to ``total``, every such list equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))


def draw(length: int, rng: np.random.Generator, density: float = DENSITY, mean: float = MEAN) -> np.ndarray:
    """Random spans of a text of ``length`` tokens: (T,) bool, True on noise."""
    noise, spans, *_ = amount(length, density, mean)
    kept = composition(length - noise, spans, rng)
    lengths = np.stack((kept, composition(noise, spans, rng)), axis=1).ravel()  # kept, noise, kept, noise …
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def corrupt(
    ids: np.ndarray, noise: np.ndarray, sentinels: Sequence[int] | np.ndarray, end: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of a text whose spans are where ``noise`` (T,) is True; ``end`` closes both, unless None.

    There must be as many sentinels as spans.
    """
    ids, first = np.asarray(ids, dtype=np.int64), _firsts(noise)
    marks = np.asarray(sentinels, dtype=np.int64)[: int(first.sum())]
    assert len(marks) == int(first.sum()), "fewer sentinels than spans"
    with_marks = ids.copy()
    with_marks[first] = marks
    source = with_marks[~noise | first]
    own = np.cumsum(noise) + np.cumsum(first) - 1  # where each token of noise stands in the target
    target = np.empty(int(noise.sum()) + len(marks), dtype=np.int64)
    target[own[noise]] = ids[noise]
    target[own[first] - 1] = marks
    tail = [] if end is None else [end]
    return np.concatenate((source, tail)).astype(np.int64), np.concatenate((target, tail)).astype(np.int64)


def restore(
    source: np.ndarray, target: np.ndarray, sentinels: Sequence[int] | np.ndarray, end: int | None
) -> np.ndarray:
    """The text that ``corrupt`` made both from. Sentinels that the text itself held would be taken for marks."""
    marks = set(np.asarray(sentinels).tolist())
    tail = 0 if end is None else 1
    found: dict[int, list[int]] = {}
    current: list[int] = []
    for id in target[: len(target) - tail].tolist():
        if id in marks:
            current = found.setdefault(id, [])
        else:
            current.append(id)
    text: list[int] = []
    for id in source[: len(source) - tail].tolist():
        text += found[id] if id in marks else [id]
    return np.array(text, dtype=np.int64)


def _firsts(noise: np.ndarray) -> np.ndarray:
    """The first token of each span: (T,) bool."""
    return noise & ~np.concatenate(([False], noise[:-1]))
