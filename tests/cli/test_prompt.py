"""The prompt commands, called in process on a small n-gram model of letters: the whole way with a real model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from amauta.cli._root import run
from amauta.models.ngram import NGram
from amauta.prompt.tasks import named

MODEL_SAYS = "Q: 1 + 1\nA: 2\n\nQ: 2 + 2\nA: 4\n\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five letters of history, over sums and news; it was never told of "+ 3"."""
    folder = tmp_path_factory.mktemp("ngram")
    news = "".join(f"{one.question}\n{one.answer}\n\n" for one in named("sentiment").demonstrations)
    (folder / "text.txt").write_text((MODEL_SAYS + news.replace("\n\n", "\n \n")) * 3 + MODEL_SAYS, encoding="utf-8")
    words = ["ngram", "train", str(folder / "text.txt"), "--unit", "character", "--order", "6", "--smoothing",
             "witten-bell", "--document", "file", "--out", str(folder / "model")]  # fmt: skip
    assert run(words) == 0
    return folder / "model"


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    rows = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in (1, 2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0, plain: bool = False):
    capsys.readouterr()
    found = run(["prompt", *map(str, words), *([] if plain else ["--json"])])
    seen = capsys.readouterr()
    assert found == code, seen.err
    return seen.out if plain else json.loads(seen.out)


def test_run_and_go_on(model: Path, sums: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out, tree = tmp_path / "out.jsonl", tmp_path / "tree.html"
    words = ["run", sums, "--model", model, "--max-tokens", 6, "--out", out, "--tree", tree, "--examples", 5]
    found = told(capsys, *words)
    assert found["accuracy"] == 1 and found["examples"] == 2 and found["method"] == "direct"
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert sorted(row["text"] for row in rows) == [" 2", " 4"]
    assert rows[0]["settings"]["temperature"] == 0 and rows[0]["settings"]["max_tokens"] == 6
    assert (tmp_path / "tree-1.html").is_file() and (tmp_path / "tree-2.html").is_file()
    before = out.read_bytes()
    assert told(capsys, *words) == found and out.read_bytes() == before
    assert "100.0 %" in told(capsys, *words, plain=True)


def test_show(model: Path, capsys: pytest.CaptureFixture[str]):
    words = ["show", "sentiment", "--method", "few-shot", "--shots", 1, "--model", model]
    found = told(capsys, *words)
    text = found["prompts"][0]["text"].removeprefix("<s>")
    assert text.endswith("\n\nProfit should improve.\n") and found["verbalisers"] == ["Positive", "Negative", "Neutral"]
    assert found["prompts"][0]["tokens"] == len(found["prompts"][0]["pieces"]) == len(text) + 1
    assert text in told(capsys, *words, plain=True)


def test_labels_by_a_model_that_can_be_enumerated(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """The log-prob of a label, against the model's distribution after each letter of it."""
    out = tmp_path / "rows.jsonl"
    words = ["labels", "sentiment", "--model", model, "--shots", 2, "--seeds", 2, "--examples", 3, "--out", out]
    found = told(capsys, *words)
    assert set(found["conditions"]) == {"none", "gold", "random"} and "caveat" in found
    inner = NGram.load(model)
    row = next(json.loads(line) for line in out.read_text().splitlines())
    for label, logprob in row["logprobs"].items():
        ids = inner.tokenizer.prompt(f"{row['question']}\n")
        total = 0.0
        for id in inner.tokenizer.encode(label):
            p = np.exp(inner.next_logprobs(ids))
            assert p.sum() == pytest.approx(1, abs=1e-5)
            total += math.log(p[id])
            ids = [*ids, id]
        assert logprob == pytest.approx(total, abs=1e-4)
    shown = told(capsys, *words, plain=True)
    assert "gold minus random" in shown and "larger models" in shown


def test_compare(model: Path, sums: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    words = [
        "compare",
        sums,
        "--methods",
        "direct,cot",
        "--model",
        model,
        "--sampling.max-tokens",
        4,
        "--out",
        tmp_path,
    ]
    found = told(capsys, *words)
    assert [one["method"] for one in found["methods"]] == ["direct", "cot"]
    assert [one["calls"] for one in found["methods"]] == [1, 2]
    assert (tmp_path / "direct.jsonl").is_file() and (tmp_path / "cot.jsonl").is_file()
    lines = told(capsys, *words, plain=True).splitlines()
    assert lines[1].startswith("direct") and lines[2].startswith("cot")


def test_records(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = tmp_path / "addition.jsonl"
    assert told(capsys, "records", "addition", "--out", out, "--count", 20)["records"] == 20
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 20 and all(set(row) == {"prompt", "completion"} for row in rows)
    assert all(row["completion"].startswith("<scratch>\n") for row in rows)
    told(capsys, "records", "addition", "--out", out, "--count", 3, "--no-steps")
    assert "scratch" not in out.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "sentimnt", "--model", "m"], "sentiment"),
        (["run", "sentiment", "--method", "cott", "--model", "m"], "cot"),
        (["compare", "sentiment", "--methods", "direct,cott", "--model", "m"], "cott"),
        (["records", "sentiment", "--out", "x.jsonl"], "addition"),
        (["run", "none.jsonl", "--model", "m"], "none.jsonl"),
    ],
    ids=["task", "method", "methods", "records", "file"],
)
def test_mistakes_are_told_before_a_model_is_loaded(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(["prompt", *words]) == 2
    assert said in capsys.readouterr().err
