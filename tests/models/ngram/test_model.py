"""The n-gram model against values worked by hand, naive loops and nltk."""

import dataclasses
import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError, ModelError
from amauta.models.ngram import NGram
from amauta.models.ngram.vocabulary import Vocabulary
from amauta.models.ngram_settings import Estimator

S, A, B, E = 0, 1, 2, 3  # <s>, a, b, </s>: three ids can be predicted
MLE, LAPLACE = Estimator(smoothing="maximum-likelihood"), Estimator(smoothing="add-k", k=1.0)
KN = Estimator(discount=0.75, base="none")
TEN = [[S, *[A] * 10, *[B] * 10, E]]
MKN = Estimator(smoothing="modified-kneser-ney")
METHODS = [
    MLE, LAPLACE, Estimator(smoothing="add-k", k=0.1), Estimator(), Estimator(discount=0.3), KN, MKN,
    Estimator(smoothing="witten-bell"), Estimator(smoothing="modified-kneser-ney", prune=(0, 0, 1)),
    Estimator(smoothing="kneser-ney", prune=(0, 1)), Estimator(smoothing="add-k", prune=(0, 1)),
]  # fmt: skip
STUPID = Estimator(smoothing="stupid-backoff")

documents = st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=6)
prefixes = st.lists(st.integers(1, 6), max_size=8)


def laid_out(bodies: list[list[int]]) -> list[list[int]]:
    """Ids 1-5 are words (6 is one never seen), 7 is the end."""
    return [[0, *body, 7] for body in bodies]


def cut(estimator: Estimator, order: int) -> Estimator:
    """The estimator for an order with fewer thresholds than it has."""
    return dataclasses.replace(estimator, prune=estimator.prune[: max(1, order)])


def bigram(estimator: Estimator, size: int = 4, corpus: list[list[int]] = TEN) -> NGram:
    return NGram.train(corpus, size=size, begin=S, order=2, estimator=estimator)


def p(model: NGram, token: int, *history: int) -> float:
    return float(np.exp(model.next_logprobs(history)[token]))


def perplexity(model: NGram, ids: list[int]) -> float:
    return math.exp(-model.score(ids).sum() / (len(ids) - 1))


def test_the_maximum_likelihood_bigram_of_ten_as_and_ten_bs() -> None:
    model = bigram(MLE)
    assert [p(model, A, S), p(model, A, A), p(model, B, A), p(model, B, B), p(model, E, B)] == pytest.approx(
        [1, 0.9, 0.1, 0.9, 0.1], abs=1e-15
    )
    assert math.exp(model.score([S, A, B, E]).sum()) == pytest.approx(0.01, rel=1e-12)
    assert perplexity(model, [S, A, B, E]) == pytest.approx(4.641589, abs=5e-7)
    assert -model.score([S, A, B, E]).mean() == pytest.approx(1.535057, abs=5e-7)
    assert math.exp(model.score([S, A, A, B, E]).sum()) == pytest.approx(0.009, rel=1e-12)
    assert perplexity(model, [S, B, E]) == math.inf  # p(b|<s>) is 0


def test_with_nine_as_the_probability_is_eight_ninths() -> None:
    model = bigram(MLE, corpus=[[S, *[A] * 9, *[B] * 10, E]])
    assert p(model, A, A) == pytest.approx(8 / 9, rel=1e-14)
    assert perplexity(model, [S, A, B, E]) == pytest.approx(4.481405, abs=5e-7)


def test_add_one_divides_by_the_ids_that_can_be_predicted() -> None:
    model = bigram(LAPLACE)
    assert p(model, A, A) == pytest.approx(10 / 13, rel=1e-14)
    assert p(model, E, A) == pytest.approx(1 / 13, rel=1e-14)
    wider = bigram(LAPLACE, size=6)  # nltk's V = 5 counts <s> and <UNK> too
    assert p(wider, A, A) == pytest.approx(0.666667, abs=5e-7)
    assert p(wider, E, A) == pytest.approx(0.066667, abs=5e-7)


def test_kneser_ney_by_hand() -> None:
    model = bigram(KN)
    assert [p(model, token) for token in (A, B, E)] == pytest.approx([2 / 5, 2 / 5, 1 / 5], rel=1e-14)
    assert [p(model, token, A) for token in (A, B, E)] == pytest.approx([0.885, 0.085, 0.03], rel=1e-12)


def test_discount_and_uniform_base_by_hand() -> None:
    # bigrams: <s>a 1, aa 9, ab 1, bb 9, b</s> 1: n1 = 3, n2 = 0, so 0.5. Left neighbours: a 2, b 2, </s> 1: 1/(1+4).
    model = bigram(Estimator())
    assert [table.discounts for table in model.tables] == [pytest.approx((0.2,)), (0.5,)]
    assert model.fallbacks == [2]
    unigram = [(2 - 0.2) / 5 + 0.2 * 3 / 5 / 3, (1 - 0.2) / 5 + 0.2 * 3 / 5 / 3]
    assert [p(model, A), p(model, E)] == pytest.approx(unigram, rel=1e-13)
    assert p(model, E, A) == pytest.approx(0.5 * 2 / 10 * unigram[1], rel=1e-13)


def test_the_uniform_model_has_perplexity_v() -> None:
    model = NGram.train([], size=6, begin=0, order=0)
    assert perplexity(model, [0, 3, 3, 5]) == pytest.approx(5, rel=1e-14)
    assert math.exp(model.score([0, 3, 3, 5]).sum()) == pytest.approx(5.0**-3, rel=1e-13)
    assert np.exp(model.next_logprobs([])).tolist() == pytest.approx([0, *[1 / 5] * 5], rel=1e-14)


def test_a_deterministic_model_is_known_as_one_and_has_perplexity_1() -> None:
    sure = bigram(MLE, corpus=[[S, A, B, E]] * 3)
    assert sure.deterministic
    assert perplexity(sure, [S, A, B, E]) == 1.0 and sure.score([S, A, B, E]).tolist() == [0.0] * 3
    assert not bigram(MLE).deterministic
    assert not bigram(LAPLACE, corpus=[[S, A, B, E]]).deterministic
    # "ab" or "ba": no history in the middle leaves a choice, the first word does
    assert not NGram.train([[S, A, B, E], [S, B, A, E]], size=4, begin=S, order=3, estimator=MLE).deterministic
    assert NGram.train([[S, E]], size=4, begin=S, order=1, estimator=MLE).deterministic
    assert not NGram.train([], size=4, begin=S, order=0).deterministic


@settings(max_examples=60, deadline=None)
@given(bodies=documents, prefix=prefixes, start=st.booleans(), order=st.integers(1, 6), which=st.sampled_from(METHODS))
def test_every_history_gives_a_distribution(
    bodies: list[list[int]], prefix: list[int], start: bool, order: int, which: Estimator
) -> None:
    corpus = laid_out([*bodies, [1, 2, 1, 2]])  # so that every order has an n-gram
    model = NGram.train(corpus, size=8, begin=0, order=order, estimator=cut(which, order))
    log_p = model.next_logprobs([0, *prefix] if start else prefix)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-9)
    assert log_p[0] == -np.inf
    if which not in (MLE, KN):
        assert np.isfinite(log_p[1:]).all()  # id 6 was never seen


@settings(max_examples=60, deadline=None)
@given(
    bodies=documents,
    ids=prefixes,
    start=st.booleans(),
    order=st.integers(0, 6),
    which=st.sampled_from([*METHODS, STUPID]),
)
def test_score_and_next_logprobs_agree_bit_for_bit(
    bodies: list[list[int]], ids: list[int], start: bool, order: int, which: Estimator
) -> None:
    corpus = laid_out([*bodies, [1, 2, 1, 2]])
    model = NGram.train(corpus, size=8, begin=0, order=order, estimator=cut(which, order))
    text = [0, *ids, 7] if start else [*ids, 7]
    expected = [model.next_logprobs(text[:place])[text[place]] for place in range(1, len(text))]
    assert model.score(text).tolist() == expected
    several = [text, [0, 2, 7], [0], text]
    assert model.score_many(several).tolist() == pytest.approx([model.score(one).sum() for one in several], rel=1e-12)


@pytest.mark.parametrize("which", [*METHODS, STUPID])
def test_a_history_never_looks_behind_a_begin(which: Estimator) -> None:
    model = NGram.train(laid_out([[1, 2, 3], [2, 3, 3], [3, 1]]), size=8, begin=0, order=3, estimator=which)
    packed = model.score([0, 1, 2, 7, 0, 3, 1, 7])
    assert packed[3] == -np.inf
    assert packed[4:].tolist() == model.score([0, 3, 1, 7]).tolist()
    assert model.next_logprobs([0, 1, 2, 0]).tolist() == model.next_logprobs([0]).tolist()


def test_maximum_likelihood_is_the_least_cross_entropy() -> None:
    generator = np.random.default_rng(3)
    model = NGram.train(laid_out(generator.integers(1, 6, (20, 15)).tolist()), size=8, begin=0, order=2, estimator=MLE)
    counts = model.successor_counts(1, 2)
    best = np.exp(model.next_logprobs([2]))
    seen = counts > 0
    least = -(counts[seen] * np.log(best[seen])).sum()
    for _ in range(200):
        other = 0.99 * best[seen] + 0.01 * generator.dirichlet(np.ones(seen.sum()))
        assert -(counts[seen] * np.log(other)).sum() > least


def sentences(seed: int, count: int = 12) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return laid_out([generator.integers(1, 6, generator.integers(1, 9)).tolist() for _ in range(count)])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_equal_to_nltk_maximum_likelihood_and_lidstone(order: int) -> None:
    from nltk.lm import MLE as NltkMLE
    from nltk.lm import Lidstone
    from nltk.util import everygrams

    corpus = sentences(order)
    exact, smooth = NltkMLE(order), Lidstone(0.3, order)
    for peer in (exact, smooth):
        words = [[str(i) for i in ids] for ids in corpus]
        # Ids 0 to 7 make 8 types; with <UNK> nltk counts 9 where we have 8 - 1 + 2.
        peer.fit(
            [[g for g in everygrams(ids, max_len=order) if g != ("0",)] for ids in words], [str(i) for i in range(8)]
        )
    ours = NGram.train(corpus, size=8, begin=0, order=order, estimator=MLE)
    wide = NGram.train(corpus, size=10, begin=0, order=order, estimator=Estimator(smoothing="add-k", k=0.3))
    for ids in [*corpus, [0, 5, 6, 1, 2, 7], [0, 6, 6, 7]]:
        for place in range(1, len(ids)):
            context = [str(i) for i in ids[max(0, place - order + 1) : place]]
            assert p(wide, ids[place], *ids[:place]) == pytest.approx(smooth.score(str(ids[place]), context), rel=1e-12)
            if not context or exact.counts[context].N():
                assert p(ours, ids[place], *ids[:place]) == pytest.approx(
                    exact.score(str(ids[place]), context), rel=1e-12
                )


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_equal_to_nltk_kneser_ney(order: int) -> None:
    from nltk.lm import KneserNeyInterpolated

    corpus = sentences(order, 25)
    # nltk counts left neighbours at the start of a document too. A neighbour of its own for every document makes that
    # count the raw count, which is what we (and lmplz) keep there.
    marked = [[f"#{number}", *map(str, ids)] for number, ids in enumerate(corpus)]
    peer = KneserNeyInterpolated(order, discount=0.4)
    peer.fit(
        [
            [tuple(ids[end - k : end]) for k in range(1, order + 1) for end in range(max(3, k), len(ids) + 1)]
            for ids in marked
        ],
        [piece for ids in marked for piece in ids],
    )
    ours = NGram.train(corpus, size=8, begin=0, order=order, estimator=Estimator(discount=0.4, base="none"))
    for ids in [*corpus[:8], [0, 5, 1, 1, 2, 4, 7], [0, 3, 3, 3, 3, 3, 7]]:
        for place in range(1, len(ids)):
            context = [str(i) for i in ids[max(0, place - order + 1) : place]]
            assert p(ours, ids[place], *ids[:place]) == pytest.approx(peer.score(str(ids[place]), context), rel=1e-10)


def test_sampling_follows_the_model_and_its_seed() -> None:
    model = bigram(MLE)

    def draw(seed: int, temperature: float = 1.0, tokens: int = 1) -> list[int]:
        generator = np.random.default_rng(seed)
        return model.generate([S, A], tokens=tokens, end=E, temperature=temperature, generator=generator)

    firsts = Counter(draw(seed)[0] for seed in range(3000))
    assert set(firsts) == {A, B}
    assert firsts[A] / 3000 == pytest.approx(0.9, abs=0.025)  # 4.5 standard deviations
    cool = Counter(draw(seed, 0.5)[0] for seed in range(3000))
    assert cool[B] / 3000 == pytest.approx(0.01 / 0.82, abs=0.01)  # p squared, normalised
    assert draw(0, temperature=0, tokens=5) == [A] * 5
    long = draw(4, tokens=500)
    assert long == draw(4, tokens=500)
    assert long[-1] == E and E not in long[:-1]
    zero = SimpleNamespace(random=lambda: 0.0)  # the smallest draw must not fall on begin, which has no mass
    assert model.generate([S, A], tokens=1, end=E, temperature=1.0, generator=zero) == [A]


def test_a_bad_id_is_named_with_its_place() -> None:
    model = bigram(MLE)
    with pytest.raises(ModelError, match="place 2 is 9"):
        model.score([S, A, 9])
    with pytest.raises(ModelError, match="-1"):
        model.next_logprobs([S, -1])


def test_bad_corpora_are_refused() -> None:
    for wrong in ([[S, A, E], [A, B, E]], [[S, A, E], [S, A, S, E]]):
        with pytest.raises(DataError, match="Document 2"):
            bigram(MLE, corpus=wrong)
    with pytest.raises(DataError, match="Document 2 has no ids"):
        bigram(MLE, corpus=[[S, A], [], [S, A]])
    with pytest.raises(DataError, match="nothing to count"):
        bigram(MLE, corpus=[])
    with pytest.raises(ModelError, match="is 4"):
        bigram(MLE, corpus=[[S, 4]])


@pytest.mark.parametrize("which", [*METHODS, STUPID])
def test_loaded_equals_saved_bit_for_bit(which: Estimator, tmp_path) -> None:
    words = Vocabulary.of(["a b c", "c a"], "word")
    corpus = [words.document(text) for text in ("a b c a b", "c a", "b b a")]
    model = NGram.train(corpus, size=words.size, begin=words.begin, order=3, estimator=which, tokenizer=words)
    model.save(tmp_path / "deep" / "model")
    model.save(tmp_path / "deep" / "model")  # replaces what it wrote itself
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["model"]
    loaded = NGram.load(tmp_path / "deep" / "model")
    assert loaded.estimator == which
    for mine, theirs in zip(model.tables, loaded.tables, strict=True):
        assert mine.log_p.tobytes() == theirs.log_p.tobytes()
        assert mine.log_gamma.tobytes() == theirs.log_gamma.tobytes()
    assert loaded.tokenizer.document("a z") == words.document("a z") == [0, words.encode("a")[0], 2, 1]


def test_a_damaged_or_foreign_folder_is_refused(tmp_path) -> None:
    folder = tmp_path / "model"
    words = Vocabulary("ab", "character")
    NGram.train([words.document("ab")], size=5, begin=0, order=2, tokenizer=words).save(folder)
    Vocabulary("ba", "character").save(folder)
    with pytest.raises(ModelError, match="not the one"):
        NGram.load(folder)
    words.save(folder)
    whole = (folder / "ngrams.npz").read_bytes()
    (folder / "ngrams.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        NGram.load(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match="'llama'"):
        NGram.load(folder)
    with pytest.raises(ModelError, match="would remove it"):
        bigram(MLE).save(folder)
    with pytest.raises(ModelError, match="no n-gram model"):
        NGram.load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch) -> None:
    bigram(MLE).save(tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("amauta.models.ngram.storage.write_ngrams", full)
    with pytest.raises(Exception, match="model"):
        bigram(KN).save(tmp_path / "model")
    assert NGram.load(tmp_path / "model").estimator == MLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_long_streams_are_scored_in_blocks_that_know_what_stood_before(monkeypatch) -> None:
    corpus = sentences(3, 40)
    model = NGram.train(corpus, size=8, begin=0, order=4, estimator=MKN)
    stream = np.array([id for ids in corpus for id in ids])
    whole = model.score_stream(stream)
    for block in (1, 2, 3, 7):
        monkeypatch.setattr("amauta.models.ngram.model.BLOCK", block)
        assert model.score_stream(stream).tolist() == whole.tolist()


def test_memory_of_a_model_is_that_of_its_arrays() -> None:
    model = NGram.train(sentences(1, 30), size=8, begin=0, order=3, estimator=MKN)
    before = model.bytes
    per_node = before / sum(model.trie.nodes)
    assert 20 < per_node < 40  # token 4, start 4, count 4, log p 8, log gamma 8, and what a level begins with
    model.score_stream(np.concatenate(sentences(1, 30)))
    assert model.bytes > before  # the tables for finding
