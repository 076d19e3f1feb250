"""ROUGE-L: a value by hand, the public library, and a naive table."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.train.self_instruct.rouge import Pool, rouge_l, words

WORDS = st.lists(st.sampled_from(["the", "a", "Cat", "sat", "on", "mat", "dog-house", "it's", "3.5", "!"]), max_size=9)


def naive(a: list[str], b: list[str]) -> float:
    """2PR/(P+R) of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, start=1):
        for j, y in enumerate(b, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
    length = table[-1][-1]
    if not length:
        return 0.0
    p, r = length / len(a), length / len(b)
    return 2 * p * r / (p + r)


def test_a_value_by_hand():
    """police killed the gunman / police kill the gunman: three of four words in order, F = 3/4; word order counts."""
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    assert rouge_l("a b c d", "a c") == pytest.approx(2 * 1 * 0.5 / 1.5)


@given(WORDS, WORDS)
@settings(max_examples=150, deadline=None)
def test_the_public_library_says_the_same(a: list[str], b: list[str]):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    one, other = " ".join(a), " ".join(b)
    assert rouge_l(one, other) == pytest.approx(scorer.score(other, one)["rougeL"].fmeasure, abs=1e-12)


@given(st.text(alphabet="añÑé _ü¿日本1.", max_size=20), st.text(alphabet="añÑé _ü¿日本1.", max_size=20))
@settings(max_examples=150, deadline=None)
def test_letters_of_any_script_are_words(a: str, b: str):
    assert rouge_l(a, b) == pytest.approx(naive(words(a), words(b)), abs=1e-12)


def test_words_of_spanish():
    assert words("¿Cuál_es el ÑANDÚ más-viejo?") == ["cuál", "es", "el", "ñandú", "más", "viejo"]
    assert rouge_l("¡!", "¡!") == 0 and rouge_l("", "a") == 0 and rouge_l("a", "") == 0


def test_a_pool_compares_with_each_in_order():
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(0, 12))) for _ in range(60)]
    pool = Pool(texts[:40])
    for text in texts[40:]:
        found = pool.likeness(text)
        assert len(found) == len(pool.texts)
        assert found.tolist() == pytest.approx([naive(text.split(), other.split()) for other in pool.texts])
        pool.add(text)
    assert pool.texts == texts
    assert Pool().likeness("a").tolist() == []


def test_more_words_than_there_are_characters_before_the_surrogates():
    pool = Pool([" ".join(f"w{n}" for n in range(56_000)), "w55295 w55296 w55297 w57343"])
    assert pool.likeness("w55296 w55297")[1] == pytest.approx(2 * 2 / 6)
    assert pool.likeness("unheard").tolist() == [0, 0]
    assert pool.likeness("w55999")[0] == pytest.approx(2 / 56_001)
