"""Least and most lengths, stop ids and stop texts, bans and penalties, seen in what a request writes token by token."""

import math

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.decode.sample import Row, choose
from amauta.decode.settings import Sampling
from tests.decode.toy import word_bytes

# a -> b .5, c .3, e .2; b -> e .6, a .4; c -> e .9, c .1; d -> d; e -> a; the letters are the ids 0 to 4
TABLE = torch.tensor(
    [
        [0.0, 0.5, 0.3, 0.0, 0.2],
        [0.4, 0.0, 0.0, 0.0, 0.6],
        [0.0, 0.0, 0.1, 0.0, 0.9],
        [0.0, 0.0, 0.0, 1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0],
    ]
).log()
END = 4


def write(prompt=(0,), ends=(END,), **settings):
    """The ids written, their text, the reason of the end, and the log-probs of what was drawn from."""
    one = Sampling(**{"temperature": 0, "max_tokens": 6} | settings)
    row = Row(0, list(prompt), one, word_bytes, ends)
    text, drawn = "", []
    while True:
        [chosen] = choose(TABLE[row.ids[-1]].unsqueeze(0), [row])
        step = row.take(*chosen)
        text += step.text
        drawn.append(step.sampled_logprob)
        if step.finish:
            return row.ids[len(prompt) :], text, step.finish, drawn


def test_the_models_end_the_requests_end_and_the_length():
    assert write() == ([1, 4], "b", "stop", [0, 0])
    assert write(stop_ids=(1,)) == ([1], "", "stop", [0])  # besides the model's
    assert write(stop_ids=(3,))[0] == [1, 4]
    assert write(ends=())[:3] == ([1, 4, 0, 1, 4, 0], "beabea", "length")


@pytest.mark.parametrize(("least", "expected"), [(0, [1, 4]), (1, [1, 4]), (2, [1, 0, 1, 4]), (3, [1, 0, 1, 4])])
def test_nothing_ends_an_answer_before_its_least_length(least, expected):
    assert write(min_tokens=least)[0] == expected
    assert write(min_tokens=least, prompt=(0, 0, 0, 0))[0] == expected  # the prompt does not count


def test_as_many_tokens_as_are_asked_for():
    assert write(min_tokens=6)[:3] == ([1, 0, 1, 0, 1, 0], "bababa", "length")
    assert write(min_tokens=6, stop_ids=(0,), prompt=(2,))[:3] == ([2] * 6, "cccccc", "length")


def test_a_stop_text_that_spans_tokens_ends_an_answer_even_before_its_least_length():
    assert write(stop=("aba",), min_tokens=6)[:3] == ([1, 0, 1, 0], "b", "stop-string")
    assert write(stop=("zz", "ab"), ends=())[:3] == ([1, 4, 0, 1], "be", "stop-string")
    assert write(stop=("abx",), min_tokens=4)[:3] == ([1, 0, 1, 0, 1, 4], "babab", "stop")  # held back, then shown


def test_where_all_that_may_follow_is_forbidden_the_request_fails():
    with pytest.raises(ModelError, match="no token may come next"):
        write(prompt=(4,), ban_ids=(0,))  # after e only a has any probability
    with pytest.raises(ModelError, match="no token may come next"):
        write(prompt=(3,), ends=(3,), min_tokens=1)


def test_a_ban_and_what_was_drawn_from():
    assert write(ban_ids=(1,))[0] == [2, 4]
    assert write(ban_ids=("0 1",))[0] == [2, 4]
    assert write(ban_ids=("2 4", 1), max_tokens=4)[0] == [2, 2, 2, 2]
    ids, _, _, drawn = write(temperature=1.0, ban_ids=(1,), seed=5)
    shares = {(2, 4): (0.6, 0.9), (4,): (0.4,), (2, 2, 4): (0.6, 0.1, 0.9)}
    assert [math.exp(x) for x in drawn] == pytest.approx(list(shares[tuple(ids)]), abs=1e-6)


def test_a_repetition_that_is_forbidden_or_penalised():
    loop = {"prompt": (2,), "ban_ids": ("2 4",), "max_tokens": 3}
    assert write(**loop)[0] == [2, 2, 2]
    with pytest.raises(ModelError):
        write(**loop, no_repeat_ngram_size=2)  # the second c c is the first to come again
    free = {"ends": (), "max_tokens": 4}
    assert write(**free)[0] == [1, 4, 0, 1]
    assert write(**free, no_repeat_ngram_size=2)[0] == [1, 4, 0, 2]  # a b came before
    assert write(**free, presence_penalty=0.6)[0] == [1, 4, 0, 2]  # log .5 - .6 is below log .3
    assert write(**free, presence_penalty=0.5)[0] == [1, 4, 0, 1]
    assert write(**free, prompt=(1, 0), presence_penalty=0.6)[0] == [1, 4, 0, 2]  # the b of the prompt does not count
    assert write(**free, prompt=(1, 0), repetition_penalty=2.0)[0] == [2, 4, 0, 1]  # here it does
