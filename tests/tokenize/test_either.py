"""What is done alike with our tokenizers and with another model's."""

from pathlib import Path

import pytest

from amauta.tokenize.either import AnyTokenizer, documents, longest, piece_bytes, scored, special_of
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.train import train_bpe
from tests.tokenize.foreign_tokenizers import MADE, NAMES, write

TEXTS = ["The old bridge has 3 arches.", "¿Dónde está?", ""]


@pytest.fixture(scope="module")
def ours() -> AnyTokenizer:
    return train_bpe(["the old bridge is old"] * 4, 280, allow_smaller=True)


def foreign(folder: Path, kind: str, **config: str | None) -> AnyTokenizer:
    named = {name: token for name, token in (NAMES[kind] | config).items() if token is not None}
    found = load_tokenizer(write(folder, MADE[kind](), named))
    assert found is not None
    return found


def test_ids_that_a_tokenizer_has_not_are_left_out(ours: AnyTokenizer, tmp_path: Path):
    assert special_of(ours) == {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0}
    assert special_of(foreign(tmp_path / "a", "byte-level")) == {"bos_token_id": 1, "eos_token_id": 2}
    assert special_of(foreign(tmp_path / "b", "word ends")) == special_of(None) == {}


def test_rows_beyond_the_tokenizer_have_no_bytes(ours: AnyTokenizer):
    assert piece_bytes(ours, ours.size) == b"" and piece_bytes(ours, 8) == ours.token_bytes(8) != b""


@pytest.mark.parametrize("kind", ["byte-level", "llama", "wordpiece"])
def test_many_documents_are_each_a_document(ours: AnyTokenizer, tmp_path: Path, kind: str):
    for tokenizer in (ours, foreign(tmp_path, kind)):
        assert documents(tokenizer, TEXTS) == [tokenizer.document(text) for text in TEXTS]


def test_every_token_of_a_text_is_scored_or_its_bytes_are_not_counted(ours: AnyTokenizer, tmp_path: Path):
    text = "¿Dónde está?"
    size = len(text.encode())
    assert scored(ours, text) == ([1, *ours.encode(text), 2], size)
    puts = foreign(tmp_path / "puts", "byte-level with a first token")
    assert scored(puts, text) == ([1, *puts.encode(text), 2], size)  # not a second <s>
    begins = foreign(tmp_path / "begins", "byte-level")
    assert scored(begins, text) == ([1, *begins.encode(text), 2], size)
    assert scored(begins, "") == ([1, 2], 0)
    ends = foreign(tmp_path / "ends", "byte-level", bos_token=None)
    assert scored(ends, text) == ([2, *ends.encode(text), 2], size)
    neither = foreign(tmp_path / "neither", "byte-level", bos_token=None, eos_token=None)
    ids, counted = scored(neither, text)
    assert ids == neither.encode(text) and counted == len(b"".join(map(neither.token_bytes, ids[1:]))) < size
    assert scored(neither, "") == ([], 0)


def test_the_longest_tokens_come_first(ours: AnyTokenizer):
    sizes = [len(ours.token_bytes(id)) for id in longest(ours, ours.size)]
    assert sizes == sorted(sizes, reverse=True) and ours.pieces(longest(ours, 1)) == [" bridge"]
