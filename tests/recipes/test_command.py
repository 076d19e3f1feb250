"""``amauta run``: the door to the recipes, with real commands that need no torch."""

import json
from pathlib import Path

import pytest

import amauta
from amauta.cli import run as command
from amauta.cli._root import run as amauta_line
from amauta.recipes.recipe import fill, names, read
from amauta.recipes.run import arguments, fill_flags, planned

RECIPE = """
name = "clean"
[inputs.text]
help = "texts"
required = true
many = true
[[stage]]
name = "corpus"
command = "data curate"
reads = ["{text}"]
makes = ["{dir}/corpus"]
with = {text = ["{text}"], out = "{dir}/corpus", heldout = 0.0}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(amauta.__file__).parent.parent))
    (tmp_path / "a.txt").write_text("A first text.\n")
    (tmp_path / "b.txt").write_text("A second text.\n")
    (tmp_path / "clean.toml").write_text(RECIPE)
    return Path("clean.toml")


def test_a_recipe_of_the_users_own_runs_real_commands(recipe: Path, capfd: pytest.CaptureFixture):
    line = ["run", str(recipe), "--text", "a.txt", "b.txt", "--json"]
    assert amauta_line(line) == 0
    said = capfd.readouterr()
    result = json.loads(said.out)  # one line and nothing else
    assert result["passed"] is True and result["dir"] == "runs/clean" and Path("runs/clean/report.html").is_file()
    assert [stage["name"] for stage in result["stages"]] == ["corpus"]
    texts = [json.loads(row)["text"] for row in Path("runs/clean/corpus/train.jsonl").read_text().splitlines()]
    assert sorted(text.strip() for text in texts) == ["A first text.", "A second text."]
    assert "$ amauta data curate --text a.txt b.txt --out runs/clean/corpus --heldout 0.0\n" in said.err
    assert amauta_line(line) == 0 and "corpus: kept" in capfd.readouterr().err


def test_from_python(recipe: Path):
    assert amauta.run(recipe, dir="there", text=["a.txt", "b.txt"])["dir"] == "there"


def test_a_missed_goal_exits_with_1_and_is_printed(recipe: Path, capfd: pytest.CaptureFixture):
    recipe.write_text(RECIPE + 'must = {skipped = "> 99"}\n')
    assert amauta_line(["run", str(recipe), "--text", "a.txt", "b.txt"]) == 1
    said = capfd.readouterr().out
    assert "Goals missed:\n  corpus: skipped > 99" in said and "Report: runs/clean/report.html" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["demmo"], "'demo'"),
        (["absent.toml"], "absent.toml"),
        (["clean.toml"], "--text"),
        (["clean.toml", "--txet", "a.txt"], "'--text'"),
        (["clean.toml", "--text", "a.txt", "--set", "corpus.minimun_characters=3"], "'--minimum-characters'"),
        (["clean.toml", "--text", "a.txt", "--set", "corpus.duplicates=dropp"], "drop"),
        (["clean.toml", "--text", "a.txt", "--set", "korpus.out=x"], "'corpus'"),
    ],
)
def test_mistakes_are_met_before_anything_runs(recipe: Path, capfd: pytest.CaptureFixture, words: list[str], hint: str):
    assert amauta_line(["run", *words]) == 2
    assert hint in capfd.readouterr().err
    assert not Path("runs").exists()


def test_an_unknown_command_of_a_recipe_is_met_before_anything_runs(recipe: Path, capfd: pytest.CaptureFixture):
    for wrong, hint in (("data curat", "'curate'"), ("datta curate", "'data'")):
        recipe.write_text(RECIPE.replace("data curate", wrong))
        assert amauta_line(["run", str(recipe), "--text", "a.txt"]) == 2
        assert hint in capfd.readouterr().err


def test_help_shows_the_recipes_and_their_inputs(capfd: pytest.CaptureFixture):
    assert amauta_line(["run", "--help"]) == 0
    said = capfd.readouterr().out
    assert "demo" in said and "from-text" in said
    assert amauta_line(["run", "from-text", "--help"]) == 0
    said = capfd.readouterr().out
    for flag in ("--text", "--dialogues", "--preferences", "--size", "--dir", "--set", "--json"):
        assert flag in said


@pytest.mark.parametrize("name", names())
def test_the_packages_recipes_use_known_commands_and_flags(name: str):
    recipe = read(name)
    given = {wanted: ("x",) if recipe.inputs[wanted].default is None else fill(["{d}"], {"d": (str(
        recipe.inputs[wanted].default),)}) for wanted in recipe.inputs}  # fmt: skip
    for stage, blanks in planned(recipe, given, Path("run")):
        command.check_line([*stage.command.split(), *arguments(fill_flags(stage, blanks))])
