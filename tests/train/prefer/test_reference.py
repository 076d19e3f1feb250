"""What names the log-probs of a reference that are kept: weights, pieces and computation, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amauta.data.batches import Piece
from amauta.device import pick
from amauta.hub import Found, find_model
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import reference_file
from amauta.train.prefer import reference as referring
from amauta.train.prefer.reference import Reference

PIECES = [Piece(np.array([3, 4, 5, 6]), np.array([False, True, True])), Piece(np.array([3, 7]), np.array([True]))]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    monkeypatch.setenv("AMAUTA_CACHE", str(tmp_path / "cache"))
    exchange.save(Transformer.create(Spec(vocabulary=9, context=16, width=8, layers=1, heads=2), 0), tmp_path / "model")
    return find_model(tmp_path / "model")


def test_what_the_name_of_kept_logprobs_tells(found: Found):
    cpu = pick("cpu", "f32")
    reference = Reference(found, cpu, rows=2, length=8)
    name = reference.key(PIECES)
    assert Reference(found, cpu, rows=2, length=8).key(list(PIECES)) == name
    others = [
        replace(reference, rows=3).key(PIECES),
        replace(reference, length=9).key(PIECES),
        replace(reference, device=pick("cpu", "bf16")).key(PIECES),
        reference.key(PIECES[:1]),
        reference.key(PIECES[::-1]),
        reference.key([PIECES[0]._replace(loss=np.array([True, True, True])), PIECES[1]]),
        reference.key([PIECES[0], Piece(np.array([3, 8]), np.array([True]))]),
        reference.key([Piece(np.array([3, 4, 5, 6, 3, 7]), np.array([False, True, True, True, True]))]),
    ]
    assert len({name, *others}) == 9


def test_kept_logprobs_are_those_of_the_model_bit_for_bit(found: Found, monkeypatch: pytest.MonkeyPatch):
    made = Reference(found, pick("cpu", "f32"), rows=2, length=8).logprobs(PIECES)
    model = exchange.load(found.path)
    wanted = [float(model.score(piece.ids.tolist())[torch.from_numpy(piece.loss)].sum()) for piece in PIECES]
    assert made.tolist() == pytest.approx(wanted, abs=1e-5)
    monkeypatch.setattr(referring, "read_weights", lambda *_, **__: pytest.fail("weights were read"))
    kept = Reference(found, pick("cpu", "f32"), rows=2, length=8, own=False)
    assert torch.equal(kept.logprobs(PIECES), made) and kept.model is None


def test_what_is_kept_of_other_answers_is_not_taken(found: Found):
    reference = Reference(found, pick("cpu", "f32"), rows=2, length=8)
    wanted = reference.logprobs(PIECES)
    referring._write(reference_file(reference.key(PIECES)), torch.zeros(3))
    assert torch.equal(reference.logprobs(PIECES), wanted)


def test_a_frozen_reference_is_not_the_policy(found: Found):
    policy = exchange.load(found.path)
    frozen = Reference(found, pick("cpu", "f32"), rows=2, length=8, model=policy).frozen()
    policy.embedding.weight.data.zero_()
    assert frozen.embedding.weight.abs().sum() > 0 and not any(p.requires_grad for p in frozen.parameters())
    assert policy.embedding.weight.requires_grad
