"""Sequences of tokens in settings: reading and writing them, and the spellings of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amauta.base.errors import ConfigError
from amauta.decode.filters.sequences import as_fields, banned, biased, read_ids, read_pair, spell, spellings

IDS = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


def test_ids_are_read_as_they_are_written():
    assert read_ids(17) == (17,) and read_ids("17") == (17,)
    assert read_ids("4 9") == read_ids("4,9") == read_ids(" 4,  9 ") == (4, 9)


@given(IDS)
def test_reading_is_the_inverse_of_writing(ids):
    assert read_ids(spell(ids)) == tuple(ids)


@pytest.mark.parametrize("wrong", ["", " ", "a", "4 b", "-1", -1, "1.5", "1e3"])
def test_what_is_no_id_is_named(wrong):
    with pytest.raises(ConfigError, match="is no token id"):
        read_ids(wrong)


def test_a_bias_is_what_stands_around_its_last_equals_sign():
    assert read_pair("Luis=2.5") == ("Luis", 2.5)
    assert read_pair(" a=b=-1e-1") == (" a=b", -0.1)


@pytest.mark.parametrize("wrong", ["Luis", "Luis=", "=2", "Luis=two", "Luis=nan", "Luis=-inf", ""])
def test_what_is_no_bias_is_named(wrong):
    with pytest.raises(ConfigError, match="is no bias"):
        read_pair(wrong)


def test_sequences_with_their_numbers():
    assert banned((3, "4 9", "3")) == {(3,): float("-inf"), (4, 9): float("-inf")}
    assert biased(("3=1", "4 9=-2", "3=0.5")) == {(3,): 1.5, (4, 9): -2.0}


def words(pieces, opening=""):
    """An encoder that takes the longest of ``pieces`` each time; ``opening`` is put before every text."""

    def encode(text):
        ids, text = [], opening + text
        while text:
            piece = max((each for each in pieces if text.startswith(each)), key=len)
            ids.append(pieces.index(piece))
            text = text[len(piece) :]
        return ids

    return encode


def test_a_word_has_a_spelling_with_its_space_and_one_without():
    encode = words(["R", "osa", " Rosa", "\n", " ", "a", " a"])
    assert spellings("Rosa", encode) == [(2,), (0, 1)]
    assert spellings(" Rosa", encode) == [(2,)]  # its space is asked for
    assert spellings(" Rosa", words(["Rosa", " Rosa", "  ", "\n"])) == [(1,)]  # and no second one
    assert spellings("\n", encode) == [(3,)]
    assert spellings("a", encode) == [(5,), (6,)]


def test_a_spelling_that_ends_with_another_is_met_by_it():
    assert spellings("R", words(["R", " ", "\n"])) == [(0,)]  # " R" is a space and R: a ban of R does it


def test_where_the_tokenizer_opens_every_text_with_a_space_the_spelling_after_a_line_end_is_found_too():
    encode = words([" Rosa", "R", "osa", "\n", " "], opening=" ")
    assert spellings("Rosa", encode) == [(0,), (1, 2)]


def test_a_text_without_tokens_is_named():
    with pytest.raises(ConfigError, match="'' has no tokens"):
        spellings("", words(["\n", " "]))


def test_what_python_writes_becomes_what_fields_hold():
    given = dict(
        stop="x", ban="a", ban_ids=[17, [4, 9], "3 4"], bias={"Luis": 2, "a=b": -1.5},
        bias_ids={17: 2, (4, 9): -1, "5 6": 1}, stop_ids=3, top_k=4,
    )  # fmt: skip
    before = {**given}
    assert as_fields(given) == dict(
        stop=["x"], ban=["a"], ban_ids=[17, "4 9", "3 4"], bias=["Luis=2", "a=b=-1.5"],
        bias_ids=["17=2", "4 9=-1", "5 6=1"], stop_ids=[3], top_k=4,
    )  # fmt: skip
    assert given == before
    assert as_fields({"ban_ids": 5, "stop": ("a", "b")}) == {"ban_ids": [5], "stop": ("a", "b")}
    assert as_fields({"ban": None, "stop_ids": True, "bias": 2.5}) == {"ban": None, "stop_ids": True, "bias": 2.5}
