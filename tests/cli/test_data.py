"""``amauta data``: each command once in process, and a user's mistakes by their exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from amauta.cli import main


def call(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The JSON line of one call that ended well."""
    assert main(["data", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_curate_then_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["Uno.", "Uno.", "", "Dos \n\n\n\nmás"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    made = call(capsys, "curate", "--text", f"{tmp_path}/*.jsonl", "--out", f"{tmp_path}/out", "--heldout", "0")
    assert (made["documents"], made["train"]["documents"]) == (4, 2)
    assert made["dropped"] == {"empty": 1, "short": 0, "duplicate": 1}
    shown = call(capsys, "show", f"{tmp_path}/out/train.jsonl", "--count", "1")
    (file,) = shown["files"].values()
    assert shown["shapes"] == {"text": 2} and file["first"] == [{"line": 1, "shape": "text", "text": "Uno."}]
    assert main(["data", "show", f"{tmp_path}/out/train.jsonl"]) == 0
    assert 'text: "Dos\\n\\nmás"' in capsys.readouterr().out


def test_smallworld_writes_records_that_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = "--people 6 --villages 2 --documents 300 --heldout-documents 10 --heldout-dialogues 5 --dialogues 50"
    made = call(capsys, "smallworld", "--out", f"{tmp_path}/w", *few.split(), "--preferences", "20", "--labels", "20")
    assert made["documents"] == 300
    shown = call(capsys, "show", f"{tmp_path}/w/*.jsonl", "--count", "0")
    assert shown["bad"] == 0 and "unknown" not in shown["shapes"]
    assert shown["files"][f"{tmp_path}/w/documents.train.jsonl"]["shapes"] == {"text": 300}
    assert shown["files"][f"{tmp_path}/w/preferences.train.jsonl"]["shapes"].keys() == {"preference"}


@pytest.mark.parametrize("command", [["show"], ["curate", "--out", "o", "--text"]])
def test_a_missing_file_is_a_users_mistake(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *command, "gone.jsonl"]) == 2
    assert "gone.jsonl does not exist" in " ".join(capsys.readouterr().err.split())
