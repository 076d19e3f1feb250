"""Every ending of a command: what is printed where, and with which exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from typing_extensions import Doc

import amauta
from amauta.base.errors import Interrupted, MissedGoal, RunError
from amauta.cli import _root, main
from amauta.cli._door import Command, Group
from amauta.runs import crash_file


@dataclass
class Settings:
    words: Annotated[str, Doc("words")] = "hello"


@pytest.fixture
def ends(monkeypatch):
    """``ends(work, show=None)``: make ``amauta work`` run that function."""

    def install(work: Any, show: Any = None) -> None:
        known = _root.found() | {"work": Path("work.py")}
        monkeypatch.setattr(_root, "found", lambda: known)
        real = _root.load
        monkeypatch.setattr(_root, "load", lambda name: Command(Settings, work, show) if name == "work" else real(name))

    return install


def raises(error: BaseException) -> Any:
    def work(_: Settings) -> None:
        raise error

    return work


def test_a_result_is_a_small_table(ends, capsys):
    ends(lambda s: {"words": s.words, "loss": {"before": 2.123456789, "after": None}, "files": ["a", "b"], "no": []})
    assert main(["work", "--words", "hi [bold]you[/]"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "words        hi [bold]you[/]",
        "loss.before  2.12346",
        "loss.after   -",
        "files        a, b",
        "no",
    ]


def test_lists_of_tables_are_numbered(ends, capsys):
    ends(lambda _: {"stages": [{"name": "sft", "seconds": 1.5}, {"name": "dpo"}]})
    main(["work"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["stages.0.name", "sft"], ["stages.0.seconds", "1.5"],
                                                ["stages.1.name", "dpo"]]  # fmt: skip


def test_json_is_exactly_one_line(ends, capsys):
    ends(lambda _: {"text": "ñ\n", "path": Path("a/b"), "bad": float("nan"), "deep": {"x": (1, 2)}})
    assert main(["work", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "ñ\n", "path": "a/b", "bad": None, "deep": {"x": [1, 2]}}


def test_a_command_may_say_how_its_result_is_shown(ends, capsys):
    ends(lambda s: {"text": s.words}, show=lambda result: f"<{result['text']}>")
    main(["work"])
    main(["work", "--json"])
    assert capsys.readouterr().out.splitlines() == ["<hello>", '{"text": "hello"}']


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_a_result_that_did_not_pass_exits_with_1(ends, capsys, passed: bool, code: int):
    ends(lambda _: {"passed": passed})
    assert main(["work", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {"passed": passed}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RunError("runs.disk-full", path="x"), 2, "Error: No space is left on the disk for x."),
        (MissedGoal("runs.nothing-there", path="x"), 1, "Error: There is no file"),
        (Interrupted("cli.interrupted"), 130, "Error: Interrupted."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (PermissionError(13, "Permission denied", "x/y"), 2, "the system refused: Permission denied (x/y)"),
    ],
)
def test_endings_without_a_traceback(ends, capsys, error: BaseException, code: int, words: str):
    ends(raises(error))
    assert main(["work"]) == code
    seen = capsys.readouterr()
    assert words in seen.err and "Traceback" not in seen.err and seen.out == ""


def test_debug_shows_the_traceback(ends, capsys):
    ends(raises(RunError("runs.disk-full", path="x")))
    assert main(["work", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_error_is_one_json_line_too(ends, capsys):
    ends(raises(RunError("runs.disk-full", path="x")))
    assert main(["work", "--json"]) == 2
    seen = json.loads(capsys.readouterr().out)
    assert (seen["key"], seen["exit"]) == ("runs.disk-full", 2) and "No space" in seen["error"]


def test_a_bug_is_called_a_bug_and_its_traceback_is_kept(ends, capsys):
    ends(raises(ZeroDivisionError("one half")))
    assert main(["work"]) == 70
    err = capsys.readouterr().err
    assert "bug in amauta" in err and "ZeroDivisionError: one half" in err and "Traceback" not in err
    assert str(crash_file()) in err and crash_file().read_text().rstrip().endswith("ZeroDivisionError: one half")


def test_a_bug_where_no_file_can_be_written(ends, capsys, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AMAUTA_CACHE", str(tmp_path / "file" / "below"))
    ends(raises(ZeroDivisionError("one half")))
    assert main(["work"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["doctr"], "There is no command 'doctr'. Did you mean 'doctor'?"),
        (["tokenizer", "trian"], "There is no command 'tokenizer trian'. Did you mean 'train'?"),
        (["zzzz"], "Allowed: "),
        (["doctor", "--secnds", "1"], "Unknown flag '--secnds'. Did you mean '--seconds'?"),
    ],
)
def test_unknown_names(capsys, words: list[str], hint: str):
    assert main(words) == 2
    seen = capsys.readouterr()
    assert hint in seen.err and seen.out == ""


def test_unknown_names_in_spanish(capsys, monkeypatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert main(["doctr"]) == 2
    assert "No hay ninguna orden 'doctr'. ¿Quiso decir 'doctor'?" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{amauta.__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(capsys, words: list[str]):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(f"│ {name} " in out for name in _root.found())
    assert "Say what this machine is and what it can do." in out


def test_a_group_without_a_command_shows_its_list(capsys):
    assert main(["tokenizer"]) == 2
    assert "│ train" in capsys.readouterr().out


def test_a_group_registers_its_commands():
    group = Group("things")

    @group.command("make", Settings)
    def make(settings: Settings) -> dict[str, Any]:
        """Make one thing,
        or another.

        More on it.

        Examples:
          amauta things make
          amauta things make --words hi
        """
        return {"made": settings.words}

    assert group.commands["make"] is make and make(Settings("x")) == {"made": "x"}
    assert make.summary == "Make one thing, or another."
    assert make.help == "Make one thing, or another.\n\nMore on it."
    assert make.examples.splitlines() == ["amauta things make", "amauta things make --words hi"]


def test_a_reader_that_goes_away_ends_it_quietly():
    """As in ``amauta … | head -0``: no traceback, exit 0."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "amauta", "--version"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
