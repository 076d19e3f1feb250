"""Batches of whole examples: layout, order, padding, shares of tasks."""

from collections import Counter

import pytest

from amauta.base.errors import DataError
from amauta.data.buckets import Bucketed, Laid, batch_of
from amauta.losses.token import IGNORE


def laid(*lengths: int) -> list[Laid]:
    return [Laid([[n + 1] * size], [[0] * size], label=n, number=n) for n, size in enumerate(lengths)]


def test_rows_are_padded_to_the_longest():
    batch = batch_of([Laid([[5, 6, 7]], [[0, 0, 1]], label=1, number=4), Laid([[8]], [[0]], label=0, number=9)])
    assert batch.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.real is not None and batch.real.tolist() == [[True] * 3, [True, False, False]]
    assert batch.segments is not None and batch.segments.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.units == [[4], [9]]
    assert batch.counts() == Counter(tokens=4, slots=6, examples=2)
    assert batch_of(laid(3, 5), multiple=4).ids.shape == (2, 8)


def test_what_is_written_stands_behind_the_row_or_apart():
    examples = [Laid([[5, 6]], [[0, 0]], written=[7, 8, 1]), Laid([[9]], [[0]], written=[1])]
    behind = batch_of(examples)
    assert behind.ids.tolist() == [[5, 6, 7, 8], [9, 0, 0, 0]]
    assert behind.targets.tolist() == [[IGNORE, 7, 8, 1], [1, IGNORE, IGNORE, IGNORE]]
    apart = batch_of(examples, start=3)
    assert apart.ids.tolist() == [[5, 6], [9, 0]]
    assert apart.decoder_ids is not None and apart.decoder_ids.tolist() == [[3, 7, 8], [3, 0, 0]]
    assert apart.targets.tolist() == [[7, 8, 1], [1, IGNORE, IGNORE]]


def test_spoken_rows_carry_a_loss_on_every_token_but_the_first():
    batch = batch_of([Laid([[5, 6, 7]], [[0] * 3], label=0, spoken=True), Laid([[8, 9]], [[0] * 2], label=0)])
    assert batch.targets.tolist() == [[6, 7, IGNORE], [9, IGNORE, IGNORE]]


def test_several_rows_belong_to_one_example():
    batch = batch_of([Laid([[1], [2, 3]], [[0], [0, 0]], label=1), Laid([[4]], [[0]], label=0)])
    assert batch.owner is not None and batch.owner.tolist() == [0, 0, 1]
    assert batch.nth is not None and batch.nth.tolist() == [0, 1, 0]
    assert batch.examples == 2 and batch.ids.shape == (3, 2)


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own():
    stream = Bucketed(laid(*range(1, 60)), rows=4, seed=3)
    for epoch in (0, 1):
        assert sorted(n for batch in stream.plan(epoch) for n in batch) == list(range(59))
    assert stream.plan(0) != stream.plan(1) == Bucketed(laid(*range(1, 60)), rows=4, seed=3).plan(1)


def test_like_lengths_stand_together_and_padding_is_counted():
    stream = Bucketed(laid(*[1, 9] * 40), rows=4, seed=3)
    assert stream.padding() == 0
    one = Bucketed(laid(1, 3), rows=2, seed=3)
    assert one.padding() == pytest.approx(1 - 4 / 6)


def test_a_resumed_stream_goes_on_with_the_batch_that_would_have_come():
    stream = Bucketed(laid(*range(1, 30)), rows=4, seed=3)
    for _ in range(11):  # into the second epoch
        next(stream)
    state = stream.state()
    wanted = [next(stream).ids.tolist() for _ in range(5)]
    again = Bucketed(laid(*range(1, 30)), rows=4, seed=3)
    again.restore(state)
    assert [next(again).ids.tolist() for _ in range(5)] == wanted
    with pytest.raises(DataError):
        Bucketed(laid(*range(2, 31)), rows=4, seed=3).restore(state)


def test_tasks_are_seen_in_proportion_to_their_size_up_to_the_cap():
    stream = Bucketed(laid(*[3] * 130), rows=8, seed=3, tasks=[100, 10, 20], cap=15)
    seen = Counter[int]()
    for epoch in range(20):
        shown = [n for batch in stream.plan(epoch) for n in batch]
        assert Counter((n >= 100) + (n >= 110) for n in shown) == {0: 15, 1: 10, 2: 15}
        assert len(set(shown)) == 40
        seen.update(shown)
    assert sum(n < 100 for n in seen) > 80  # another draw every epoch
