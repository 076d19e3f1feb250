"""Words, characters and other models' tokenizers as ids."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError, ModelError
from amauta.models.ngram.framed import Framed, arpa_names, framed
from amauta.models.ngram.vocabulary import Learner, Vocabulary, blob

lines = st.lists(st.text(alphabet="ab é\t\u00a0\x0c\0ñ", max_size=12), min_size=1, max_size=6)
ASCII_SPACE = " \t\n\r\x0b\x0c\0"


def naive(text: str) -> list[str]:
    """Words between ASCII white space."""
    for space in ASCII_SPACE:
        text = text.replace(space, " ")
    return [word for word in text.split(" ") if word]


def test_words_and_characters_as_ids() -> None:
    words = Vocabulary.of(["b  a\nc", "a d"], "word")
    assert words.entries == ["<s>", "</s>", "<unk>", "a", "b", "c", "d"]
    assert words.encode("a x  <s>") == [3, 2, 2]  # a word that reads like a mark is unknown
    assert words.decode([0, 3, 4, 1]) == "a b"
    assert words.document("a") == [0, 3, 1] and words.prompt("a") == [0, 3] and words.encode("") == []
    assert b"".join(map(words.token_bytes, [0, 3, 4, 1])) == b" a b"
    letters = Vocabulary.of(["año"], "character", open=False)
    assert letters.size == 5
    assert letters.decode(letters.document("oña")) == "oña"
    with pytest.raises(DataError, match="'x'"):
        letters.encode("x")


@settings(max_examples=80, deadline=None)
@given(texts=lines, unit=st.sampled_from(["word", "character"]))
def test_learning_and_looking_up_equal_a_naive_loop(texts: list[str], unit) -> None:
    split = [naive(text) if unit == "word" else list(text.replace("\0", " ")) for text in texts]
    types = sorted({piece for pieces in split for piece in pieces})
    learner = Learner(unit)
    made = [learner.add(blob([text])) for text in texts[:2]] + [learner.add(blob(texts[2:]))]
    vocabulary, new = learner.finish()
    assert vocabulary.entries[3:] == types
    expected = [[0, *(vocabulary.entries.index(piece, 3) for piece in pieces), 1] for pieces in split]
    flat = [id for ids in expected for id in ids]
    assert new[np.concatenate(made)].tolist() == flat
    assert vocabulary.stream(blob(texts)).tolist() == flat
    assert [ids.tolist() for ids in vocabulary.documents(texts)] == expected
    assert vocabulary.encode_many(texts) == [ids[1:-1] for ids in expected]


def test_marks_among_the_words_are_refused_or_left_out_and_counted() -> None:
    with pytest.raises(DataError, match=r"Document 3 holds the word </s>"):
        learner = Learner("word")
        learner.add(blob(["a"]))
        learner.add(blob(["b", "a </s> <unk>"]))
    learner = Learner("word", skip_marks=True)
    ids = learner.add(blob(["a <s> b", "<unk>"]))
    vocabulary, new = learner.finish()
    assert learner.skipped == 2 and new[ids].tolist() == [0, 3, 4, 1, 0, 1]
    assert Vocabulary.of(["<s>"], "character").entries[3:] == ["<", ">", "s"]


def tokenizer(begin: int | None, end: int | None) -> SimpleNamespace:
    """What an n-gram model asks of one: three tokens."""
    inner = SimpleNamespace(id_to_token=["Ġa", "b c", "x"].__getitem__)
    return SimpleNamespace(
        size=3, begin=begin, end=end, unknown=None, names={2: "x"}, inner=inner,
        encode=lambda text: [0] * len(text), pieces=lambda ids: ["p"] * len(list(ids)), token_bytes=lambda id: b"t",
        decode=lambda ids, special=False: "t" * len(list(ids)),
    )  # fmt: skip


def test_a_tokenizer_without_two_ends_of_its_own_gets_them() -> None:
    whole = tokenizer(1, 2)
    assert framed(whole) is whole
    for begin, end in ((None, None), (2, 2), (None, 2), (2, None)):
        made = framed(tokenizer(begin, end))
        assert isinstance(made, Framed)
        assert (made.size, made.begin, made.end) == (5, 3, 4)
        assert made.document("ab") == [3, 0, 0, 4] and made.prompt("a") == [3, 0]
        assert made.decode([3, 0, 4]) == "t" and made.pieces([3, 0, 4]) == ["<s>", "p", "</s>"]
        assert made.token_bytes(4) == b"" and made.token_bytes(0) == b"t"
        assert arpa_names(made, 5, 3) == ["Ġa", "b<0x20>c", "x", "<s>", "</s>"]
    with pytest.raises(ModelError, match="no tokenizer"):
        framed(None)


def test_two_ids_with_one_name_are_refused() -> None:
    clash = Vocabulary([" ", "<0x20>"], "word")
    with pytest.raises(ModelError, match="ids 3 and 4 .*'<0x20>'"):
        arpa_names(clash, clash.size, clash.begin)
    assert arpa_names(None, 3, 0) == ["<s>", "1", "2"]
