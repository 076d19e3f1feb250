"""Scoring in packed batches equals scoring each sequence alone."""

import numpy as np
import pytest
import torch

from amauta.data.batches import Batch, Piece
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.score import by_piece, piece_logprobs, piece_sums, pseudo_logprobs, sequence_logprobs


@pytest.fixture
def model() -> Transformer:
    made = Transformer.create(Spec(vocabulary=40, context=16, width=32, layers=2, heads=4), seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def sequences(n: int = 30, longest: int = 16) -> list[list[int]]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 40, rng.integers(2, longest + 1)).tolist() for _ in range(n)]


def test_equals_each_sequence_alone(model: Transformer):
    wanted = [float(model.score(ids).double().sum()) for ids in sequences()]
    np.testing.assert_allclose(sequence_logprobs(model, sequences(), rows=3), wanted, rtol=1e-5)


def test_a_loss_mask_chooses_among_the_tokens(model: Transformer):
    many = sequences()
    masks = [(np.arange(len(ids) - 1) % 2 == 0).tolist() for ids in many]
    wanted = [float(model.score(ids)[torch.tensor(mask)].double().sum()) for ids, mask in zip(many, masks, strict=True)]
    np.testing.assert_allclose(sequence_logprobs(model, many, loss=masks, rows=4), wanted, rtol=1e-5, atol=1e-6)


def test_beyond_the_context_a_sequence_is_read_in_pieces(model: Transformer):
    ids = list(range(40)) * 2
    pieces = [ids[0:17], ids[16:33], ids[32:49], ids[48:65], ids[64:81]]
    wanted = sum(float(model.score(piece).double().sum()) for piece in pieces)
    assert sequence_logprobs(model, [ids], rows=2)[0] == pytest.approx(wanted, rel=1e-5)


def test_short_sequences_score_0_and_nothing_is_empty(model: Transformer):
    assert sequence_logprobs(model, [[3], [], [3, 4]], rows=2)[:2].tolist() == [0, 0]
    assert sequence_logprobs(model, [], rows=2).tolist() == []


def test_training_mode_is_left_as_it_was(model: Transformer):
    model.train()
    sequence_logprobs(model, sequences(3), rows=2)
    assert model.training


def test_piece_sums_by_hand():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]])
    documents = torch.tensor([[1, 1, 2, 0], [1, 2, 3, 3]])
    assert piece_sums(values, documents, 3).tolist() == [[3, 4, 0], [1, 1, 2]]


def test_pseudo_logprobs_hide_each_token_in_turn():
    fields = {"positions": "learned", "norm": "layer", "norm_place": "post", "activation": "gelu", "gated": False}
    spec = Spec(vocabulary=40, context=16, width=32, layers=2, heads=4, kind="encoder", outputs=("masked",), **fields)
    model = Transformer.create(spec, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.05)
    model.eval()
    mask, special, wanted = 39, {0, 1}, []
    for ids in sequences(12):
        total = 0.0
        for t in range(len(ids)):
            if ids[t] not in special:
                hidden = torch.tensor([[*ids[:t], mask, *ids[t + 1 :]]])
                with torch.no_grad():
                    total += float(model.logits(model(hidden))[0, t].log_softmax(-1)[ids[t]])
        wanted.append(total)
    for rows in (1, 7, 500):
        found = pseudo_logprobs(model, sequences(12), mask, special=special, rows=rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_values_of_pieces_are_those_of_each_alone(model: Transformer):
    rng = np.random.default_rng(4)
    many = [Piece(np.array(ids), rng.random(len(ids) - 1) < 0.7) for ids in sequences(12)]
    found = piece_logprobs(model.train(), many, rows=3)
    assert model.training
    for piece, values in zip(many, found, strict=True):
        wanted = np.where(piece.loss, model.eval().score(piece.ids.tolist()).numpy(), 0.0)
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
    several = by_piece(model, many, lambda batch: torch.stack([batch.ids, batch.positions]), rows=3)
    for piece, (ids, positions) in zip(many, several, strict=True):
        assert ids.tolist() == piece.ids[:-1].tolist() and positions.tolist() == list(range(len(ids)))


def test_rows_are_no_longer_and_no_more_than_the_pieces_need(model: Transformer):
    shapes: list[tuple[int, ...]] = []

    def value(batch: Batch) -> torch.Tensor:
        shapes.append(tuple(batch.ids.shape))
        return batch.ids

    by_piece(model, [Piece(np.array([1, 2, 3])), Piece(np.array([4, 5, 6, 7, 8]))], value)
    assert shapes == [(2, 4)] and by_piece(model, [], value) == []


def test_a_long_context_costs_nothing_where_sequences_are_short(model: Transformer, monkeypatch: pytest.MonkeyPatch):
    from amauta import score

    seen = []
    real = score.batch_logprobs
    monkeypatch.setattr(
        score, "batch_logprobs", lambda *given, **more: seen.append(given[1].ids.shape) or real(*given, **more)
    )
    sequence_logprobs(model, [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]], rows=32)
    assert seen == [(3, 3)]  # three rows of three slots, in a context of 16
