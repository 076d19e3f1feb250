"""The n-gram commands, called in process: the figures that they print for texts worked by hand."""

import json
import math
from pathlib import Path

import pytest

from amauta.cli._root import run

LINES = "a a a a a a a a a a b b b b b b b b b b\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(LINES, encoding="utf-8")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """The JSON line of a command that must succeed."""
    capsys.readouterr()
    code = run(["ngram", *map(str, words), "--json"])
    seen = capsys.readouterr()
    assert code == 0, seen.err
    return json.loads(seen.out)


def test_train_score_generate_show_on_words(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = corpus / "model"
    made = told(
        capsys, "train", corpus / "corpus.txt", "--order", 2, "--smoothing", "maximum-likelihood", "--out", model
    )
    # <s>a aa ab bb b</s>; two words and </s>
    assert made["ngrams"] == [3, 5] and made["tokens"] == 21 and made["documents"] == 1
    scored = told(capsys, "score", model, "--text", "a b")
    assert scored["perplexity"] == pytest.approx(4.641589, abs=5e-7)
    assert scored["log10_prob"] == pytest.approx(-2, rel=1e-12)
    assert scored["tokens"] == 3 and "bits_per_byte" not in scored  # the space between words is not coded
    assert told(capsys, "score", model, "--text", "b")["perplexity"] is None  # infinite
    shown = told(capsys, "show", model, "--history", "a", "--top", 2)
    assert [(row["token"], row["count"]) for row in shown["next"]] == [("a", 9), ("b", 1)]
    assert shown["next"][0]["p"] == pytest.approx([1 / 4, 10 / 21, 0.9])  # <unk>, </s>, a, b: 1/4
    assert [row["count"] for row in shown["orders"]] == [21, 10]
    first = told(capsys, "generate", model, "--seed", 3, "--max-tokens", 60)
    assert first == told(capsys, "generate", model, "--seed", 3, "--max-tokens", 60)
    assert first["ended"] and len(first["logprobs"]) == first["tokens"]
    written = first["text"].split()
    again = told(capsys, "score", model, "--text", first["text"])
    assert written == sorted(written) and again["log10_prob"] == pytest.approx(sum(first["logprobs"]) / math.log(10))


def test_unknown_words_are_counted_and_a_closed_vocabulary_refuses_them(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = corpus / "model"
    told(capsys, "train", corpus / "corpus.txt", "--order", 1, "--smoothing", "add-k", "--out", model)
    scored = told(capsys, "score", model, "--text", "a z")
    # 21 events, V = a, b, </s>, <unk>: p(a) = 11/25, p(<unk>) = 1/25, p(</s>) = 2/25
    assert scored["unknown_tokens"] == 1
    assert scored["perplexity"] == pytest.approx((25**3 / (11 * 1 * 2)) ** (1 / 3))
    assert scored["perplexity_without_unknown"] == pytest.approx((25**2 / (11 * 2)) ** (1 / 2))
    told(capsys, "train", corpus / "corpus.txt", "--closed", "--out", model)
    assert run(["ngram", "score", str(model), "--text", "a z"]) == 2
    assert "'z'" in capsys.readouterr().err


def test_a_tokenizer_and_exact_log_probabilities(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"la llama {n} come pasto", "logprob": -10 * math.log(2)} for n in range(40)]
    (corpus / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = corpus / "tokenizer"
    making = ["tokenizer", "train", "--text", str(corpus / "rows.jsonl"), "--out", str(tokenizer), "--size", "280"]
    assert run(making) == 0
    flags = ["--tokenizer", tokenizer, "--heldout", corpus / "rows.jsonl", "--order", 4, "--out", corpus / "model"]
    made = told(capsys, "train", corpus / "rows.jsonl", *flags)
    size = sum(len(row["text"].encode()) for row in rows)
    assert made["bytes"] == size and made["documents"] == 40
    assert made["entropy_bits_per_byte"] == pytest.approx(400 / size)
    assert made["excess"] == pytest.approx(made["bits_per_byte"] * size / 400 - 1)
    assert made["log10_prob"] == pytest.approx(-made["bits_per_byte"] * size * math.log10(2))
    scored = told(capsys, "score", corpus / "model", "--file", corpus / "rows.jsonl")
    assert scored["bits_per_byte"] == made["bits_per_byte"]
    made_up = told(capsys, "generate", corpus / "model", "--prompt", "la llama", "--max-tokens", 30)
    assert made_up["text"].startswith("la llama")


def test_user_mistakes(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object) -> str:
        capsys.readouterr()
        assert run(["ngram", *map(str, words)]) == 2
        return capsys.readouterr().err

    text = corpus / "corpus.txt"
    assert "no n-gram model" in refused("score", corpus, "--text", "a")
    told(capsys, "train", text, "--order", 2, "--out", corpus / "model")
    assert "--text" in refused("score", corpus / "model")
    assert "Give one of them" in refused("score", corpus / "model", "--text", "a", "--file", text)
    assert "would remove it" in refused("train", text, "--out", corpus)
    assert text.read_text(encoding="utf-8") == LINES
    assert "9" in refused("train", text, "--order", 9, "--out", corpus / "new")
    (corpus / "bad.jsonl").write_text('{"text": "a", "logprob": 3}\n', encoding="utf-8")
    wrong = refused("train", text, "--heldout", corpus / "bad.jsonl", "--out", corpus / "model")
    assert "bad.jsonl" in wrong and "line 1" in wrong and "logprob" in wrong
