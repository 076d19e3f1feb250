"""Bits per byte against sums worked by hand."""

import math

import numpy as np
import pytest

from amauta.base.errors import DataError, ModelError
from amauta.bits import bits_per_byte, measure
from amauta.models.ngram import NGram

HALF = math.log(0.5)


def test_bits_tokens_and_bytes_by_hand() -> None:
    documents = [([0, 5, 1], 3, None), ([0, 5, 5, 5, 1], 9, None)]
    seen = []

    def score_many(many):
        seen.extend(list(ids) for ids in many)
        return [4 * HALF, 20 * HALF]

    found = measure(score_many, documents)
    assert seen == [[0, 5, 1], [0, 5, 5, 5, 1]]
    assert found == {
        "bits_per_byte": pytest.approx(24 / 12),
        "bits_per_token": pytest.approx(24 / 6),  # 2 + 4 predicted: the end counts, the beginning does not
        "perplexity": pytest.approx(16),
        "tokens": 6,
        "bytes": 12,
        "documents": 2,
    }


def test_entropy_and_excess_need_every_exact_value() -> None:
    documents = [([0, 1], 4, 3 * HALF), ([0, 1], 4, 5 * HALF)]
    found = measure(lambda many: np.array([4 * HALF, 6 * HALF]), documents)
    assert found["entropy_bits_per_byte"] == pytest.approx(1.0)
    assert found["excess"] == pytest.approx(0.25)
    some = measure(lambda many: [4 * HALF, 6 * HALF], [documents[0], ([0, 1], 4, None)])
    assert "excess" not in some and "entropy_bits_per_byte" not in some
    sure = measure(lambda many: [HALF], [([0, 1], 1, 0.0)])
    assert sure["excess"] is None


def test_a_uniform_model_over_bytes_pays_eight_bits_and_the_end() -> None:
    model = NGram.train([], size=258, begin=256, order=0)  # 256 bytes and the end can be predicted
    found = bits_per_byte(model, [([256, *b"hola", 257], 4, None), ([256, *b"mundo!", 257], 6, None)])
    assert found["perplexity"] == pytest.approx(257)
    assert found["bits_per_byte"] == pytest.approx(math.log2(257) * 12 / 10)


def test_the_models_own_score_and_its_batched_path_agree() -> None:
    corpus = [[0, *np.random.default_rng(seed).integers(1, 6, 9).tolist(), 7] for seed in range(8)]
    model = NGram.train(corpus, size=8, begin=0, order=3)
    documents = [(ids, 9, None) for ids in corpus]
    one, many = bits_per_byte(model, documents), measure(model.score_many, documents)
    assert one == pytest.approx(many, rel=1e-12)


def test_probability_zero_is_infinite_and_no_error() -> None:
    found = measure(lambda many: [-math.inf], [([0, 1], 2, HALF)])
    assert found["bits_per_byte"] == found["perplexity"] == found["excess"] == math.inf
    assert measure(lambda many: [-5000.0], [([0, 1], 2, None)])["perplexity"] == math.inf


def test_what_cannot_be_measured_is_an_error() -> None:
    for nothing in ([], [([0], 3, None)], [([0, 1], 0, None)]):
        with pytest.raises(DataError, match="nothing to measure"):
            measure(lambda many: [HALF for _ in many], nothing)
    pair = [([0, 1], 2, None), ([0, 1], 2, None)]
    with pytest.raises(ModelError, match="document 2"):
        measure(lambda many: [HALF, math.nan], pair)
    with pytest.raises(ModelError, match="0.5"):
        measure(lambda many: [0.5, HALF], pair)
    with pytest.raises(ModelError, match="1 log-probabilities for 2"):
        measure(lambda many: [HALF], pair)
