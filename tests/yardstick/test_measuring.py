"""Halves, pairs and pseudo-log-likelihood against sums over plain logits."""

import math

import numpy as np
import pytest
import torch

from amauta.device import pick
from amauta.models.ngram import NGram
from amauta.models.transformer import Transformer
from amauta.yardstick.ground import Ground
from amauta.yardstick.measuring import Counted, Neural, figures, halved, parted
from amauta.yardstick.systems import ENCODER, FAMILIES
from amauta.yardstick.training import first_weights
from tests.yardstick.conftest import small

CPU = pick("cpu", "f32")
HALVES = [([9, 300, 17], [44, 45, 350, 2]), ([60], [61, 62])]
PAIRS = [("the llama sleeps", "the llama sleep"), ("Marta lives here", "Marta lives there"), ("uno dos", "dos uno")]


def neural(number: int, ground: Ground) -> Neural:
    model = first_weights(FAMILIES[number].spec(small(), ground.opened()), 5)
    with torch.no_grad():  # first weights say nearly the same of everything
        for weight in model.parameters():
            weight.mul_(4.0)
    return Neural(model, ground.opened(), CPU)


def logprobs(model: Transformer, hidden: torch.Tensor) -> torch.Tensor:
    return model.logits(hidden).float().log_softmax(-1)[0]


@torch.no_grad()
def test_a_decoders_halves(ground: Ground):
    own = neural(2, ground)
    for (first, second), found in zip(HALVES, own.halves(HALVES), strict=True):  # type: ignore[arg-type]
        row = torch.tensor([[own.tokenizer.begin, *first, *second]])
        log_p = logprobs(own.model, own.model(row))
        places = range(len(first), len(first) + len(second))
        assert found == pytest.approx(sum(float(log_p[at, row[0, at + 1]]) for at in places), abs=1e-4)


@torch.no_grad()
def test_an_encoder_decoders_halves(ground: Ground):
    own = neural(1, ground)
    for (first, second), found in zip(HALVES, own.halves(HALVES), strict=True):  # type: ignore[arg-type]
        read = torch.tensor([[*first, own.tokenizer.end]])
        written = torch.tensor([[own.tokenizer.pad, *second[:-1]]])
        log_p = logprobs(own.model, own.model(read, decoder_ids=written))
        assert found == pytest.approx(sum(float(log_p[at, id]) for at, id in enumerate(second)), abs=1e-4)


def test_an_n_gram_models_halves(ground: Ground):
    tokenizer = ground.opened()
    rows = [tokenizer.document(text) for text in ground.texts(ground.train)[:40]]
    model = NGram.train(rows, size=tokenizer.size, begin=tokenizer.begin, order=3, tokenizer=tokenizer)
    for (first, second), found in zip(HALVES, Counted(model).halves(HALVES), strict=True):
        prefix = [tokenizer.begin, *first]
        total = sum(float(model.next_logprobs([*prefix, *second[:at]])[id]) for at, id in enumerate(second))
        assert found == pytest.approx(total, abs=1e-9)


@torch.no_grad()
def test_an_encoder_prefers_by_guessing_each_token(ground: Ground):
    own = neural(0, ground)
    mask = next(id for id, name in own.tokenizer.names.items() if name == "[MASK]")

    def naive(text: str) -> float:
        ids, total = own.tokenizer.around(text)[0], 0.0
        for at in range(1, len(ids) - 1):  # not [CLS] and [SEP]
            hidden = own.model(torch.tensor([[*ids[:at], mask, *ids[at + 1 :]]]))
            total += float(own.model.logits(hidden, output="masked").float().log_softmax(-1)[0, at, ids[at]])
        return total

    values = [[naive(text) for text in pair] for pair in PAIRS]
    assert own.pseudo([text for pair in PAIRS for text in pair]) == pytest.approx(np.array(values).ravel(), abs=1e-3)
    assert own.preferred(PAIRS) == sum(good > bad for good, bad in values) / 3
    assert own.halves(HALVES) is None


@pytest.mark.parametrize("number", [1, 2])
def test_preferring_is_comparing_whole_texts(number: int, ground: Ground):
    """A decoder's whole log-probabilities; of an encoder-decoder what follows the tokens that both begin with."""
    own = neural(number, ground)
    hits = 0
    for pair in PAIRS:
        if number == 2:
            values = [float(own.model.score(own.tokenizer.document(text)).sum()) for text in pair]
        else:
            values = [float(own.written([half])[0]) for half in parted(own.tokenizer, pair)]
        hits += values[0] > values[1]
    assert own.preferred(PAIRS) == pytest.approx(hits / len(PAIRS))


def test_a_tie_is_wrong(ground: Ground):
    assert neural(2, ground).preferred([("the same", "the same")]) == 0.0


def test_texts_are_parted_where_they_begin_to_differ(ground: Ground):
    tokenizer = ground.opened()
    for pair in [*PAIRS, ("a b c", "a b c d"), ("x", "y")]:
        (one, good), (other, bad) = parted(tokenizer, pair)
        assert one == other and good and bad
        assert [one + good, other + bad] == [tokenizer.encode(text) for text in pair]
        assert good[0] != bad[0] or min(len(good), len(bad)) == 1


def test_bytes_of_second_halves(ground: Ground):
    tokenizer = ground.opened()
    texts = ["El mercado de Sallapata abre mañana.", "ab", "Marta is a weaver and lives here."]
    halves, size = halved(tokenizer, texts, 8)
    rebuilt = [tokenizer.decode([*first, *second]) for first, second in halves]
    assert all(text.startswith(part) for text, part in zip((texts[0], texts[2]), rebuilt, strict=True))
    assert size == sum(len(tokenizer.decode(second).encode()) for _, second in halves)
    assert all(len(first) == 4 and len(second) == 4 for first, second in halves)


def test_figures_are_named_by_what_is_exact(ground: Ground):
    found = [figures(neural(number, ground), small(), ground) for number in range(3)]
    names = [set(one) - {"probes", "entropy_bits_per_byte"} for one in found]
    assert names == [{"pseudo"}, {"continuation"}, {"bits_per_byte", "continuation"}]
    assert all(set(one["probes"]) == {"order", "facts"} for one in found)
    some = ground.texts(ground.heldout)[:2]  # the settings' pseudo
    bits = -float(neural(0, ground).pseudo(some).sum()) / math.log(2)
    assert found[0]["pseudo"] == pytest.approx(bits / sum(len(text.encode()) for text in some))
    halves, size = halved(ground.opened(), ground.texts(ground.heldout), 48)
    total = float(neural(2, ground).halves(halves).sum())  # type: ignore[union-attr]
    assert found[2]["continuation"] == pytest.approx(-total / math.log(2) / size)
    assert ENCODER is FAMILIES[0]
