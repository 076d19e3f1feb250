"""BART's noise: lengths of spans as Poisson draws them, the text found again, sentences only moved."""

import numpy as np
from scipy.stats import chisquare, poisson

from amauta.data import denoise

MASK = -1


def test_infilling_hides_the_share_and_can_be_filled_again():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        text = rng.integers(10, 99, int(rng.integers(1, 120)))
        noised, lengths = denoise.infill(text, MASK, rng)
        assert lengths.sum() == round(0.3 * len(text)) and len(lengths) == (noised == MASK).sum()
        assert len(noised) <= len(text)
        at, left = 0, iter(lengths.tolist())
        for id in noised.tolist():  # walking along the text, each mask stands for as many tokens as it says
            if id == MASK:
                at += next(left)
            else:
                assert text[at] == id
                at += 1
        assert at == len(text)


def test_lengths_of_spans_are_poisson():
    rng = np.random.default_rng(1)
    drawn = np.concatenate([denoise.infill(np.arange(20_000), MASK, rng)[1][:-1] for _ in range(10)])
    observed = np.bincount(np.minimum(drawn, 9), minlength=10)
    shares = np.append(poisson.pmf(np.arange(9), 3), poisson.sf(8, 3))
    assert chisquare(observed, shares * len(drawn)).pvalue > 1e-3
    assert (drawn == 0).any()


def test_masks_stand_anywhere_alike():
    """The first and the last place are masked as often as any other arrangement would have it."""
    ends, share = np.zeros(2), 0.0
    for seed in range(4000):
        noised, lengths = denoise.infill(np.arange(100, 130), MASK, np.random.default_rng(seed))
        ends += [noised[0] == MASK, noised[-1] == MASK]
        share += len(lengths) / len(noised)
    assert np.all(np.abs(ends - share) < 4 * np.sqrt(share))


def test_sentences_move_as_wholes():
    text = np.array([1, 2, 9, 3, 9, 4, 5, 6, 9, 7])  # 9 ends a sentence; the last has no end
    seen = set()
    for seed in range(300):
        found = denoise.permute(text, text == 9, np.random.default_rng(seed)).tolist()
        assert sorted(found) == sorted(text.tolist())
        text_of = " ".join(map(str, found))
        assert all(part in text_of for part in ("1 2 9", "3 9", "4 5 6 9", "7"))
        seen.add(text_of)
    assert len(seen) == 24


def test_a_prefix_ends_anywhere_alike():
    rng = np.random.default_rng(0)
    counts = np.bincount([denoise.split(11, rng) for _ in range(5000)], minlength=12)
    assert counts[0] == counts[11] == 0
    assert chisquare(counts[1:11]).pvalue > 1e-3
