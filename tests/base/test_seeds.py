"""Seeds: the same on every machine and for ever, different and independent for every purpose."""

import itertools

import pytest

from amauta.base.seeds import derive


@pytest.mark.parametrize(
    ("words", "seed"),
    [  # from coreutils: printf '7\x1fshuffle\x1f0' | b2sum -l 64, without its lowest bit
        ((7,), 8333924190356522945),
        ((7, "shuffle", 0), 8919707275907011870),
        ((7, "shuffle", 1), 1438834363174320373),
        ((8, "shuffle", 0), 8232157119132677116),
        ((0, "ñandú"), 5846027038931255463),
    ],
)
def test_a_seed_is_a_fixed_number(words: tuple[int, str], seed: int):
    """When this fails, no finished run can be made again: change the derivation only with that in mind."""
    assert derive(*words) == seed


def test_every_purpose_has_a_seed_of_its_own():
    purposes = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", 1), ("a", 11), ("a", 1, 1), ("A",)]
    seeds = {derive(seed, *purpose) for seed, purpose in itertools.product((0, 1, 7, -7, 2**70), purposes)}
    assert len(seeds) == 5 * len(purposes)


def test_words_count_by_their_text():
    assert derive(7, "epoch", 3) == derive(7, "epoch", "3")


def test_seeds_fill_63_bits_evenly():
    """Each bit of 2000 seeds is set half of the time, within 5 standard deviations (0.056)."""
    seeds = [derive(seed, "bits") for seed in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    shares = [sum(seed >> bit & 1 for seed in seeds) / len(seeds) for bit in range(63)]
    assert max(abs(share - 0.5) for share in shares) < 0.056


@pytest.mark.parametrize(("one", "other"), [((0, "a"), (0, "b")), ((0, "a"), (1, "a")), ((0, "a", 1), (0, "a", 2))])
def test_purposes_are_independent(one: tuple[int, str], other: tuple[int, str]):
    """Over 2000 pairs, two purposes or two neighbouring seeds share half of their bits: 31.5 of 63, within 5 errors
    of the mean (0.44).
    """
    pairs = [(derive(one[0] + k, *one[1:]), derive(other[0] + k, *other[1:])) for k in range(0, 4000, 2)]
    shared = sum(63 - (a ^ b).bit_count() for a, b in pairs) / len(pairs)
    assert abs(shared - 31.5) < 0.44
