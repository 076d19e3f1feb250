"""``amauta gridworld`` in process."""

import json
from pathlib import Path

import pytest

from amauta.cli import main


@pytest.mark.parametrize("method", ["value-iteration", "q-learning"])
def test_the_start_is_worth_59_049(method: str, capsys: pytest.CaptureFixture[str]):
    assert main(["gridworld", "--method", method, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["start_value"] == pytest.approx(59.049, abs=1e-6)
    assert result["policy"][0] == ["→", "→", "→", "M"]


def test_a_drawing_is_written_and_a_bad_layout_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["gridworld", "--write", str(tmp_path / "cat.svg")]) == 0
    assert "59.049" in capsys.readouterr().out and (tmp_path / "cat.svg").read_text().count("<svg") == 1
    assert main(["gridworld", "--layout", "C.X"]) == 2
    assert "X" in capsys.readouterr().err
