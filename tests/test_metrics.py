"""The journal of a run, and progress where there is no terminal."""

import errno
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from amauta import metrics
from amauta.base.errors import RunError
from amauta.metrics import Journal, plain, progress, read


def test_one_json_line_a_call_readable_at_once(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, from_step=None)
    journal.log(1, loss=2.5, stage="sft", note="ñ")
    assert path.read_text(encoding="utf-8") == '{"step": 1, "loss": 2.5, "stage": "sft", "note": "ñ"}\n'
    journal.log(2, loss=np.float32(1.5), rates=np.array([1, 2]), best=math.nan)
    assert read(path)[1] == {"step": 2, "loss": 1.5, "rates": [1, 2], "best": None}
    journal.close()


def test_from_step_drops_what_the_resumed_run_will_tell_again(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    with Journal(path, from_step=None) as journal:
        for step in (1, 2, 3, 4):
            journal.log(step, loss=float(step))
    with Journal(path, from_step=2) as journal:
        journal.log(3, loss=30.0)
    assert [(row["step"], row["loss"]) for row in read(path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_without_from_step_the_journal_is_new(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        with Journal(path, from_step=None) as journal:
            journal.log(1)
    assert read(path) == [{"step": 1}]


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes('{"step": 1}\n{"step": 2, "note": "ñ'.encode()[:-1])  # cut inside a letter
    assert read(path) == [{"step": 1}]
    with Journal(path, from_step=5) as journal:
        journal.log(6)
    assert path.read_text() == '{"step": 1}\n{"step": 6}\n'


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(RunError) as error:
        read(path)
    assert error.value.key == "metrics.malformed-line" and error.value.fields["line"] == 2


def test_a_missing_journal_is_an_error(tmp_path: Path):
    with pytest.raises(RunError, match="has not begun"):
        read(tmp_path / "none.jsonl")


def test_a_full_disk_is_a_run_error(tmp_path: Path, monkeypatch):
    journal = Journal(tmp_path / "metrics.jsonl", from_step=None)

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(RunError) as error:
        journal.log(1)
    assert error.value.key == "runs.disk-full"


def test_plain_values_survive_json():
    value = {"a": Path("x/y"), 1: (np.int64(3), {2}), "inf": [math.inf, -math.inf, 0.5], "t": True, "n": None}
    wanted = {"a": "x/y", "1": [3, [2]], "inf": [None, None, 0.5], "t": True, "n": None}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == wanted


@pytest.fixture
def stderr(monkeypatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(metrics, "console", Console(file=text, width=40, force_terminal=False))
    return text


def test_progress_without_a_terminal_is_a_line_at_the_end(stderr: io.StringIO):
    with progress("packing", 3) as bar:
        for n in range(3):
            bar.advance(loss=float(n))
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 1 and lines[0].startswith("packing: 3/3 in ") and lines[0].endswith(" s loss 2")


def test_progress_without_a_terminal_is_a_line_now_and_then(stderr: io.StringIO, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    with progress("training", None) as bar:
        for _ in range(25):
            now[0] += 1.0
            bar.advance(2)
    shown = [line.split(" in ") for line in stderr.getvalue().splitlines()]
    assert shown == [["training: 20", "10.0 s"], ["training: 40", "20.0 s"], ["training: 50", "25.0 s"]]


def test_progress_tells_how_far_it_got_before_an_error(stderr: io.StringIO):
    with pytest.raises(ZeroDivisionError), progress("work", 10) as bar:
        bar.advance(4)
        raise ZeroDivisionError
    assert stderr.getvalue().startswith("work: 4/10 in ")


def test_progress_on_a_terminal_draws_a_bar(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(metrics, "console", Console(file=text, width=100, force_terminal=True, color_system=None))
    with progress("packing", 4) as bar:
        bar.advance(4, loss=1.23456)
    drawn = text.getvalue()
    assert "packing" in drawn and "━" * 40 in drawn and "loss 1.235" in drawn  # the bar is full: 40 cells
