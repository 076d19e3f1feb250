"""Modified Kneser-Ney, Witten-Bell and stupid backoff: published values, a slow reference, nltk."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ConfigError, DataError
from amauta.models.ngram import NGram
from amauta.models.ngram.kneser_ney import three_discounts
from amauta.models.ngram.vocabulary import Vocabulary
from amauta.models.ngram_settings import Estimator
from tests.models.ngram.reference import Reference

MKN = Estimator(smoothing="modified-kneser-ney")
WB = Estimator(smoothing="witten-bell")
STUPID = Estimator(smoothing="stupid-backoff")
WORDS = [1, 2, 3, 4, 5, 6, 7]  # 6 is never seen, 7 ends

documents = st.lists(st.lists(st.integers(1, 5), max_size=14), min_size=1, max_size=8)
prefixes = st.lists(st.integers(1, 6), max_size=6)

# log10, from the rules of Heafield et al. 2013 worked by hand and by lmplz: two lines, fallback discounts everywhere
TWO = ["a a b a", "b a a b"]
UNIGRAMS = {"<unk>": -0.90309, "a": -0.46943438, "b": -0.5720968, "</s>": -0.5720968}
BIGRAMS = {
    "<s> a": -0.37712017, "a a": -0.37712017, "b a": -0.2984526, "a </s>": -0.58682007, "b </s>": -0.5220179,
    "<s> b": -0.41574955, "a b": -0.58682007,
}  # fmt: skip
TRIGRAMS = {
    "<s> a a": -0.14885087, "b a a": -0.33741078, "<s> b a": -0.12407789, "a b a": -0.2997394, "b a </s>": -0.42082912,
    "a b </s>": -0.397617, "a a b": -0.20102891,
}  # fmt: skip


def laid_out(bodies: list[list[int]]) -> list[list[int]]:
    return [[0, *body, 7] for body in bodies]


def on_words(lines: list[str], order: int, estimator: Estimator = MKN) -> NGram:
    words = Vocabulary.of(lines, "word")
    return NGram.train(
        [words.document(line) for line in lines],
        size=words.size, begin=words.begin, order=order, estimator=estimator, tokenizer=words,
    )  # fmt: skip


def entry(model: NGram, gram: str) -> tuple[float, float | None]:
    """log10 p and log10 gamma that the model stores for an n-gram."""
    ids = [model.tokenizer.entries.index(word) for word in gram.split()]
    node = ids[0]
    for level, token in enumerate(ids[1:], start=1):
        node = model.trie.one(level, node, token)
    level = len(ids) - 1
    above = model.tables[level + 1].log_gamma[node] / math.log(10) if level + 1 < model.order else None
    return float(model.tables[level].log_p[node] / math.log(10)), above


def test_the_values_of_the_trigram_model_of_two_lines() -> None:
    model = on_words(TWO, 3)
    assert model.fallbacks == [1, 2, 3]
    assert model.trie.nodes == [5, 7, 7]
    contexts = {"<s>", "a", "b", "<s> a", "<s> b", "a a", "a b", "b a"}
    for gram, log10_p in (UNIGRAMS | BIGRAMS | TRIGRAMS).items():
        p, gamma = entry(model, gram)
        assert p == pytest.approx(log10_p, abs=6e-7), gram
        if gram in contexts:
            assert gamma == pytest.approx(-0.30103, abs=1e-6), gram
        elif gamma is not None:
            assert gamma == 0, gram
    assert entry(model, "<s>")[1] == pytest.approx(-0.30103, abs=1e-6)


def test_scores_of_that_model() -> None:
    model = on_words(TWO, 3)
    known = model.score(model.tokenizer.document("a a b a"))
    assert known.sum() / math.log(10) == pytest.approx(-1.447568, abs=6e-7)
    assert math.exp(-known.mean()) == pytest.approx(1.947662, abs=6e-7)
    unknown = model.score(model.tokenizer.document("b a z a"))
    assert unknown.sum() / math.log(10) == pytest.approx(-3.101232, abs=6e-7)
    assert math.exp(-unknown.mean()) == pytest.approx(4.171060, abs=6e-7)


def test_the_discounts_of_known_counts_of_counts() -> None:
    assert three_discounts([10, 5, 3, 2]) == pytest.approx((0.5, 1.1, 5 / 3))
    assert three_discounts([10, 5, 0, 2]) is None
    assert three_discounts([10, 5, 3, 0]) == pytest.approx((0.5, 1.1, 3.0))
    assert three_discounts([1, 5, 3, 2]) is not None
    assert three_discounts([10, 1, 3, 2]) is None  # D2 = 2 - 3 * 10/12 * 3 is below 0


@settings(max_examples=80, deadline=None)
@given(
    bodies=documents, prefix=prefixes, start=st.booleans(), order=st.integers(1, 5),
    prune=st.sampled_from([(), (0, 1), (0, 0, 1), (0, 1, 1, 2), (0, 0, 0, 3)]),
)  # fmt: skip
def test_modified_kneser_ney_equals_the_slow_reference(
    bodies: list[list[int]], prefix: list[int], start: bool, order: int, prune: tuple[int, ...]
) -> None:
    corpus = laid_out([*bodies, [1, 2, 1, 2, 3]])
    estimator = Estimator(smoothing="modified-kneser-ney", prune=prune[:order])
    model = NGram.train(corpus, size=8, begin=0, order=order, estimator=estimator)
    slow = Reference(corpus, order, WORDS, prune[:order])
    for mine, theirs in zip(model.tables, slow.discounts, strict=True):
        assert mine.discounts == pytest.approx(theirs, rel=1e-12)
    history = [0, *prefix] if start else prefix
    expected = [slow.p(word, tuple(history)) for word in WORDS]
    assert np.exp(model.next_logprobs(history)[1:]).tolist() == pytest.approx(expected, rel=1e-10)
    assert sum(expected) == pytest.approx(1, abs=1e-12)  # of the reference itself


def test_a_corpus_large_enough_has_discounts_of_its_own() -> None:
    generator = np.random.default_rng(5)
    corpus = [[0, *(generator.zipf(1.4, 12) % 600 + 1), 601] for _ in range(150)]
    corpus = [[int(id) for id in ids] for ids in corpus]
    model = NGram.train(corpus, size=602, begin=0, order=3, estimator=MKN)
    slow = Reference(corpus, 3, list(range(1, 602)))
    assert model.fallbacks == []
    assert [table.discounts for table in model.tables] == [pytest.approx(d, rel=1e-12) for d in slow.discounts]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_witten_bell_equals_nltk(order: int) -> None:
    from nltk.lm import WittenBellInterpolated
    from nltk.util import everygrams

    generator = np.random.default_rng(order)
    corpus = laid_out([generator.integers(1, 6, generator.integers(1, 9)).tolist() for _ in range(15)])
    words = [[str(id) for id in ids] for ids in corpus]
    peer = WittenBellInterpolated(order)
    peer.fit([[g for g in everygrams(ids, max_len=order) if g != ("0",)] for ids in words], [str(i) for i in range(8)])
    bare = Estimator(smoothing="witten-bell", base="none")  # nltk's unigrams are not smoothed
    ours = NGram.train(corpus, size=8, begin=0, order=order, estimator=bare)
    for ids in [*corpus[:6], [0, 5, 1, 1, 2, 4, 7], [0, 3, 3, 3, 3, 7]]:
        for place in range(1, len(ids)):
            context = [str(id) for id in ids[max(0, place - order + 1) : place]]
            mine = math.exp(ours.next_logprobs(ids[:place])[ids[place]])
            assert mine == pytest.approx(peer.score(str(ids[place]), context), rel=1e-10)


def test_witten_bell_by_hand() -> None:
    # 10 a's, then 10 b's: 21 events of 3 types; uniform over a, b, </s>. After a: 10 events of 2 types.
    model = NGram.train([[0, *[1] * 10, *[2] * 10, 3]], size=4, begin=0, order=2, estimator=WB)
    unigram = (10 + 3 / 3) / (21 + 3)
    assert math.exp(model.next_logprobs([])[1]) == pytest.approx(unigram, rel=1e-14)
    assert math.exp(model.next_logprobs([1])[1]) == pytest.approx((9 + 2 * unigram) / 12, rel=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_stupid_backoff_equals_nltk(order: int) -> None:
    from nltk.lm import StupidBackoff
    from nltk.util import everygrams

    generator = np.random.default_rng(order)
    corpus = laid_out([generator.integers(1, 6, generator.integers(1, 9)).tolist() for _ in range(15)])
    words = [[str(id) for id in ids] for ids in corpus]
    peer = StupidBackoff(order=order)
    peer.fit([[g for g in everygrams(ids, max_len=order) if g != ("0",)] for ids in words], [str(i) for i in range(8)])
    ours = NGram.train(corpus, size=8, begin=0, order=order, estimator=STUPID)
    for ids in [*corpus[:6], [0, 5, 1, 1, 2, 4, 7], [0, 3, 3, 3, 3, 7], [4, 5, 5, 5, 4]]:
        for place in range(1, len(ids)):
            context = [str(id) for id in ids[max(0, place - order + 1) : place]]
            mine = math.exp(ours.next_logprobs(ids[:place])[ids[place]])
            assert mine == pytest.approx(peer.score(str(ids[place]), context), rel=1e-10)


def test_stupid_backoff_by_hand() -> None:
    ten = [*[1] * 10, *[2] * 10]
    model = NGram.train([[0, *ten, 3]], size=4, begin=0, order=2, estimator=STUPID)
    assert math.exp(model.next_logprobs([1])[1]) == pytest.approx(0.9, rel=1e-14)
    assert math.exp(model.next_logprobs([1])[3]) == pytest.approx(0.4 / 21, rel=1e-14)
    # nltk's total counts <s> too, 22: so does ours when <s> is an ordinary word (4) behind a begin of its own
    counted = NGram.train([[0, 4, *ten, 3]], size=5, begin=0, order=2, estimator=STUPID)
    assert math.exp(counted.next_logprobs([1])[3]) == pytest.approx(0.0181818, abs=5e-8)
    unseen = NGram.train([[0, *ten, 3]], size=6, begin=0, order=2, estimator=STUPID)  # 4 and 5 were never seen
    assert math.exp(unseen.next_logprobs([1])[4]) == pytest.approx(0.4 * 0.4 / 5, rel=1e-14)  # finite: uniform below


def test_bad_settings_and_a_high_order_are_refused() -> None:
    for prune in ((1,), (0, 2, 1), (0, 0, 0, 1), (0, -1)):
        with pytest.raises(ConfigError, match="thresholds"):
            on_words(TWO, 3, Estimator(smoothing="modified-kneser-ney", prune=prune))
    for fallback in ((0.5, 1.0), (0.5, 1.0, 3.5), (-0.1, 1.0, 1.0)):
        with pytest.raises(ConfigError, match="fallback"):
            on_words(TWO, 3, Estimator(smoothing="modified-kneser-ney", fallback_discounts=fallback))
    assert on_words(TWO, 6).trie.nodes[-1] == 2
    with pytest.raises(DataError, match="order is 6, and the longest document has 5"):
        on_words(["a a b", "b a"], 6)
