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


def eight_bits(rows: int = 3, slots: int = 6) -> Cache:
    """Every slot of every row filled, a number of its own scale in each head."""
    cache = Cache(2, rows, slots, 2, 4, dtype=torch.int8)
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        x = torch.randn(2, rows, slots, 2, 4, generator=generator) * torch.rand(
            2, rows, slots, 2, 1, generator=generator
        )
        cache.write(layer, x[0], x[1], torch.arange(slots).expand(rows, slots))
    cache.lengths += slots
    return cache


def test_eight_bits_round_each_head():
    x = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    x[0, 0, 1] = 0
    cache = Cache(1, 2, 5, 2, 4, dtype=torch.int8)
    cache.write(0, x, 10 * x, torch.tensor([[0, 1, 2], [2, 3, 4]]))
    keys, values = cache.read(0, 5)
    assert cache.keys.dtype == torch.int8 and keys.dtype == torch.float32
    for b, t, g in ((0, 0, 0), (0, 0, 1), (1, 2, 1)):
        head, step = x[b, t, g], float(x[b, t, g].abs().max()) / 127
        wanted = [round(float(value) / step) * step if step else 0.0 for value in head]
        at = t + 2 * b
        assert keys[b, at, g].tolist() == pytest.approx(wanted, abs=1e-6)
        assert values[b, at, g].tolist() == pytest.approx([10 * value for value in wanted], abs=1e-5)
    plain = Cache(1, 2, 5, 2, 4)
    assert sum(one.nbytes for one in cache.held) == sum(one.nbytes for one in plain.held) // 4 + 2 * 2 * 5 * 2 * 4


def test_eight_bits_move_with_their_scales():
    cache = eight_bits()
    before = [cache.read(layer, 6) for layer in range(2)]
    cache.copy(0, 2, 4)
    for layer in range(2):
        for now, then in zip(cache.read(layer, 6), before[layer], strict=True):
            assert torch.equal(now[2, :4], then[0, :4]) and torch.equal(now[2, 4:], then[2, 4:])
    for places in ([1, 0, 0], [2, 1], [0, 0, 1, 2]):
        cache = eight_bits()
        cache.keep(places)
        for layer in range(2):
            for now, then in zip(cache.read(layer, 6), before[layer], strict=True):
                assert torch.equal(now, then[places])
    for rows in ([1], [2, 0]):
        part = eight_bits().part(rows)
        for now, then in zip(part.read(1, 5), before[1], strict=True):
            assert torch.equal(now, then[rows, :5])
    part = eight_bits().part([1])
    part.write(0, torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.tensor([[3]]))
    assert torch.allclose(part.read(0, 6)[0][0, 3], torch.ones(2, 4))
