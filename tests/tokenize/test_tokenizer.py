import base64
import copy
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Inner

from amauta.base.errors import DataError, ModelError
from amauta.tokenize.special import SPECIAL
from amauta.tokenize.tokenizer import Tokenizer, byte_characters
from amauta.tokenize.train import byte_level, train_bpe
from tests.tokenize.conftest import texts
from tests.tokenize.test_train import PATTERNS, merges_of

# Any text, with the names of special tokens thrown in.
NAMES = st.sampled_from([*SPECIAL, "[MASK]", "<extra_id_0>", "<|", "|>"])
TEXT = st.lists(st.one_of(st.text(max_size=12), NAMES), max_size=6).map("".join)


def edited(tokenizer: Tokenizer, folder: Path, change) -> Path:
    """A saved tokenizer whose JSON was changed by hand."""
    tokenizer.save(folder)
    whole = json.loads((folder / "tokenizer.json").read_text())
    change(whole)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return folder


@given(text=TEXT)
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_gives_no_special_id(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.special.isdisjoint(ids)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.encode_many([text, "x"]) == [ids, tokenizer.encode("x")]
    assert tokenizer.document(text) == [tokenizer.begin, *ids, tokenizer.end]


@pytest.mark.parametrize("split", list(PATTERNS))
def test_every_split_gives_every_text_back(split: str):
    tokenizer = train_bpe(texts(2, 100), 300, split=split)
    chance = random.Random(4)
    for _ in range(200):
        text = "".join(chr(chance.choice([chance.randrange(0xD800), chance.randrange(128), 10, 13, 0x1F999]))
                       for _ in range(20))  # fmt: skip
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(ids=st.lists(st.integers(0, 399), max_size=12))
@settings(max_examples=200, deadline=None)
def test_decoding_any_ids_equals_the_library(tokenizer: Tokenizer, ids: list[int]):
    assert tokenizer.decode(ids) == tokenizer.inner.decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids, special=True) == tokenizer.inner.decode(ids, skip_special_tokens=False)


def test_half_a_character_becomes_a_replacement_mark_and_keeps_its_bytes(tokenizer: Tokenizer):
    ids = tokenizer.encode("🦙")
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"\xf0\x9f\xa6\x99"
    assert len(ids) == 4
    assert tokenizer.decode(ids[:3]) == "\ufffd"
    assert tokenizer.decode([*ids[:2], *tokenizer.encode("a")]) == "\ufffda"
    assert tokenizer.pieces([*ids[:2], tokenizer.turn]) == ["\\xf0", "\\x9f", "<|turn|>"]


def test_encoding_applies_the_earliest_merge_first(tokenizer: Tokenizer):
    rank = {pair: n for n, pair in enumerate(merges_of(tokenizer))}
    for text in texts(9, 50):
        expected: list[str] = []
        for word, _ in tokenizer.inner.pre_tokenizer.pre_tokenize_str(text):
            symbols = list(word)
            while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in rank]:
                at = list(zip(symbols, symbols[1:], strict=False)).index(min(pairs, key=rank.__getitem__))
                symbols[at : at + 2] = ["".join(symbols[at : at + 2])]
            expected += symbols
        assert [tokenizer.inner.id_to_token(id) for id in tokenizer.encode(text)] == expected


def test_pieces_of_a_text_are_shown_with_their_ids():
    tokenizer = train_bpe(["Ellos juga", "ban", " basket", "ball"] * 3, 310, allow_smaller=True)
    ids = tokenizer.encode("Ellos jugaban basketball")
    # " jugaban" is one word to split, "juga" and "ban" were learnt apart
    assert tokenizer.pieces(ids) == ["Ellos", " juga", "ban", " basket", "ball"]
    assert [tokenizer.token_bytes(id) for id in ids] == [b"Ellos", b" juga", b"ban", b" basket", b"ball"]


def test_special_tokens_show_only_when_asked(tokenizer: Tokenizer):
    ids = [*tokenizer.document("hola"), tokenizer.pad]
    assert tokenizer.decode(ids) == "hola"
    assert tokenizer.decode(ids, special=True) == "<|begin|>hola<|end|><|pad|>"
    assert [tokenizer.token_bytes(id) for id in sorted(tokenizer.special)] == [b""] * 10
    assert (tokenizer.names[8], tokenizer.names[9]) == ("[MASK]", "<extra_id_0>")
    assert tokenizer.stops == (2, 3)
    assert tokenizer.pad not in tokenizer.stops


def test_arrays_are_decoded_as_lists_are(tokenizer: Tokenizer):
    ids = tokenizer.encode("la tejedora")
    assert tokenizer.decode(np.array(ids, dtype=np.uint16)) == "la tejedora"


@pytest.mark.parametrize("id", [-1, 400])
def test_an_id_outside_the_vocabulary_is_an_error(tokenizer: Tokenizer, id: int):
    with pytest.raises(ModelError, match="0 to 399"):
        tokenizer.decode([9, id])
    with pytest.raises(ModelError, match="0 to 399"):
        tokenizer.token_bytes(id)


def test_a_lone_surrogate_is_named_with_its_place(tokenizer: Tokenizer):
    for call in (tokenizer.encode, lambda text: tokenizer.encode_many(["fine", text])):
        with pytest.raises(DataError, match=r"U\+DC80 at position 3"):
            call("abc\udc80")


def test_a_copy_keeps_special_tokens_in_text_as_text(tokenizer: Tokenizer):
    text = "a<|turn|>b[MASK]"
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other.encode(text) == tokenizer.encode(text)
        assert other.fingerprint == tokenizer.fingerprint


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "one", max_length=128)
    loaded = Tokenizer.load(tmp_path / "one")
    assert loaded.max_length == 128
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.names, loaded.roles) == (tokenizer.names, tokenizer.roles)
    assert loaded.encode_many(texts(7, 50)) == tokenizer.encode_many(texts(7, 50))
    loaded.save(tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_fingerprint_follows_whatever_changes_the_ids():
    one = train_bpe(texts(0, 100), 300)
    others = [
        train_bpe(texts(0, 100), 299),
        train_bpe(texts(1, 100), 300),
        train_bpe(texts(0, 100), 300, reserve=("[MASK]",)),
        byte_level_twin(one),
    ]
    assert one.fingerprint == train_bpe(texts(0, 100), 300).fingerprint
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


def byte_level_twin(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary and merges with another split."""
    inner = Inner.from_str(tokenizer.inner.to_str())
    inner.pre_tokenizer = byte_level(models.BPE(), "cl100k").pre_tokenizer
    return Tokenizer(inner)


@pytest.mark.parametrize("name", SPECIAL)
def test_a_folder_that_lacks_a_special_token_is_refused_by_name(tokenizer: Tokenizer, tmp_path: Path, name: str):
    def drop(whole):
        whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] != name]

    with pytest.raises(ModelError) as caught:
        Tokenizer.load(edited(tokenizer, tmp_path, drop))
    assert (caught.value.key, caught.value.fields["names"]) == ("tokenize.missing-special", name)
    assert str(tmp_path) in str(caught.value)


def test_an_added_token_that_is_not_special_does_not_count(tokenizer: Tokenizer, tmp_path: Path):
    def weaken(whole):
        whole["added_tokens"][3]["special"] = False

    with pytest.raises(ModelError) as caught:
        Tokenizer.load(edited(tokenizer, tmp_path, weaken))
    assert (caught.value.key, caught.value.fields["names"]) == ("tokenize.missing-special", "<|turn|>")


def test_a_merge_that_spells_a_special_token_is_refused(tmp_path: Path):
    vocabulary = {name: n for n, name in enumerate([*SPECIAL, *sorted(byte_characters()), "<a"])}
    vocabulary["<a>"] = len(vocabulary)
    inner = byte_level(models.BPE(vocab=vocabulary, merges=[("<", "a"), ("<a", ">")]), "gpt2")
    inner.pre_tokenizer = None  # nothing cuts the text, so that the merges can cross from sign to letter
    inner.add_special_tokens([AddedToken(name, special=True) for name in [*SPECIAL, "<a>"]])
    with pytest.raises(ModelError) as caught:
        Tokenizer(inner)
    assert (caught.value.key, caught.value.fields["name"]) == ("tokenize.special-from-text", "<a>")


def test_a_vocabulary_without_all_bytes_or_with_other_characters_is_refused():
    names = [AddedToken(name, special=True) for name in SPECIAL]
    every = {character: n for n, character in enumerate(byte_characters())}
    short = Inner(models.BPE(vocab={c: n for n, c in enumerate(list(every)[:-1])}, merges=[]))
    wrong = Inner(models.BPE(vocab={**every, "▁the": 256}, merges=[]))
    for inner, key in ((short, "tokenize.missing-byte"), (wrong, "tokenize.not-byte-level")):
        inner.add_special_tokens(names)
        with pytest.raises(ModelError) as caught:
            Tokenizer(inner)
        assert caught.value.key == key


def test_a_missing_or_broken_file_is_an_error(tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(ModelError, match="There is no tokenizer"):
        Tokenizer.load(tmp_path / "nowhere")
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match="tokenizer_config.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"{\xff")
    with pytest.raises(ModelError, match="tokenizer.json cannot be read"):
        Tokenizer.load(tmp_path)


def test_padding_and_truncation_in_a_file_are_switched_off(tokenizer: Tokenizer, tmp_path: Path):
    inner = Inner.from_str(tokenizer.inner.to_str())
    inner.enable_padding(length=50)
    inner.enable_truncation(2)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode("la tejedora vende") == tokenizer.encode("la tejedora vende")


def gpt2(folder: Path) -> Tokenizer:
    """GPT-2's published vocabulary and merges under our splitting, our special tokens put after them."""
    model = models.BPE.from_file(str(folder / "gpt2_vocab.json"), str(folder / "gpt2_merges.txt"))
    inner = byte_level(model, "gpt2")
    inner.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return Tokenizer(inner)


def test_gpt2_ids_equal_the_published_ones(amauta_data: Path):
    folder = amauta_data / "tokenizers"
    tokenizer = gpt2(folder)
    given_texts = (folder / "golden" / "gpt-2.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    expected = [[int(id) for id in line.split()]
                for line in (folder / "golden" / "gpt-2.out").read_text().split("\n")]  # fmt: skip
    assert len(given_texts) == 47
    for text, ids in zip(given_texts, expected, strict=False):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("Hello world") == [15496, 995]


def test_the_bytes_of_gpt2_tokens_equal_the_published_ones(amauta_data: Path):
    folder = amauta_data / "tokenizers"
    tokenizer = gpt2(folder)
    for line in (folder / "r50k_base.tiktoken").read_text().splitlines():
        raw, id = line.split()
        assert tokenizer.token_bytes(int(id)) == base64.b64decode(raw)


def test_the_characters_of_bytes():
    table = byte_characters()
    assert sorted(table.values()) == list(range(256))
    assert (table["Ġ"], table["Ċ"], table["!"], table["ÿ"], table["Ā"]) == (32, 10, 33, 255, 0)
