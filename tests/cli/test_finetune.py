"""``amauta finetune`` as it is typed: flags of a task's columns, a task in a file, help in both languages."""

import json
from pathlib import Path
from typing import Any

import pytest

from amauta.cli import main
from amauta.models import exchange
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe

ROWS = [{"a": f"{word} {other}", "stars": int(word == "good")} for word in ("good", "bad") for other in "xyz"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = train_bpe([row["a"] for row in ROWS], 300, allow_smaller=True)
    spec = Spec(vocabulary=tokenizer.size, context=32, width=16, layers=1, heads=2)
    folder = tmp_path / "base"
    folder.mkdir()
    write_model(Transformer.create(spec, 0), tokenizer, folder)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def test_columns_by_flags_and_seeds(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows, out = str(tmp_path / "rows.jsonl"), tmp_path / "run"
    words = ["finetune", "--model", str(base), "--task", rows, "--heldout", rows, "--text", "a", "--label", "stars",
             "--labels", "poor", "fine", "--out", str(out), "--steps", "2", "--rows", "4", "--seeds", "2", "--device",
             "cpu", "--json"]  # fmt: skip
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seeds"] == [7, 8] and len(told["accuracy_values"]) == 2 and told["labels"] == ["poor", "fine"]
    assert exchange.load(out / "seed-7" / "model").spec.label_names == ("poor", "fine")
    assert main(words) == 2  # a run stands there
    assert main([*words, "--resume"]) == 0


def test_a_task_in_a_file(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "task.toml").write_text(
        f'task = ["{(tmp_path / "rows.jsonl").as_posix()}"]\nmanner = "t5"\ninput = "rate: {{a}}"\n'
        'labels = ["poor", "fine"]\n[columns]\ntext = "a"\nlabel = "stars"\n[loop]\nsteps = 1\ndevice = "cpu"\n'
    )
    words = ["finetune", "--config", str(tmp_path / "task.toml"), "--model", str(base), "--out", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "classification"
    assert main([*words[:-1], str(tmp_path / "other"), "--text", "b", "--json"]) == 2
    said = capsys.readouterr()
    assert "no column b; it has a, stars" in said.err and json.loads(said.out)["key"] == "finetune.no-column"


def test_nothing_but_a_model_and_a_task(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.jsonl").write_text('{"text": "good x", "label": "fine"}\n{"text": "bad x", "label": "poor"}\n')
    assert main(["finetune", "--model", str(base), "--task", "task.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "finetuned/model" and told["labels"] == ["fine", "poor"]
    assert exchange.load(tmp_path / told["model"]).spec.label_names == ("fine", "poor")


GOOD = [{"text": "good", "label": "fine"}, {"text": "bad", "label": "poor"}]
PAIRS = [{"text": "x " * n, "text_pair": "y", "label": n % 2} for n in (1, 2, 60, 61)]


@pytest.mark.parametrize(
    ("rows", "flags", "key", "said"),
    [
        ([*GOOD, {"text": "x", "label": "odd"}], ["--labels", "fine", "poor"], "unknown-label",
         'task.jsonl:3: the label "odd"'),
        (GOOD, ["--labels", "fine", "poor", "odd"], "empty-class", "Without examples: odd; with: fine: 1, poor: 1"),
        ([{"sentence": "x", "label": 1}], [], "no-column", "no column text; it has sentence, label"),
        (PAIRS, ["--too-long", "error"], "too-long", "task.jsonl:3:"),
    ],
)  # fmt: skip
def test_bad_tasks_are_refused_by_name(
    rows: list[dict[str, Any]], flags: list[str], key: str, said: str, base: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["finetune", "--model", str(base), "--task", str(task), "--out", str(tmp_path / "run"), "--manner", "gpt"]
    assert main([*words, *flags, "--device", "cpu", "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["key"] == f"finetune.{key}" and said in " ".join(told.err.split())


@pytest.mark.parametrize(("policy", "counts"), [("cut", (4, 2, 0)), ("drop", (2, 0, 2))])
def test_pairs_longer_than_the_model_are_counted_and_said(
    policy: str, counts: tuple[int, int, int], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    words = ["finetune", "--model", str(base), "--task", str(task), "--out", str(tmp_path / "run"), "--manner", "gpt",
             "--too-long", policy, "--steps", "1", "--device", "cpu", "--json"]  # fmt: skip
    assert main(words) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["kept"], found["cut"], found["dropped"]) == counts
    said = "4 records: {} kept, {dropped} longer than 32 tokens dropped, {cut} cut"
    assert said.format(counts[0], cut=counts[1], dropped=counts[2]) in " ".join(told.err.split())


def test_help_speaks_both_languages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for language, words in (("en", "records to learn"), ("es", "registros que se aprenden")):
        monkeypatch.setenv("AMAUTA_LANG", language)
        assert main(["finetune", "--help"]) == 0
        said = capsys.readouterr().out
        assert words in " ".join(said.split()).replace("│ │ ", "") and "amauta finetune --model minilm" in said
