"""``amauta doctor``: one JSON line with what the machine is, and advice that follows from it."""

import json
from typing import Any

import pytest
import torch

from amauta.cli import main
from amauta.cli.doctor import advice

FINE: dict[str, Any] = {"device": "cpu", "compiler": "g++", "dtype": "bf16", "threads": 2, "cores": 2}
SPEED = {"f32_gflops": 200.0, "bf16_gflops": 900.0, "memory_gb_per_second": 40.0}


def test_one_json_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("AMAUTA_NOTE", "x")
    assert main(["doctor", "--json", "--seconds", "0.01", "--folder", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    seen = json.loads(line)
    assert seen["torch"] == torch.__version__ and seen["language"] == "en"
    assert seen["variables"]["AMAUTA_NOTE"] == "x" and seen["variables"]["AMAUTA_LANG"] == "en"
    assert all(value > 0 for value in seen["measured"].values()) and seen["disk_free_gb"] > 0


@pytest.mark.parametrize(
    ("machine", "speed", "disk", "free", "wanted"),
    [
        ({}, {}, 1e11, 8.0, []),
        ({}, {}, 1e11, None, []),
        ({"compiler": None}, {}, 1e11, 8.0, ["No C++ compiler"]),
        ({"device": "cuda", "compiler": None}, {}, 1e11, 8.0, []),
        ({"dtype": "f32"}, {"bf16_gflops": 50.0}, 1e11, 8.0, ["measured: 0.25 times the f32 speed"]),
        ({}, {"bf16_gflops": 100.0}, 1e11, 8.0, ["only 0.50 times"]),
        ({"threads": 1}, {}, 1e11, 8.0, ["1 of the 2 cores"]),
        ({}, {}, 2e9, 1.5, ["Only 2.0 GB are free on this disk", "Only 1.5 GB of memory"]),
    ],
)
def test_advice(machine, speed, disk, free, wanted):
    lines = advice(FINE | machine, SPEED | speed, disk, free)
    assert len(lines) == len(wanted)
    assert all(words in line for words, line in zip(wanted, lines, strict=True))


def test_a_folder_that_is_not_there(capsys, tmp_path):
    assert main(["doctor", "--folder", str(tmp_path / "none")]) == 2
    assert f"There is no folder {tmp_path / 'none'}" in capsys.readouterr().err
