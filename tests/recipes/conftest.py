"""A small recipe on the stub command, and a way to run it."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amauta.recipes.run import run

STUB = [sys.executable, "-I", "-S", str(Path(__file__).with_name("stub.py"))]

RECIPE = """
name = "small"
title = {en = "A small <recipe>", es = "Una receta pequeña"}
publish = ["{dir}/train/model", "{dir}/tune/model"]
[inputs.text]
help = {en = "the text", es = "el texto"}
required = true
many = true
[inputs.extra]
help = "more text"

[[stage]]
name = "corpus"
command = "make"
reads = ["{text}"]
makes = ["{dir}/corpus"]
with = {text = ["{text}"], out = "{dir}/corpus"}
shows = [{metric = "length", unit = "count", label = {en = "characters", es = "caracteres"}}]
must = {score = ">= 0"}

[[stage]]
name = "other"
command = "make"
makes = ["{dir}/other"]
with = {out = "{dir}/other", score = 2.25}

[[stage]]
name = "train"
command = "train"
reads = ["{dir}/corpus"]
makes = ["{dir}/train"]
resumable = true
with = {out = "{dir}/train", steps = 4, pause = 0.0}
must = {bits_per_byte = ["<= 1.15 * other.score", "< 2.5"]}
shows = [{metric = "bits_per_byte", before = "corpus.score", unit = "bits/byte"},
  {metric = "exact", before = "before.exact", unit = "share"}]
floor = "other.score"
chapter = {en = "Here it <learns>.", es = "Aquí <aprende>."}

[[stage]]
name = "tune"
command = "train"
needs = ["extra"]
reads = ["{model}", "{extra}"]
makes = ["{dir}/tune"]
with = {out = "{dir}/tune", steps = 2, text = "{extra}"}

[[stage]]
name = "look"
command = "make"
reads = ["{model}"]
makes = ["{dir}/look"]
with = {text = "{model}/weights", out = "{dir}/look"}
"""


class Place:
    """A folder with a recipe, its input, and the calls that the stub has noted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dir = folder, folder / "run"
        self.recipe, self.text, self.calls_file = folder / "small.toml", folder / "in.txt", folder / "calls"
        self.recipe.write_text(RECIPE)
        self.text.write_text("the text")
        self.edit: Callable[[str, str], Any] = lambda old, new: self.recipe.write_text(_swap(self.recipe, old, new))

    def run(self, *set: str, **inputs: Any) -> dict[str, Any]:
        return run(self.recipe, dir=self.dir, set=set, command=STUB, **{"text": self.text, **inputs})

    def calls(self) -> list[str]:
        """The stages that ran since the last call of this, by the last part of their --out."""
        text = self.calls_file.read_text() if self.calls_file.exists() else ""
        self.calls_file.write_text("")
        lines = [shlex.split(line) for line in text.splitlines()]
        return [Path(line[line.index("--out") + 1]).name if "--out" in line else line[0] for line in lines]


def _swap(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AMAUTA_LANG", "en")
    monkeypatch.setattr("amauta.recipes.report.draw", lambda *_: "<svg></svg>")  # test_report.py draws
    made = Place(tmp_path)
    monkeypatch.setenv("STUB_CALLS", str(made.calls_file))
    return made
