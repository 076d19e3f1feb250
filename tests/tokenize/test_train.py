import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import regex
from tokenizers import models

from amauta.base.errors import ConfigError, DataError
from amauta.config import build
from amauta.tokenize import train as module
from amauta.tokenize.settings import MOST_BYTES, TrainTokenizer
from amauta.tokenize.special import SPECIAL
from amauta.tokenize.tokenizer import Tokenizer, byte_characters
from amauta.tokenize.train import Sample, byte_level, train_bpe
from tests.tokenize.conftest import texts

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "single-digits": CL100K.replace("{1,3}", "")}
CHARACTERS = {byte: character for character, byte in byte_characters().items()}


def merges_of(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.inner.to_str())["model"]["merges"]]


def recount(words: dict[str, int], alphabet: Sequence[str], most: int, least: int = 1) -> list[tuple[str, str]]:
    """The merges of BPE by counting every pair anew at each step: no memory, no queue, nothing to go wrong."""
    rank = {symbol: n for n, symbol in enumerate(alphabet)}
    split = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    while len(rank) < len(alphabet) + most:
        counts: Counter[tuple[str, str]] = Counter()
        for word, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], rank[pair[0]], rank[pair[1]]))
        if counts[best] < least:
            break
        merges.append(best)
        rank.setdefault("".join(best), len(rank))
        split = {word: merged(symbols, best) for word, symbols in split.items()}
    return merges


def merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every place of ``pair``, from the left and without overlaps, made one symbol."""
    out: list[str] = []
    at = 0
    while at < len(symbols):
        width = 2 if tuple(symbols[at : at + 2]) == pair else 1
        out.append("".join(symbols[at : at + width]))
        at += width
    return out


def spelt(word: str) -> str:
    return "".join(CHARACTERS[byte] for byte in word.encode())


def word_counts(corpus: Iterable[str], pattern: str) -> dict[str, int]:
    """The words of a corpus in byte-level characters, cut by the ``regex`` library and not by ours."""
    return Counter(spelt(found) for text in corpus for found in regex.findall(pattern, text))


# Worked by hand: counts overlap, of equals the smallest ids win.
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("aaacccaaabdc", "a,a c,c aa,a b,d c,aaa"),
        ("aaaccaaabdc", "a,a aa,a b,d c,c aaa,bd"),
        ("aaabdaaabac", "a,a a,b aa,ab a,c d,aaab"),
    ],
)
def test_merges_of_one_word_as_worked_by_hand(word: str, expected: str):
    pairs = [tuple(pair.split(",")) for pair in expected.split()]
    assert merges_of(train_bpe([word], 264 + 5, min_count=1)) == pairs
    assert recount({word: 1}, "abcd", 5) == pairs


def test_overlapping_pairs_count_each_place():
    # a a occurs 4 times in aaacccaaabdc only when overlaps count; with min_count=4 it is the one merge.
    tokenizer = train_bpe(["aaacccaaabdc"], 300, min_count=4, allow_smaller=True)
    assert merges_of(tokenizer) == [("a", "a")]
    assert tokenizer.pieces(tokenizer.encode("aaacccaaabdc")) == "aa a c c c aa a b d c".split()
    assert tokenizer.pieces(tokenizer.encode("aaaccaaabdc")) == "aa a c c aa a b d c".split()


def test_word_counts_weigh_the_pairs():
    corpus = ["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5
    assert merges_of(train_bpe(corpus, 264 + 3)) == [("u", "g"), ("u", "n"), ("h", "ug")]


@pytest.mark.parametrize(("corpus", "expected"), [("ab cd", "ab cd"), ("cd ab", "ab cd"), ("dc ba dc ba", "ba dc")])
def test_ties_go_to_the_smallest_ids(corpus: str, expected: str):
    got = merges_of(train_bpe(corpus.split(), 264 + 2, min_count=1))
    assert got == [tuple(pair) for pair in expected.split()]


@pytest.mark.parametrize("split", list(PATTERNS))
@pytest.mark.parametrize("seed", range(4))
def test_merges_equal_a_full_recount(split: str, seed: int):
    chance = random.Random(seed)
    corpus = ["".join(chance.choices("ab é12'\n.", k=chance.randint(0, 40))) for _ in range(30)] + texts(seed, 20)
    tokenizer = train_bpe(corpus, 264 + 60, split=split, min_count=2, allow_smaller=True)
    expected = recount(word_counts(corpus, PATTERNS[split]), sorted(CHARACTERS.values()), 60, least=2)
    assert len(expected) > 20
    assert merges_of(tokenizer) == expected


def test_ids_are_special_tokens_then_bytes_then_merges():
    tokenizer = train_bpe(["ab ab ab"], 264 + 2)
    vocabulary = tokenizer.inner.get_vocab()
    order = sorted(vocabulary, key=vocabulary.__getitem__)
    assert order == [*SPECIAL, *sorted(CHARACTERS.values()), "ab", "Ġab"]
    assert [tokenizer.pad, tokenizer.begin, tokenizer.end, tokenizer.turn] == [0, 1, 2, 3]
    assert tokenizer.roles == {"system": 4, "user": 5, "assistant": 6, "tool": 7}


def test_the_size_is_reached_exactly():
    assert train_bpe(texts(1, 200), 333).size == 333
    assert train_bpe([""] * 3 + ["a"], 264).size == 264


def test_too_little_text_is_an_error_that_tells_the_size_reached():
    with pytest.raises(DataError) as caught:
        train_bpe(["ab ab"], 1000)
    assert caught.value.key == "tokenize.too-little-text"
    assert caught.value.fields["reached"] == 265  # a+b is the one pair seen twice
    assert train_bpe(["ab ab"], 1000, allow_smaller=True).size == 265


@pytest.mark.parametrize("corpus", [[], ["", ""]])
def test_no_text_is_an_error_even_when_a_smaller_size_is_allowed(corpus: list[str]):
    with pytest.raises(DataError) as caught:
        train_bpe(corpus, 300, allow_smaller=True)
    assert caught.value.key == "tokenize.no-text"


def test_a_size_without_room_for_special_tokens_and_bytes_is_an_error():
    with pytest.raises(ConfigError) as caught:
        train_bpe(["a"], 264, reserve=("[MASK]",))
    assert caught.value.fields == {"size": 264, "least": 265, "special": 9}


def test_an_error_in_the_texts_passes_through_the_library():
    def broken():
        yield "a"
        raise DataError("tokenize.no-text", texts=7)

    with pytest.raises(DataError, match="7 texts"):
        train_bpe(broken(), 300)


def test_a_lone_surrogate_is_named_with_its_place():
    with pytest.raises(DataError, match=r"U\+D800 at position 2"):
        train_bpe(["fine", "ab\ud800"], 300)


def test_equal_texts_give_equal_files_in_every_process(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from amauta.tokenize.train import train_bpe;"
        "from tests.tokenize.conftest import texts;"
        "train_bpe(texts(5, 300), 420, min_count=1).save(Path(sys.argv[1]))"
    )
    files: list[bytes] = []
    for number, (hashes, threads) in enumerate([("0", "1"), ("1234", "2")]):
        folder = tmp_path / str(number)
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "RAYON_NUM_THREADS": threads,
                       "PYTHONPATH": os.pathsep.join(["src", "."])}  # fmt: skip
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment, cwd=root, timeout=60)
        files.append((folder / "tokenizer.json").read_bytes())
    here = train_bpe(texts(5, 300), 420, min_count=1)
    assert files[0] == files[1] == here.inner.to_str(pretty=True).encode()


def test_a_sample_ends_before_the_first_text_that_does_not_fit():
    sample = Sample(iter(["añ", "bc", "ñ", "g"]), most=6)
    assert list(sample) == ["añ", "bc"]  # 3 + 2 bytes; "ñ" would make 7
    assert (sample.texts, sample.bytes, sample.cut) == (2, 5, True)
    whole = Sample(["añ", "bc"], most=5)
    assert (list(whole), whole.cut) == (["añ", "bc"], False)


def test_more_text_than_the_counters_hold_is_an_error(monkeypatch: pytest.MonkeyPatch):
    assert MOST_BYTES == 2**31 - 1  # the largest number of a 32-bit counter
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    with pytest.raises(DataError) as caught:
        train_bpe(["abcd", "abcde"], 264)
    assert (caught.value.key, caught.value.fields["most"]) == ("tokenize.too-much-text", 8)
    sample = Sample(["abcd", "abcde"], most=100)  # a sample cannot ask for more than the limit, and its owner tells
    assert train_bpe(sample, 264).size == 264
    assert (sample.cut, sample.bytes) == (True, 4)


def test_texts_are_streamed_and_not_held():
    line = "wool and lana " * 300
    tracemalloc.start()
    train_bpe((f"{n} {line}" for n in range(5000)), 270)  # 21 MB pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize("split", list(PATTERNS))
def test_words_are_cut_as_the_published_expressions_say(split: str):
    chance = random.Random(3)
    alphabet = "abéÑ世🦙 \n\r\t1234567'sTLl.,!?-()\u00a0\u0301"
    inner = byte_level(models.BPE(), split)
    assert inner.pre_tokenizer is not None
    for _ in range(300):
        text = "".join(chance.choices(alphabet, k=chance.randint(0, 30)))
        got = [piece for piece, _ in inner.pre_tokenizer.pre_tokenize_str(text)]
        assert got == [spelt(word) for word in regex.findall(PATTERNS[split], text)], text


def test_digits_are_grouped_as_the_split_says():
    shown = {}
    for split in PATTERNS:
        tokenizer = train_bpe(["12345 12345 12345"], 300, split=split, allow_smaller=True)
        shown[split] = tokenizer.pieces(tokenizer.encode("12345"))
    assert shown == {"gpt2": ["12345"], "cl100k": ["123", "45"], "single-digits": ["1", "2", "3", "4", "5"]}


def test_settings_refuse_what_cannot_be_trained():
    whole = build(TrainTokenizer, {"text": ["a.txt"], "out": "t"})
    assert (whole.size, whole.split, whole.max_length) == (4096, "gpt2", None)
    with pytest.raises(ConfigError, match="cannot be used: 4"):
        build(TrainTokenizer, {"text": ["a"], "out": "t", "size": 263, "split": "gpt3", "max_length": 0,
                               "most_bytes": 2**31})  # fmt: skip
