"""ARPA files: written and read again, read by the kenlm library, damaged in every way."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import ModelError
from amauta.models.ngram import NGram
from amauta.models.ngram.arpa_read import read_arpa
from amauta.models.ngram.arpa_write import write_arpa
from amauta.models.ngram.vocabulary import Vocabulary
from amauta.models.ngram_settings import Estimator
from tests.models.ngram.test_estimate import TWO, on_words

METHODS = [
    Estimator(smoothing="modified-kneser-ney"), Estimator(), Estimator(smoothing="witten-bell"),
    Estimator(smoothing="maximum-likelihood"), Estimator(smoothing="modified-kneser-ney", prune=(0, 0, 1)),
]  # fmt: skip
lines = st.lists(st.lists(st.sampled_from(["a", "b", "año", "l'été", "x\u00a0y"]), max_size=9), min_size=1, max_size=6)


def written(model: NGram, folder: Path, name: str = "model.arpa") -> Path:
    write_arpa(model, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("arpa")


@settings(max_examples=40, deadline=None)
@given(words=lines, order=st.integers(1, 5), which=st.sampled_from(METHODS))
def test_what_is_read_gives_the_scores_of_what_was_written(folder: Path, words, order: int, which: Estimator) -> None:
    texts = [" ".join(line) for line in [*words, ["a", "b", "a", "b"]]]
    estimator = Estimator(smoothing=which.smoothing, prune=which.prune[:order])
    model = on_words(texts, order, estimator)
    read = read_arpa(written(model, folder))
    assert read.trie.nodes == model.trie.nodes and read.source == "arpa" and read.trie.counts is None
    for text in [*texts, "a z b", "", "b b b b"]:
        mine, theirs = (one.score(one.tokenizer.document(text)) for one in (model, read))
        assert np.isfinite(theirs).tolist() == np.isfinite(mine).tolist()
        assert theirs[np.isfinite(theirs)].tolist() == pytest.approx(mine[np.isfinite(mine)].tolist(), abs=2e-6)
    if estimator.smoothing != "maximum-likelihood":
        total = np.exp(read.next_logprobs(read.tokenizer.prompt("a b"))).sum()
        assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("which", METHODS[:3] + METHODS[4:])
@pytest.mark.parametrize("order", [2, 3, 5])
def test_the_kenlm_library_gives_the_same_scores(tmp_path: Path, which: Estimator, order: int) -> None:
    kenlm = pytest.importorskip("kenlm")
    generator = np.random.default_rng(order)
    texts = [" ".join("abcdefgh"[i] for i in generator.integers(0, 8, generator.integers(1, 12))) for _ in range(60)]
    model = on_words(texts, order, Estimator(smoothing=which.smoothing, prune=which.prune[:order]))
    theirs = kenlm.Model(str(written(model, tmp_path)))
    for text in [*texts, "a z b", "z z", "h h h h h h"]:
        ours = model.score(model.tokenizer.document(text)) / math.log(10)
        assert ours.sum() == pytest.approx(theirs.score(text, bos=True, eos=True), abs=2e-5)
        each = [p for p, _, _ in theirs.full_scores(text, bos=True, eos=True)]
        assert ours.tolist() == pytest.approx(each, abs=2e-5)


def test_the_file_of_two_lines(tmp_path: Path) -> None:
    text = written(on_words(TWO, 3), tmp_path).read_text(encoding="utf-8")
    assert text.startswith("\\data\\\nngram 1=5\nngram 2=7\nngram 3=7\n\n\\1-grams:\n0\t<s>\t-0.30103\n")
    assert text.endswith("\n\n\\end\\\n")
    for line in ("-0.90309\t<unk>\t0", "-0.14885089\t<s> a a", "-0.2984526\tb a\t-0.30103"):
        assert f"\n{line}\n" in text
    read = read_arpa(tmp_path / "model.arpa")
    assert read.score(read.tokenizer.document("a a b a")).sum() / math.log(10) == pytest.approx(-1.447568, abs=6e-7)


def test_many_lines_are_written_in_order(tmp_path: Path, monkeypatch) -> None:
    model = on_words(["a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 2, 3)
    whole = written(model, tmp_path).read_bytes()
    monkeypatch.setattr("amauta.models.ngram.arpa_write.LINES", 2)
    assert written(model, tmp_path, "again.arpa").read_bytes() == whole


def test_characters_bare_ids_and_packed_files(tmp_path: Path) -> None:
    letters = Vocabulary.of(["el año\tno"], "character")
    model = NGram.train([letters.document("el año\tno")], size=letters.size, begin=0, order=2, tokenizer=letters)
    file = written(model, tmp_path, "letters.arpa.gz")
    assert b"\t<0x20> a\n" in gzip.decompress(file.read_bytes())
    read = read_arpa(file, unit="character")
    assert read.tokenizer.entries == letters.entries
    assert read.score(letters.document("no el")).tolist() == pytest.approx(
        model.score(letters.document("no el")).tolist(), abs=1e-6
    )
    bare = NGram.train([[0, 2, 3, 1]], size=4, begin=0, order=2)
    assert "\t2 3\n" in written(bare, tmp_path, "bare.arpa").read_text()


def test_a_tokenizers_tokens_are_read_back_as_its_ids(tmp_path: Path) -> None:
    from amauta.models.ngram.framed import framed
    from amauta.tokenize.train import train_bpe

    texts = ["la llama come pasto", "la llama duerme", "come la llama"]
    tokenizer = framed(train_bpe(texts, 280, allow_smaller=True))
    rows = [tokenizer.document(text) for text in texts]
    model = NGram.train(rows, size=tokenizer.size, begin=tokenizer.begin, order=3, tokenizer=tokenizer)
    file = written(model, tmp_path)
    read = read_arpa(file, tokenizer=tokenizer)
    for ids in rows:
        assert read.score(ids).tolist() == pytest.approx(model.score(ids).tolist(), abs=2e-6)
    # tokens that the file does not list share the probability of its <unk>
    lines = file.read_text(encoding="utf-8").split("\n")
    seen = {id for ids in rows for id in ids} | {tokenizer.begin}
    names = [name for name in lines[lines.index("\\1-grams:") + 1 :][: tokenizer.size]]
    kept = [line for id, line in enumerate(names) if id in seen]
    gone = sum(10 ** float(line.split("\t")[0]) for id, line in enumerate(names) if id not in seen)
    start = lines.index("\\1-grams:") + 1
    lines[start : start + tokenizer.size] = [*kept, f"{math.log10(gone)}\t<unk>\t0"]
    lines[1] = f"ngram 1={len(kept) + 1}"
    file.write_text("\n".join(lines), encoding="utf-8")
    few = read_arpa(file, tokenizer=tokenizer)
    assert few.score(rows[0]).tolist() == pytest.approx(model.score(rows[0]).tolist(), abs=2e-6)
    assert np.exp(few.next_logprobs([])).sum() == pytest.approx(1, abs=1e-5)
    file.write_text(file.read_text(encoding="utf-8").replace("<unk>", "¿nada?"), encoding="utf-8")
    with pytest.raises(ModelError, match="no such token"):
        read_arpa(file, tokenizer=tokenizer)


def test_spaces_for_tabs_and_log_zero_are_read(tmp_path: Path) -> None:
    file = written(on_words(["a b a", "b"], 2, Estimator(smoothing="maximum-likelihood")), tmp_path)
    text = file.read_text(encoding="utf-8")
    assert "-99\t<unk>" in text
    table = read_arpa(file)
    (tmp_path / "spaces.arpa").write_text("made by hand\n\n" + text.replace("\t", "  ").replace("\n", " \r\n"))
    (tmp_path / "bare.arpa").write_text(text.replace("\t0\n", "\n"))  # a gamma of 1 may be left out
    (tmp_path / "ends.arpa").write_bytes(text.replace("\n", "\r\n").encode())
    for name in ("spaces.arpa", "bare.arpa", "ends.arpa"):
        read = read_arpa(tmp_path / name)
        for text in ("a b", "b", "a a z", "z"):
            ids = table.tokenizer.document(text)
            assert read.score(ids).tolist() == table.score(ids).tolist()
    assert table.score(table.tokenizer.document("z"))[0] == -math.inf


DAMAGE = [
    ("ngram 2=7", "ngram 2=8", r"tells of 8 2-grams.*line 14 has 7"),
    ("ngram 3=7", "ngram 3=6", r"tells of 6 3-grams.*line 23 has 7"),
    ("ngram 2=7\n", "", r"line 3: 'ngram 3=7': expected 'ngram 2=NUMBER'"),
    ("ngram 3=7\n", "", r"line 21: .*3-grams:.*: expected .end."),
    ("\\data\\\n", "", r"line 1: .*header"),
    ("\\end\\\n", "", r"expected .end."),
    ("\\3-grams:\n", "", r"expected .3-grams:"),
    ("-0.2984526\tb a\t-0.30103", "-0.29x\tb a\t-0.30103", r"line 20: '-0.29x.*number"),
    ("-0.2984526\tb a\t-0.30103", "0.5\tb a\t-0.30103", r"line 20: .*not above 0"),
    ("-0.2984526\tb a\t-0.30103", "nan\tb a\t-0.30103", r"line 20: .*finite"),
    ("-0.2984526\tb a\t-0.30103", "-0.2984526\tb\t-0.30103", r"line 20: .*no unigram"),  # two words
    ("-0.2984526\tb a\t-0.30103", "-0.2984526\tb a a a\t-0.30103", r"line 20: .*2 words"),
    ("-0.2984526\tb a\t-0.30103", "-0.2984526\tb q\t-0.30103", r"line 20: .*no unigram"),
    ("-0.2984526\tb a\t-0.30103", "-0.2984526\ta a\t-0.30103", r"line 20: .*before"),
    ("-0.14885089\t<s> a a", "-0.14885089\t</s> a a", r"line 23: .*first 2 words are no 2-gram"),
    ("\t<s>\t", "\t<S>\t", r"<s> is not among the 1-grams"),
    ("\ta\t-0.30103\n", "\tb\t-0.30103\n", r"line 11: .*before"),
]


@pytest.mark.parametrize(("old", "new", "told"), DAMAGE)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = written(on_words(TWO, 3), tmp_path)
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ModelError, match=told):
        read_arpa(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no ARPA file"):
        read_arpa(tmp_path / "nowhere.arpa")
    packed = written(on_words(TWO, 3), tmp_path, "model.arpa.gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ModelError, match="cannot be read"):
        read_arpa(packed)
    (tmp_path / "empty.arpa").write_text("")
    with pytest.raises(ModelError, match="line 1: .*header"):
        read_arpa(tmp_path / "empty.arpa")
    whole = written(on_words(TWO, 3), tmp_path).read_bytes()
    (tmp_path / "bytes.arpa").write_bytes(whole.replace(b"\ta\t", b"\t\xff\t"))
    with pytest.raises(ModelError, match="line 10: .*not UTF-8"):
        read_arpa(tmp_path / "bytes.arpa")


def test_what_the_format_cannot_hold(tmp_path: Path) -> None:
    for estimator in (Estimator(smoothing="add-k"), Estimator(smoothing="stupid-backoff")):
        with pytest.raises(ModelError, match="cannot be an ARPA file"):
            written(on_words(TWO, 2, estimator), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("amauta.models.ngram.arpa_write._lines", fail)
    with pytest.raises(Exception, match="model.arpa"):
        written(on_words(TWO, 2), tmp_path)
    assert not any(tmp_path.iterdir())
