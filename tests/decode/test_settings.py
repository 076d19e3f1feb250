"""The settings of a request: what contradicts, where each comes from, and texts that become ids."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ConfigError
from amauta.cli._flags import parse
from amauta.cli.generate import Generate
from amauta.config import build
from amauta.decode import settings as module
from amauta.decode.filters.sequences import banned, biased
from amauta.decode.settings import Sampling, from_generation_config, settled, spread

ORIGIN = "generation_config.json"


def encode(text):
    """A token a letter; a space joins the letter after it."""
    return [ord(letter) + 1000 * spaced for spaced, letter in _letters(text)]


def _letters(text):
    spaced = False
    for letter in text:
        if letter == " ":
            spaced = True
            continue
        yield spaced, letter
        spaced = False


A, B, SPACED = ord("a"), ord("b"), 1000


# One object


def test_what_is_active_is_what_is_not_at_its_default():
    assert Sampling().active == frozenset()
    assert Sampling(top_k=0, top_p=0.5, ban_ids=(3,)).active == {"top_p", "ban_ids"}
    one = Sampling(top_p=0.5)
    assert one.active and dataclasses.replace(one, top_p=1.0).active == frozenset()  # kept with no copy
    assert dataclasses.asdict(one).keys() == {field.name for field in dataclasses.fields(Sampling)}
    assert hash(one) == hash(Sampling(top_p=0.5))


def test_lists_become_tuples():
    assert Sampling(ban_ids=[3, "4 9"], stop=["a"]) == Sampling(ban_ids=(3, "4 9"), stop=("a",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9 and max_tokens is 8"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"ban_ids": ["x"]}, "'x' is no token id"),
        ({"bias_ids": ["3"]}, "'3' is no bias"),
        ({"bias_ids": ["a=3"]}, "'a' is no token id"),
        ({"bias": ["Luis"]}, "'Luis' is no bias"),
    ],
)
def test_what_cannot_be_read_is_an_error_where_it_is_built(values, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)
    if not any(value != value or value == float("inf") for value in values.values() if isinstance(value, float)):
        with pytest.raises(ConfigError, match=message):
            build(Sampling, values)


def test_settings_come_whole_through_json():
    one = Sampling(ban=("a",), ban_ids=(3, "4 9"), bias=("a=1",), bias_ids=("3=-1",), stop_ids=(2,), min_tokens=4)
    assert build(Sampling, json.loads(json.dumps(dataclasses.asdict(one)))) == one


# Texts and ids


def test_texts_become_ids_and_the_models_stops_are_added():
    one = Sampling(ban=("ab",), ban_ids=(7,), bias=("b=2.5", "a=-1"), bias_ids=("9=1",), stop_ids=(5,))
    found = one.resolved(encode, stop_ids=(2, 5))
    assert not found.active & module.TEXTS
    assert set(banned(found.ban_ids)) == {(7,), (A, B), (A + SPACED, B)}
    assert biased(found.bias_ids) == {(9,): 1, (B,): 2.5, (B + SPACED,): 2.5, (A,): -1, (A + SPACED,): -1}
    assert found.stop_ids == (2, 5)
    assert found.resolved(encode, stop_ids=(2,), size=5000) == found  # again changes nothing
    assert one.ban == ("ab",)  # what is echoed


def test_without_texts_no_tokenizer_is_needed():
    one = Sampling(ban_ids=(1,))
    assert one.resolved() is one and one.resolved(size=2) is one
    assert Sampling().resolved(stop_ids=[4, 3]).stop_ids == (3, 4)


@pytest.mark.parametrize("name", ["ban", "bias"])
def test_texts_without_a_tokenizer_are_named(name):
    with pytest.raises(ConfigError, match=f"{name} holds texts, and the model has no tokenizer.*{name}_ids"):
        Sampling(**{name: ("a=1",)}).resolved()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ban_ids": (9, "3 10")}, "ban_ids holds token id 10; the model knows 0 to 9"),
        ({"bias_ids": ("10 3=1",)}, "bias_ids holds token id 10"),
        ({"stop_ids": (11,)}, "stop_ids holds token id 11"),
        ({"stop_ids": (-1,)}, "stop_ids holds token id -1"),
        ({"ban_ids": (*range(10), "1 2")}, "forbid all 10 tokens"),
    ],
)
def test_ids_are_checked_against_the_vocabulary(values, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**values).resolved(size=10)
    assert Sampling(ban_ids=(*range(9), "9 9"), stop_ids=(9,)).resolved(size=10)


# Contradictions


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temperature": 0, "top_k": 5, "min_p": 0.1}, "so top_k, min_p can have no effect"),
        ({"temperature": 0, "typical_p": 0.5}, "so typical_p can"),
        ({"temperature": 0, "eta_cutoff": 0.5}, "so eta_cutoff can"),
        ({"ban": ["Luis"], "bias": ["Luis=2"]}, "'Luis' is banned and has the bias 2.0"),
        ({"ban_ids": ["3 4"], "bias_ids": ["3 4=1"]}, "3 4 is banned and has the bias 1.0"),
        ({"ban": ["a"], "bias_ids": [f"{A + SPACED}=1"]}, f"{A + SPACED} is banned and has the bias"),
        ({"ban_ids": [A], "bias": ["a=3"]}, f"{A} is banned and has the bias 3.0"),
        ({"ban_ids": [7], "stop_ids": [7]}, "Token id 7 is in stop_ids and is banned"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9 and max_tokens is 8"),
    ],
)
def test_what_the_user_asks_for_must_be_able_to_have_an_effect(asked, message):
    with pytest.raises(ConfigError, match=message):
        settled(asked, {}, ORIGIN, encode=encode)


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0, "top_k": 0, "top_p": 1.0},  # off
        {"temperature": 0, "repetition_penalty": 1.1, "ban_ids": [3], "min_tokens": 3},  # greedy choice heeds these
        {"ban_ids": [3, "4 5"], "bias_ids": ["5=2", "3=-1"], "stop_ids": [4]},
        {"ban": ["a"], "bias": ["ab=1"]},
        {"ban": ["a"], "bias": ["a=-1"]},
        {"top_k": 3},
        {"min_tokens": 256},
    ],
)
def test_what_can_have_an_effect_is_let_through(asked):
    settled(asked, {}, ORIGIN, encode=encode)


def test_texts_are_compared_without_a_tokenizer_as_they_are():
    with pytest.raises(ConfigError, match="'a' is banned"):
        settled({"ban": ["a"], "bias": ["a=1"]}, {}, ORIGIN)
    settled({"ban": ["a"], "bias_ids": [f"{A}=1"]}, {}, ORIGIN)


@pytest.mark.parametrize(
    ("asked", "defaults"),
    [
        ({"temperature": 0}, {"top_k": 50, "top_p": 0.9}),
        ({"top_k": 50}, {"temperature": 0.0}),
        ({"bias_ids": ["3=1"]}, {"ban_ids": [3]}),
        ({"stop_ids": [3]}, {"ban_ids": [3]}),
        ({}, {"temperature": 0.0, "top_p": 0.9}),
    ],
)
def test_a_default_of_the_model_never_makes_it_fail(asked, defaults):
    found, _ = settled(asked, defaults, ORIGIN, encode=encode)
    assert all(getattr(found, name) in (value, tuple(value) if isinstance(value, list) else value)
               for name, value in (defaults | asked).items())  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "defaults", "lengths", "origins"),
    [
        ({"min_tokens": 300}, {}, (300, 300), ("argument", "argument")),
        ({"min_tokens": 90}, {"max_tokens": 40}, (90, 90), ("argument", "argument")),
        ({"max_tokens": 5}, {"min_tokens": 9}, (5, 5), ("argument", "argument")),
        ({"max_tokens": 5}, {"min_tokens": 2}, (2, 5), (ORIGIN, "argument")),
        ({}, {"min_tokens": 300}, (300, 300), (ORIGIN, ORIGIN)),
        ({}, {"min_tokens": 30, "max_tokens": 20}, (30, 30), (ORIGIN, ORIGIN)),
        ({"min_tokens": 3}, {}, (3, 256), ("argument", "default")),
    ],
)
def test_of_two_lengths_the_one_that_was_not_asked_for_gives_way(asked, defaults, lengths, origins):
    found, sources = settled(asked, defaults, ORIGIN)
    assert (found.min_tokens, found.max_tokens) == lengths
    assert (sources["min_tokens"], sources["max_tokens"]) == origins


def test_each_setting_tells_where_it_came_from():
    found, sources = settled({"top_p": 0.5, "seed": 3}, {"top_p": 0.9, "top_k": 7}, ORIGIN)
    assert (found.top_p, found.top_k, found.seed, found.min_p) == (0.5, 7, 3, 0.0)
    assert {name: sources[name] for name in ("top_p", "top_k", "seed", "min_p")} == {
        "top_p": "argument", "top_k": ORIGIN, "seed": "argument", "min_p": "default",
    }  # fmt: skip
    assert sources.keys() == {field.name for field in dataclasses.fields(Sampling)}


@pytest.mark.parametrize("wrong", [{"min_tokens": "9"}, {"max_tokens": 1.5}, {"min_tokens": True}, {"topp": 1}])
def test_wrong_types_and_names_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        settled(wrong, {"max_tokens": 3}, ORIGIN)


# generation_config.json


def test_what_a_generation_config_sets():
    config = {
        "max_new_tokens": 9, "min_new_tokens": 2, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
        "top_h": 0.4, "typical_p": 0.8, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3, "stop_strings": ["END"], "bad_words_ids": [[5], [6, 7], [2]],
        "suppress_tokens": [8], "eos_token_id": 2, "do_sample": True, "num_beams": 4, "max_length": 20,
    }  # fmt: skip
    found = from_generation_config(config)
    assert build(Sampling, found) == Sampling(
        max_tokens=9, min_tokens=2, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, top_h=0.4, typical_p=0.8,
        epsilon_cutoff=0.01, eta_cutoff=0.02, repetition_penalty=1.1, no_repeat_ngram_size=3, stop=("END",),
        ban_ids=("5", "6 7", 8),  # the end alone is not banned, as in transformers
    )  # fmt: skip
    assert found.keys() <= module.FROM_CONFIG


def test_what_a_generation_config_leaves_open():
    assert from_generation_config({"top_k": None, "bad_words_ids": None, "eos_token_id": [2, 3]}) == {}
    assert from_generation_config({"do_sample": False, "temperature": 0.6}) == {"temperature": 0.0}
    assert from_generation_config({"stop_strings": "END"}) == {"stop": ["END"]}
    assert from_generation_config({"bad_words_ids": [[3], [2]], "eos_token_id": [2, 3]}) == {}


@pytest.mark.parametrize("wrong", [{"bad_words_ids": 5}, {"suppress_tokens": 5}])
def test_a_malformed_generation_config_is_named(wrong):
    with pytest.raises(ConfigError, match="ban_ids"):
        settled({}, from_generation_config(wrong), ORIGIN, where="m/generation_config.json")


# Flags


def flags(*words):
    return module.given(parse(Generate, ["--model", "m", *words], "generate").settings.sampling)


def test_every_setting_is_a_flag():
    found = flags(
        "--ban", "Luis", " Rosa", "--ban-ids", "17", "4 9", "--bias", "x=-2", "y=1", "--bias-ids", "3 4=1.5",
        "--stop-ids", "2,3", "--min-tokens", "4", "--top-h", "0.4", "--typical-p", "0.9", "--epsilon-cutoff", "3e-4",
        "--eta-cutoff", "0.01", "--frequency-penalty", "-0.5", "--presence-penalty", "1", "--no-repeat-ngram-size", "3",
    )  # fmt: skip
    assert Sampling(**found) == Sampling(
        ban=("Luis", " Rosa"), ban_ids=("17", "4 9"), bias=("x=-2", "y=1"), bias_ids=("3 4=1.5",), stop_ids=(2, 3),
        min_tokens=4, top_h=0.4, typical_p=0.9, epsilon_cutoff=3e-4, eta_cutoff=0.01, frequency_penalty=-0.5,
        presence_penalty=1.0, no_repeat_ngram_size=3,
    )  # fmt: skip


def test_a_flag_with_half_an_id_is_refused_and_not_rounded():
    with pytest.raises(ConfigError, match=r"'1\.5' is no token id"):
        Sampling(**flags("--ban-ids", "1.5"))


@given(st.integers(1, 5))
def test_rows_of_one_call_have_their_own_seeds(rows):
    one = Sampling(seed=4, ban_ids=(3,))
    assert [each.seed for each in spread(one, rows)] == list(range(4, 4 + rows))
    assert {dataclasses.replace(each, seed=4) for each in spread(one, rows)} == {one}
    with pytest.raises(ValueError, match="1 settings for"):
        spread([one], rows + 1)
