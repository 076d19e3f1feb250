"""Listing every answer against plain recursion, and what greedy search misses."""

import math

import pytest
import torch

from amauta.base.errors import ConfigError
from amauta.decode.generate import generate
from amauta.decode.search.exhaustive import count, exhaustive, mass
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from tests.decode.search.models import END, Told, answers, ranked, transformer
from tests.decode.toy import Markov, word_bytes

TREE = {"a": {"b": 0.5, "c": 0.4, "d": 0.1}, "b": {"e": 0.4, "g": 0.3, "h": 0.3}, "c": {"f": 0.9, "i": 0.1}}


def tree_model():
    table = torch.full((9, 9), -1e9)
    for i in range(9):
        for name, p in TREE.get(chr(97 + i), {chr(97 + i): 1.0}).items():
            table[i, ord(name) - 97] = math.log(p)
    return Markov(table)


def test_the_likeliest_answer_is_not_the_greedy_one():
    model, two = tree_model(), Sampling(max_tokens=2)
    [greedy] = generate(model, [[0]], Sampling(max_tokens=2, temperature=0), token_bytes=word_bytes)
    assert greedy.text == "be" and math.exp(sum(greedy.logprobs)) == pytest.approx(0.20)
    [found] = search(model, [[0]], two, Search(beams=2, returned=2, length_penalty=0), token_bytes=word_bytes)
    assert [(one.text, pytest.approx(math.exp(one.score))) for one in found] == [("cf", 0.36), ("be", 0.20)]
    every = exhaustive(model, [0], two, Search(length_penalty=0), token_bytes=word_bytes)
    assert every[0].text == "cf" and math.exp(every[0].score) == pytest.approx(0.36)
    assert mass(every) == pytest.approx(1)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0, 2.0])
@pytest.mark.parametrize("make", [lambda: Told(4, seed=3), lambda: transformer(3, vocabulary=4)])
def test_every_answer_is_there_with_its_score(make, penalty):
    model = make()
    found = exhaustive(model, [1, 2], Sampling(max_tokens=4), Search(length_penalty=penalty), stop_ids=[END])
    expected = ranked(answers(model, [1, 2], 4), penalty)
    assert len(found) == count(4, 1, 4) == len(expected)
    assert [(tuple(one.ids), one.score) for one in found] == [
        (ids, pytest.approx(score, abs=1e-4)) for score, ids in expected
    ]
    assert mass(found) == pytest.approx(1, abs=1e-5)
    assert {one.finish for one in found if one.ids[-1] == END} == {"stop"}
    assert {one.finish for one in found if one.ids[-1] != END} == {"length"}


def test_what_cannot_come_is_left_out():
    found = exhaustive(Told(4), [1], Sampling(max_tokens=3, min_tokens=2, ban_ids=(2,)), stop_ids=[END])
    assert {tuple(one.ids) for one in found} == {
        ids for ids in answers(Told(4), [1], 3) if 2 not in ids and END not in ids[:2]
    }


def test_too_many_answers_are_refused_before_they_are_listed():
    assert count(5, 2, 3) == 2 + 3 * 2 + 9 * 2 + 27
    with pytest.raises(ConfigError, match="65536 sequences of up to 8"):
        exhaustive(Told(4), [1], Sampling(max_tokens=8), most=65535)
    assert len(exhaustive(Told(4), [1], Sampling(max_tokens=3), most=64)) == 64


def test_an_encoder_decoder_reads_its_source():
    model = transformer(2, vocabulary=5, kind="encoder-decoder", decoder_start=1)
    found = exhaustive(model, [1], Sampling(max_tokens=3), Search(length_penalty=0), stop_ids=[END], source=[2, 3, 4])
    best = found[0]
    hidden = model(torch.tensor([[2, 3, 4]]), decoder_ids=torch.tensor([[1, *best.ids[:-1]]]))
    logprobs = model.logits(hidden).log_softmax(-1)[0].detach()
    assert best.score == pytest.approx(sum(float(logprobs[t, id]) for t, id in enumerate(best.ids)), abs=1e-4)
    other = exhaustive(model, [1], Sampling(max_tokens=3), Search(length_penalty=0), stop_ids=[END], source=[4, 4])
    assert other[0].score != pytest.approx(best.score, abs=1e-3)
