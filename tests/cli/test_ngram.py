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


TWO = "a a b a\nb a a b\n"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "two.txt").write_text(TWO, encoding="utf-8")
    return tmp_path


def test_an_arpa_file_from_text_to_score(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arpa = two / "out.arpa"
    flags = ["--order", 3, "--smoothing", "modified-kneser-ney", "--arpa", arpa]
    code = run(["ngram", "train", str(two / "two.txt"), *map(str, flags), "--json"])
    seen = capsys.readouterr()
    made = json.loads(seen.out)
    assert code == 0 and "1, 2, 3" in seen.err and "0.5000 1.0000 1.5000" in seen.err  # the notice of the fallback
    assert made["nodes"] == [5, 7, 7] and made["fallbacks"] == [1, 2, 3] and made["discounts"] == [[0.5, 1, 1.5]] * 3
    assert 20 < made["bytes_per_ngram"] < 30 and not (two / "model").exists()
    scored = told(capsys, "score", arpa, "--text", "a a b a")
    assert scored["log10_prob"] == pytest.approx(-1.447568, abs=6e-7)
    assert scored["perplexity"] == pytest.approx(1.947662, abs=6e-7)
    assert scored["bits_per_token"] == pytest.approx(1.447568 / math.log10(2) / 5, rel=1e-6)
    assert scored["nats_per_token"] == pytest.approx(1.447568 * math.log(10) / 5, rel=1e-6)
    unknown = told(capsys, "score", arpa, "--text", "b a z a")
    assert unknown["log10_prob"] == pytest.approx(-3.101232, abs=6e-7) and unknown["unknown_tokens"] == 1
    whole = told(capsys, "score", arpa, "--file", two / "two.txt")
    parts = [told(capsys, "score", arpa, "--text", line) for line in TWO.splitlines()]
    assert whole["log10_prob"] == pytest.approx(sum(part["log10_prob"] for part in parts))
    assert whole["tokens"] == 10 and whole["documents"] == 2
    shown = told(capsys, "show", arpa, "--history", "a b")
    assert shown["next"][0]["p"][-1] == pytest.approx(10**-0.2997394, rel=1e-5) and shown["next"][0]["count"] is None
    assert "0.501488" in shows(capsys, arpa)


def shows(capsys: pytest.CaptureFixture[str], model: Path) -> str:
    """What a person sees of ``show``."""
    capsys.readouterr()
    assert run(["ngram", "show", str(model), "--history", "a b"]) == 0
    return capsys.readouterr().out


def test_pruning_and_fallback_discounts_by_commas(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--order", 3, "--smoothing", "modified-kneser-ney", "--out", two / "model"]
    made = told(capsys, "train", two / "two.txt", *flags, "--prune", "0,0,1", "--fallback-discounts", "0.5,1,1.25")
    assert made["nodes"] == [5, 7, 1] and made["discounts"][0] == [0.5, 1, 1.25]  # "a a b" alone was seen twice
    again = told(capsys, "train", two / "two.txt", *flags, "--prune", "0", "0", "1")
    assert again["nodes"] == [5, 7, 1]
    shown = told(capsys, "show", two / "model", "--history", "a a", "--top", 1)
    assert shown["next"][0]["token"] == "b" and shown["next"][0]["count"] == 2


def test_an_ngram_model_generates_and_is_measured_like_any_other(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from amauta import load

    arpa, model, text = two / "out.arpa", two / "model", two / "two.txt"
    told(capsys, "train", text, "--order", 3, "--smoothing", "witten-bell", "--arpa", arpa, "--out", model)
    for place in (arpa, model):
        assert (
            run(
                [
                    "generate",
                    "--model",
                    str(place),
                    "--prompt",
                    "a a",
                    "--max-tokens",
                    "2",
                    "--temperature",
                    "0",
                    "--json",
                ]
            )
            == 0
        )
        made = json.loads(capsys.readouterr().out)
        assert made["text"] == " b a" and made["finish"] == "length"
        assert run(["eval", "--model", str(place), "--text", str(text), "--json"]) == 0
        measured = json.loads(capsys.readouterr().out)
        by_file = told(capsys, "score", place, "--file", text, "--document", "file")
        assert measured["log10_prob"] == pytest.approx(by_file["log10_prob"])
        assert run(["eval", "--model", str(place), "--dialogues", str(text)]) == 2
        assert "dialogues" in capsys.readouterr().err
        opened = load(place)
        [one] = opened.score(["a b"], end=True)
        assert sum(one.logprobs) / math.log(10) == pytest.approx(
            told(capsys, "score", place, "--text", "a b")["log10_prob"]
        )


def test_stupid_backoff_has_no_perplexity(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--order", 2, "--smoothing", "stupid-backoff", "--out", two / "model"]
    told(capsys, "train", two / "two.txt", *flags)
    scored = told(capsys, "score", two / "model", "--text", "a b")
    assert scored["perplexity"] is scored["log10_prob"] is scored["bits_per_token"] is None
    assert "do not sum to 1" in scored["reason"]
    # 2 sentences of which 1 begins with a; a: 5 successors, b 2; b: 3 successors, </s> 1
    assert scored["log10_score"] == pytest.approx(math.log10(1 / 2 * 2 / 5 * 1 / 3))


def test_characters_and_foreign_tokenizers(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two / "es.txt").write_text("el año\nla niña\n", encoding="utf-8")
    arpa = two / "letters.arpa"
    flags = ["--unit", "character", "--order", 3, "--smoothing", "witten-bell", "--arpa", arpa, "--out", two / "l"]
    told(capsys, "train", two / "es.txt", *flags)
    scored = told(capsys, "score", two / "l", "--file", two / "es.txt")
    assert scored["tokens"] == 15 and scored["bits_per_byte"] == pytest.approx(scored["bits_per_token"] * 15 / 15)
    again = told(capsys, "score", arpa, "--unit", "character", "--file", two / "es.txt")
    assert again["log10_prob"] == pytest.approx(scored["log10_prob"], abs=1e-5)
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    (two / "foreign").mkdir()
    inner.save(str(two / "foreign" / "tokenizer.json"))
    (two / "foreign" / "tokenizer_config.json").write_text('{"unk_token": "[UNK]"}')
    flags = ["--tokenizer", two / "foreign", "--order", 3, "--smoothing", "modified-kneser-ney", "--document", "line"]
    made = told(capsys, "train", two / "two.txt", *flags, "--arpa", two / "f.arpa", "--out", two / "f")
    assert made["nodes"] == [5, 7, 7]  # a, b, [UNK], and a beginning and an end of the model's own
    for place in ([two / "f"], [two / "f.arpa", "--tokenizer", two / "foreign"]):
        scored = told(capsys, "score", *place, "--text", "a a b a")
        assert scored["log10_prob"] == pytest.approx(-1.447568, abs=6e-7)
    assert run(["generate", "--model", str(two / "f"), "--prompt", "a", "--json"]) == 0


def test_empty_lines_and_marks(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = two / "holes.txt"
    text.write_text("a b\n\n  \nb a\n", encoding="utf-8")
    flags = ["--order", "2", "--smoothing", "witten-bell", "--out", str(two / "model"), "--json"]
    assert run(["ngram", "train", str(text), *flags]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out)["documents"] == 4 and "2 lines without a word were counted" in seen.err
    assert run(["ngram", "score", str(two / "model"), "--file", str(text), "--json"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out)["tokens"] == 8 and "2 lines without a word were counted" in seen.err
    assert run(["ngram", "train", str(text), *flags, "--empty", "skip"]) == 0
    seen = capsys.readouterr()
    made = json.loads(seen.out)
    assert (made["documents"], made["tokens"]) == (2, 6) and "2 lines without a word were left out" in seen.err
    scored = told(capsys, "score", two / "model", "--file", text, "--empty", "skip")
    assert scored["tokens"] == 6
    text.write_text("a b\nb </s> a\n", encoding="utf-8")
    assert run(["ngram", "train", str(text), *flags]) == 2
    assert "Document 2 holds the word </s>" in capsys.readouterr().err
    assert run(["ngram", "train", str(text), *flags, "--marks", "skip"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out)["tokens"] == 6 and "1 words" in seen.err


def test_a_limit_on_memory_gives_the_same_file(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = two / "long.txt"
    text.write_text("".join(f"w{n % 97} w{n % 89} w{n % 7} w{n % 11}\n" for n in range(4000)), encoding="utf-8")
    flags = ["--order", 4, "--smoothing", "modified-kneser-ney"]
    told(capsys, "train", text, *flags, "--arpa", two / "inside.arpa")
    told(capsys, "train", text, *flags, "--arpa", two / "outside.arpa", "--memory", "300K")
    assert (two / "inside.arpa").read_bytes() == (two / "outside.arpa").read_bytes()


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
    assert "nowhere" in refused("train", text)
    assert "no ARPA file" in refused("score", corpus / "none.arpa", "--text", "a")
    assert "own tokenizer" in refused("score", corpus / "model", "--tokenizer", corpus, "--text", "a")
    assert "500M" in refused("train", text, "--memory", "much", "--out", corpus / "new")
    assert "thresholds 1" in refused("train", text, "--prune", "1", "--out", corpus / "new")
    (corpus / "short.txt").write_text("a b\n")
    assert "order is 6" in refused("train", corpus / "short.txt", "--order", 6, "--out", corpus / "new")
    (corpus / "empty.txt").write_text("")
    assert "empty.txt" in refused("train", corpus / "empty.txt", "--out", corpus / "new")
    assert not (corpus / "new").exists()
    assert "9" in refused("train", text, "--order", 9, "--out", corpus / "new")
    (corpus / "bad.jsonl").write_text('{"text": "a", "logprob": 3}\n', encoding="utf-8")
    wrong = refused("train", text, "--heldout", corpus / "bad.jsonl", "--out", corpus / "model")
    assert "bad.jsonl" in wrong and "line 1" in wrong and "logprob" in wrong
