"""Reading a recipe: what is in it, and every way in which it can be wrong."""

import tomllib
from pathlib import Path

import pytest

from amauta.base.errors import ConfigError
from amauta.base.messages import LANGUAGES
from amauta.recipes.recipe import Stage, fill, from_dict, model_before, names, read, values
from tests.recipes.conftest import RECIPE


def wrong(old: str, new: str) -> ConfigError:
    """The error of the small recipe with ``old`` replaced."""
    assert old in RECIPE
    with pytest.raises(ConfigError) as caught:
        from_dict(tomllib.loads(RECIPE.replace(old, new, 1)), source="small.toml")
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("publish =", "publsih =", "config.unknown-setting", ["'publsih'", "'publish'"]),
        ("required = true", "requird = true", "config.unknown-setting", ["'requird'", "'required'"]),
        ("resumable = true", "resumeable = true", "config.unknown-setting", ["stage train", "'resumable'"]),
        ("with = {out", "wiht = {out", "config.unknown-setting", ["'wiht'", "'with'"]),
        ("with = {out", "flags = {out", "config.unknown-setting", ["'flags'"]),
        ("{metric = ", "{metrik = ", "config.unknown-setting", ["'metrik'", "'metric'"]),
        ('unit = "count"', 'unit = "cuont"', "config.several", ["stage corpus", "unit"]),
        ('{en = "Here', '{fr = "Ici", en = "Here', "config.unknown-setting", ["'fr'"]),
        ('needs = ["extra"]', 'needs = ["extar"]', "recipes.unknown-placeholder", ["stage tune", "'extra'"]),
        ('reads = ["{text}"]', 'reads = ["{txet}"]', "recipes.unknown-placeholder", ["stage corpus", "'text'"]),
        ('reads = ["{text}"]', 'reads = ["{text"]', "recipes.unknown-placeholder", ["stage corpus"]),
        ('makes = ["{dir}/look"]', 'makes = ["/home"]', "recipes.makes-outside", ["/home"]),
        ('makes = ["{dir}/look"]', 'makes = ["{dir}/../x"]', "recipes.makes-outside", ["{dir}/../x"]),
        ('score = ">= 0"', 'score = "=> 0"', "recipes.bad-goal", ["'=> 0'", "stage corpus"]),
        ("* other.score", "* otter.score", "recipes.unknown-figure", ["otter.score", "'other'"]),
        ('score = ">= 0"', 'score = "> train.x"', "recipes.unknown-figure", ["train.x"]),  # a later stage
        ('floor = "other.score"', 'floor = "othr.score"', "recipes.unknown-figure", ["'other'"]),
        ('name = "other"', 'name = "corpus"', "recipes.bad-name", ["'corpus'"]),
        ('name = "small"', 'name = "Small one"', "recipes.bad-name", ["'Small one'"]),
        ("[inputs.extra]", "[inputs.dir]", "recipes.bad-name", ["'dir'"]),
        (
            'publish = ["{dir}/train/model", ',
            'publish = ["{dri}/train/model", ',
            "recipes.unknown-placeholder",
            ["'dir'"],
        ),
        ('command = "make"', "command = 3", "config.several", ["command"]),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str, words: list[str]):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    error = wrong(old, new)
    assert error.key == key
    for word in [*words, "small.toml"]:
        assert word in str(error)


def test_tables_of_another_kind():
    for raw in ({"name": "a", "stage": 3}, {"name": "a", "stage": [3]}, {"name": "a", "inputs": {"b": 3}}, {"name": 3}):
        with pytest.raises(ConfigError) as caught:
            from_dict(raw, source="x")
        assert caught.value.key == "recipes.bad-key"
    with pytest.raises(ConfigError) as caught:
        from_dict({"name": "a"}, source="x")
    assert caught.value.key == "recipes.no-stages"


def test_no_such_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    with pytest.raises(ConfigError, match=r"Did you mean 'demo'\?"):
        read("dmeo")
    with pytest.raises(ConfigError, match="absent.toml"):
        read(tmp_path / "absent.toml")


def test_inputs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    recipe = from_dict(tomllib.loads(RECIPE), source="small.toml")
    assert values(recipe, {"text": ["a", "b"]}) == {"text": ("a", "b"), "extra": None}
    assert values(recipe, {"text": Path("a"), "extra": "c"}) == {"text": ("a",), "extra": ("c",)}
    for given, key, word in [
        ({}, "recipes.missing-input", "the text"),
        ({"text": ()}, "recipes.missing-input", "'text'"),
        ({"text": "a", "extar": "b"}, "recipes.unknown-input", "'extra'"),
        ({"text": "a", "extra": ["b", "c"]}, "recipes.one-value", "2"),
    ]:
        with pytest.raises(ConfigError) as caught:
            values(recipe, given)
        assert caught.value.key == key and word in str(caught.value)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{dir}/x", "run/x"),
        ("{many}", ["a", "b"]),
        ("{none}", None),
        (["{many}", "c", "{none}"], ["a", "b", "c"]),
        (["{none}"], None),
        ("{dir}", "run"),
        ("{{dir}} {dir}", "{dir} run"),
        (3, 3),
        (True, True),
    ],
)
def test_fill(template: object, filled: object):
    assert fill(template, {"dir": ("run",), "many": ("a", "b"), "none": None}) == filled


def test_model_before():
    recipe = from_dict(tomllib.loads(RECIPE), source="small.toml")
    by_name = {stage.name: stage for stage in recipe.stages}

    def before(*stages: str) -> str | None:
        return model_before(recipe, [by_name[name] for name in stages])

    assert before("corpus") is None
    assert before("corpus", "train") == "{dir}/train/model"
    assert before("corpus", "train", "tune", "look") == "{dir}/tune/model"


@pytest.mark.parametrize("name", names())
def test_the_packages_recipes(name: str):
    recipe = read(name)
    assert recipe.name == name
    made: list[str] = []
    for stage in recipe.stages:
        assert isinstance(stage, Stage) and isinstance(stage.chapter, dict) and set(stage.chapter) == set(LANGUAGES)
        for path in stage.reads:  # a stage reads what an earlier one made, an input, or the model
            assert path.startswith("{dir}/") is False or any(path.startswith(before) for before in made), path
        for template in [*([stage.flags["out"]] if stage.makes else []), *stage.reads]:
            assert any(f"{{{name}}}" in template for name in {*recipe.inputs, "dir", "model"})
        made += stage.makes
    assert any(stage.shows for stage in recipe.stages)
