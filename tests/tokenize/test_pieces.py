"""Tokenizers out of bare lists, against SentencePiece's own rule done naively, and against llama.cpp's splits."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ModelError
from amauta.tokenize.pieces import BYTE, CONTROL, NORMAL, SPLITS, UNKNOWN, byte_level_bpe, ends, sentencepiece_bpe
from amauta.tokenize.sentencepiece import SentencePieceModel, read_sentencepiece, tokenizer_of
from tests.tokenize.foreign_tokenizers import byte_level


def naive(text: str, pieces: list[str], scores: list[float]) -> list[str]:
    """SentencePiece's BPE: again and again, of all neighbours that make a piece, the best, of equals the leftmost."""
    known = dict(zip(pieces, scores, strict=True))
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [
            (-known[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False)) if a + b in known
        ]
        if not pairs:
            return [one for symbol in symbols for one in _fallback(symbol, known)]
        _, at = min(pairs)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def _fallback(symbol: str, known: dict[str, float]) -> list[str]:
    return [symbol] if symbol in known else [f"<0x{byte:02X}>" for byte in symbol.encode()]


LETTERS = "▁abcdñ"
_CHANCE = random.Random(5)
WORDS = sorted({"".join(_CHANCE.choices(LETTERS, k=_CHANCE.choice((2, 2, 2, 3, 3, 4)))) for _ in range(90)})
# A piece of equal letters comes apart in two ways of one score, where the two libraries differ by design.
WORDS = [word for word in WORDS if len({word[:1], word[-1:]}) == 2 or len(word) == 2]
_CHANCE.shuffle(WORDS)
NORMALS = [*WORDS, *LETTERS]
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *NORMALS]
TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(NORMALS)]
SCORES = [0.0] * 259 + [float(-rank) for rank in range(len(NORMALS))]


@given(text=st.text(alphabet="abcdñ é<s>/0xA", max_size=16))
@settings(max_examples=200, deadline=None)
def test_pieces_merge_as_sentencepiece_merges(text: str):
    inner = sentencepiece_bpe(PIECES, SCORES, TYPES)
    inner.encode_special_tokens = True
    got = inner.encode(text, add_special_tokens=False)
    wanted = naive(text, NORMALS, SCORES[259:]) if text else []
    assert got.tokens == wanted
    assert got.ids == [PIECES.index(piece) for piece in wanted]
    assert inner.decode(got.ids) == text


def test_the_real_pieces_of_llama2c(amauta_data: Path):
    folder = amauta_data / "weights" / "stories260K"
    raw = (folder / "tok512.bin").read_bytes()
    spelt, scores, at = [], [], 4
    while at < len(raw):
        score, length = struct.unpack_from("<fi", raw, at)
        spelt.append(raw[at + 8 : at + 8 + length].decode())
        scores.append(score)
        at += 8 + length
    model = read_sentencepiece(folder / "tok512.model")
    assert (len(model.pieces), model.kind, model.byte_fallback, model.special) == (
        512, 2, True, {"unk_token": 0, "bos_token": 1, "eos_token": 2},
    )  # fmt: skip
    assert [piece.replace("▁", " ") for piece in model.pieces[3:]] == spelt[3:]
    assert model.scores == scores
    inner = tokenizer_of(model, "tok512.model")
    normals = [
        (piece, score) for piece, score, kind in zip(model.pieces, scores, model.types, strict=True) if kind == 1
    ]
    for text in ("Once upon a time, there was a little girl named Lily.", "¿Qué día?\tno\n", "aaa bbb 123"):
        got = inner.encode(text, add_special_tokens=False).tokens
        assert got == naive(text, *(list(one) for one in zip(*normals, strict=True)))


def test_the_wheel_of_sentencepiece_agrees(amauta_data: Path):
    wheel = pytest.importorskip("sentencepiece")
    path = amauta_data / "weights" / "stories260K" / "tok512.model"
    theirs, inner = wheel.SentencePieceProcessor(model_file=str(path)), tokenizer_of(read_sentencepiece(path), "x")
    for line in (amauta_data / "corpora" / "tinyshakespeare.txt").read_text().splitlines()[:500]:
        assert inner.encode(line, add_special_tokens=False).ids == theirs.EncodeAsIds(line)


@given(text=st.text(alphabet=" ab\t\n▁", max_size=12))
@settings(max_examples=100, deadline=None)
def test_squeezing_spaces(text: str):
    model = SentencePieceModel(PIECES, SCORES, TYPES, kind=2, byte_fallback=True, squeeze=True)
    inner = tokenizer_of(model, "x")
    squeezed = " ".join(part for part in text.split(" ") if part).rstrip(" ▁")
    assert inner.encode(text, add_special_tokens=False).tokens == (
        naive(squeezed, NORMALS, SCORES[259:]) if squeezed else []
    )


def test_no_text_merges_into_a_control_piece():
    pieces = ["<unk>", "<s>", "<", "s", ">", "s>", "▁"]
    inner = sentencepiece_bpe(pieces, [0.0, 0.0, -1.0, -2.0, -3.0, -0.5, -4.0], [UNKNOWN, CONTROL, *[NORMAL] * 5])
    inner.encode_special_tokens = True
    assert inner.encode("<s>", add_special_tokens=False).tokens == ["▁", "<", "s>"]


def test_lists_that_do_not_fit():
    with pytest.raises(ModelError, match="3 pieces, 2 scores and 3 types"):
        sentencepiece_bpe(["a", "b", "ab"], [0.0, 0.0], [1, 1, 1])
    with pytest.raises(ModelError, match="file: the vocabulary holds 'a' twice"):
        sentencepiece_bpe(["a", "b", "a"], [0.0] * 3, [1] * 3, where="file")
    with pytest.raises(ModelError, match="split as 'moon'.*Known: gpt-2"):
        byte_level_bpe(["a"], [], split="moon")
    with pytest.raises(ModelError, match="merge 1, 'a b'"):
        byte_level_bpe(["a", "b"], ["a b"])


def rebuilt(split: str):
    """The tokens and merges of a small GPT-2, put together again."""
    import json

    whole = json.loads(byte_level().to_str())
    tokens = sorted(whole["model"]["vocab"], key=whole["model"]["vocab"].get)
    special = [one["content"] for one in whole["added_tokens"]]
    return byte_level_bpe(tokens, [" ".join(one) for one in whole["model"]["merges"]], special, split=split)


@given(text=st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_byte_level_lists_are_the_tokenizer_again(text: str):
    assert rebuilt("gpt-2").encode(text).ids == byte_level().encode(text).ids


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("gpt-2", ["It", "'s", " 2024", "!!", " \n", " ok", "'", "S"]),
        ("smollm", ["It", "'s", " ", "2", "0", "2", "4", "!!", " \n", " ok", "'", "S"]),
        ("llama-bpe", ["It", "'s", " ", "202", "4", "!!", " \n", " ok", "'S"]),
        ("qwen2", ["It", "'s", " ", "2", "0", "2", "4", "!!", " \n", " ok", "'S"]),
        ("default", ["It", "'", "s", " ", "202", "4", "!!", " \n", " ok", "'", "S"]),
    ],
)
def test_splits(split: str, words: list[str]):
    inner = rebuilt(split)
    found = inner.pre_tokenizer.pre_tokenize_str("It's 2024!! \n ok'S")
    text = "It's 2024!! \n ok'S"
    assert [text[start:end] for _, (start, end) in found] == words
    assert split in SPLITS


def test_ends():
    inner = rebuilt("gpt-2")
    ends(inner, "<s>", "</s>")
    a, b = inner.encode("a", add_special_tokens=False).ids, inner.encode("b", add_special_tokens=False).ids
    assert inner.encode("a").ids == [1, *a, 2]
    assert (inner.encode("a", "b").ids, inner.encode("a", "b").type_ids) == ([1, *a, 2, 1, *b, 2], [0, 0, 0, 1, 1, 1])
