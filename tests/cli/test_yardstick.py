"""``amauta yardstick`` as it is typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from amauta.cli import main
from tests.yardstick.conftest import SMALL
from tests.yardstick.test_ground import prose


def flags(values: dict[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


FLAGS = flags(SMALL)
BARE = flags({name: value for name, value in SMALL.items() if name != "budget"})


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Flags of a corpus and a task of one's own."""
    prose(tmp_path / "book.txt", 900)
    rows = [{"text": f"bird number {n}", "label": n % 2} for n in range(30)]
    (tmp_path / "birds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--corpus", str(tmp_path / "book.txt"), "--tasks", str(tmp_path / "birds.jsonl")]


def test_a_plan_in_words_and_in_json(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["yardstick", "--out", str(tmp_path / "out"), *FLAGS, *given, "--only", "families", "nsp", "--plan"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["system"] for one in told["plan"]] == ["encoder", "encoder-decoder", "decoder", "encoder-nsp"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "| encoder-nsp" in said and "1 seeds" in said and f"{told['plan'][0]['parameters']:,}" in said


def test_quick_stands_below_what_is_given():
    from amauta import config
    from amauta.yardstick.settings import QUICK, Yardstick

    assert config.build(Yardstick, {"quick": True}).budget == QUICK["budget"]
    assert config.build(Yardstick, {"quick": True, "budget": 1e9}).budget == 1e9
    assert config.build(Yardstick, {}).seeds == 3


def test_bad_input(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert main(["yardstick", "--out", str(tmp_path / "a"), "--corpus", str(empty), "--json"]) == 2
    assert main(["yardstick", "--out", str(tmp_path / "b"), "--only", "nothing"]) == 2
    assert "objectives" in capsys.readouterr().err
    assert main(["yardstick", "--out", str(tmp_path / "c"), *BARE, *given, "--budget", "10", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["key"] == "yardstick.small-budget"
