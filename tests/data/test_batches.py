"""Batches: each token predicted exactly once, a stream that can be taken up anywhere."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from amauta.base.errors import DataError
from amauta.data import store
from amauta.data.batches import Listed, PackedBatches, Piece, Stored, collate
from amauta.losses.token import IGNORE


def documents(n: int = 40) -> list[np.ndarray]:
    """Documents whose every token is unique, some longer than a row."""
    sizes = np.random.default_rng(1).integers(2, 30, n)
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    made = store.write(tmp_path / "s", ((d, len(d)) for d in documents()), vocabulary=10_000, fingerprint="f")
    return Stored(made, length=12)


def test_every_token_but_the_first_of_a_document_is_predicted_once(stored: Stored):
    predicted: Counter[int] = Counter()
    pairs: set[tuple[int, int]] = set()
    for batch in PackedBatches(stored, rows=3, length=12, epochs=1):
        wanted = batch.targets != IGNORE
        predicted.update(batch.targets[wanted].tolist())
        pairs |= set(zip(batch.ids[wanted].tolist(), batch.targets[wanted].tolist(), strict=True))
    assert predicted == Counter(int(t) for d in documents() for t in d[1:])
    assert all(b == a + 1 for a, b in pairs)  # unique tokens: a neighbour is of the same document


def test_a_row_by_hand():
    units = Listed([
        (Piece(np.array([5, 6, 7])),),
        (Piece(np.array([1, 2, 3, 4]), np.array([False, False, True])),),
    ])  # fmt: skip
    batch = collate(units, [[0, 1], []], length=6)
    assert batch.ids.tolist() == [[5, 6, 1, 2, 3, 0], [0] * 6]
    assert batch.targets.tolist() == [[6, 7, IGNORE, IGNORE, 4, IGNORE], [IGNORE] * 6]
    assert batch.positions.tolist() == [[0, 1, 0, 1, 2, 0], [0] * 6]
    assert batch.documents.tolist() == [[1, 1, 2, 2, 2, 0], [0] * 6]
    assert batch.supervised() == 3


def test_a_stream_goes_on_from_its_state(stored: Stored):
    def stream() -> PackedBatches:
        return PackedBatches(stored, rows=4, length=12, seed=3)

    whole = stream()
    first = [next(whole) for _ in range(25)]  # several epochs
    for stop in (1, 7, 18):
        one = stream()
        for _ in range(stop):
            next(one)
        two = stream()
        two.restore(one.state())
        for wanted in first[stop:]:
            found = next(two)
            assert torch.equal(found.ids, wanted.ids) and torch.equal(found.targets, wanted.targets)


def test_a_stream_does_not_go_on_with_other_data():
    def stream(*sizes: int) -> PackedBatches:
        return PackedBatches(Listed([(Piece(np.arange(size)),) for size in sizes]), rows=2, length=12)

    one = stream(5, 7, 9)
    next(one)
    stream(5, 7, 9).restore(one.state())
    for other in ((5, 7, 8), (5, 9, 7), (5, 7, 9, 4)):
        with pytest.raises(DataError, match="not what it was"):
            stream(*other).restore(one.state())


def test_any_batch_of_the_past_is_found_again(stored: Stored):
    stream, again = (PackedBatches(stored, rows=4, length=12, seed=3) for _ in range(2))
    for step in range(25):
        wanted = next(stream)
        again.seek(step)
        assert torch.equal(next(again).ids, wanted.ids)


def test_seed_and_epoch_change_the_order_and_nothing_else(stored: Stored):
    stream = PackedBatches(stored, rows=4, length=12, seed=3)
    orders = [stream.plan(0), stream.plan(1), PackedBatches(stored, rows=4, length=12, seed=4).plan(0)]
    flat = [[unit for row in plan for unit in row] for plan in orders]
    assert len({tuple(f) for f in flat}) == 3
    assert len({tuple(sorted(f)) for f in flat}) == 1
    assert orders[0] == PackedBatches(stored, rows=4, length=12, seed=3).plan(0)


def test_batches_keep_their_shape_to_the_end(stored: Stored):
    shapes = {tuple(batch.ids.shape) for batch in PackedBatches(stored, rows=5, length=12, epochs=1)}
    assert shapes == {(5, 12)}
