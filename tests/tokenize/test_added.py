"""New special tokens, cut pairs, and where tokens stand in a text."""

import itertools
from pathlib import Path

import pytest

from amauta.base.errors import ModelError
from amauta.tokenize.added import places, with_tokens
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.tokenizer import Tokenizer, shorten
from amauta.tokenize.train import train_bpe
from tests.tokenize.foreign_tokenizers import NAMES, byte_level, write

TEXT = "The cat sat on the mat. El gato se sentó en la estera."


@pytest.fixture(params=["ours", "foreign"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> AnyTokenizer:
    if request.param == "ours":
        train_bpe([TEXT] * 4, 300, allow_smaller=True).save(tmp_path / "t")
    else:
        write(tmp_path / "t", byte_level(), NAMES["byte-level"], None)
    found = load_tokenizer(tmp_path / "t")
    assert found is not None
    return found


def test_ordinary_new_tokens_are_found_where_a_text_spells_them(tokenizer: AnyTokenizer, tmp_path: Path):
    made, ids, new = with_tokens(tokenizer, ("[año]", "sat on"), special=False)
    assert (ids, new) == ([tokenizer.size, tokenizer.size + 1], 2) and made.size == tokenizer.size + 2
    assert made.encode("[año]x")[0] == ids[0] and ids[1] in made.encode(TEXT) and not set(ids) & made.special
    assert made.token_bytes(ids[0]) == "[año]".encode() and made.decode(made.encode(TEXT)) == TEXT
    made.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again is not None and type(again) is type(tokenizer) and again.fingerprint == made.fingerprint
    assert again.encode("a [año] b") == made.encode("a [año] b") and again.names == tokenizer.names


def test_new_tokens_come_last_and_no_text_gives_them(tokenizer: AnyTokenizer, tmp_path: Path):
    made, ids, new = with_tokens(tokenizer, ("[START]", "[EXTRACT]"))
    assert (ids, new) == ([tokenizer.size, tokenizer.size + 1], 2) and made.size == tokenizer.size + 2
    assert made.encode(TEXT) == tokenizer.encode(TEXT)
    assert not set(ids) & set(made.encode("a [START] b [EXTRACT]"))
    assert made.decode([*ids, *made.encode("x")], special=True).startswith("[START]")
    made.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again is not None and again.names == made.names and type(again) is type(tokenizer)
    assert with_tokens(again, ("[START]", "[EXTRACT]"))[1:] == (ids, 0)
    assert set(ids) <= set(made.special) and not set(ids) & set(tokenizer.names)


def test_an_ordinary_entry_is_no_special_token(tokenizer: AnyTokenizer):
    piece = tokenizer.inner.id_to_token(tokenizer.encode("a")[0])
    with pytest.raises(ModelError, match="ordinary entry"):
        with_tokens(tokenizer, (piece,))


def popped(a: int, b: int, room: int) -> tuple[int, int]:
    """BERT's own loop."""
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    return a, b


def test_pairs_are_shortened_as_bert_does():
    for a, b, room in itertools.product(range(9), range(9), range(20)):
        assert shorten(a, b, room) == popped(a, b, room), (a, b, room)


def test_around_cuts_pairs_to_the_length(tokenizer: AnyTokenizer):
    a, b = "The cat sat on the mat. " * 3, "El gato"
    whole = tokenizer.around(a, b)[0]
    for longest in range(len(whole) - 6, len(whole) + 2):
        ids, segments = tokenizer.around(a, b, longest=longest)
        assert len(ids) == len(segments) == min(longest, len(whole))
        if isinstance(tokenizer, Tokenizer) or tokenizer.inner.post_processor is None:
            tail = tokenizer.encode(b)
            assert any(ids[i : i + len(tail)] == tail for i in range(len(ids)))  # the shorter text is whole


def test_places_are_the_characters_of_each_token(tokenizer: AnyTokenizer):
    ids, found = places(tokenizer, TEXT)
    assert ids == tokenizer.encode(TEXT)
    covered = {i for start, end in found for i in range(start, end)}
    assert covered == {i for i, character in enumerate(TEXT) if not character.isspace()}
    plain = [(id, TEXT[a:b]) for id, (a, b) in zip(ids, found, strict=True) if TEXT[a:b].isascii() and a < b]
    assert all(tokenizer.token_bytes(id).decode().strip() == piece for id, piece in plain)
