"""The cache's rows, moved and doubled."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amauta.nn.cache import Cache

L, B, S, G, K = 2, 4, 6, 2, 3


def filled(lengths):
    """A cache whose every slot holds another number."""
    cache = Cache(L, B, S, G, K)
    cache.keys.copy_(torch.arange(cache.keys.numel()).view(cache.keys.shape))
    cache.values.copy_(-cache.keys)
    cache.lengths.copy_(torch.tensor(lengths))
    cache.across[0] = (torch.arange(B)[:, None], torch.arange(B)[:, None] + 10)
    cache.across_mask = torch.arange(B)[:, None] > 1
    return cache


@given(
    places=st.lists(st.integers(0, B - 1), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, S), min_size=B, max_size=B),
)
def test_kept_rows_are_the_rows_that_were_asked_for(places, lengths):
    before, cache = filled(lengths), filled(lengths)
    cache.keep(places)
    assert cache.lengths.tolist() == [lengths[place] for place in places]
    assert cache.rows[:, 0].tolist() == list(range(len(places)))
    for row, place in enumerate(places):
        used = lengths[place]
        assert torch.equal(cache.keys[:, row, :used], before.keys[:, place, :used])
        assert torch.equal(cache.values[:, row, :used], before.values[:, place, :used])
    assert cache.across[0][0][:, 0].tolist() == places and cache.across[0][1][:, 0].tolist() == [p + 10 for p in places]
    assert cache.across_mask is not None and cache.across_mask[:, 0].tolist() == [place > 1 for place in places]


def test_rows_that_stay_are_not_copied():
    cache = filled([3, 3, 3, 3])
    memory, rest = cache.keys.data_ptr(), cache.keys[:, :, 3:].clone()
    cache.keep([0, 1, 1, 3])
    assert cache.keys.data_ptr() == memory
    assert torch.equal(cache.keys[:, :, 3:], rest)  # nothing beyond what is filled
    assert cache.keys.shape == (L, B, S, G, K)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2], [3, 1]])
def test_a_part_reads_and_writes_its_own_rows(rows):
    cache = filled([3, 3, 3, 3])
    part = cache.part(rows)
    new = torch.randn(len(rows), 1, G, K)
    part.write(1, new, -new, torch.full((len(rows), 1), 3))
    keys, values = part.read(1, 4)
    assert torch.equal(keys[:, 3:], new) and torch.equal(values[:, 3:], -new)
    assert torch.equal(keys[:, :3], filled([3] * 4).keys[1, rows, :3])
    assert torch.equal(cache.keys[1, rows, 3], new[:, 0])
    others = [row for row in range(B) if row not in rows]
    assert torch.equal(cache.keys[1, others], filled([3] * 4).keys[1, others])
