"""A recipe: a TOML list of the commands that a user would type, read and checked before anything runs.

    name = "demo"
    title = {en = "…", es = "…"}            # or one string for both languages
    publish = ["{dir}/sft/model"]           # models in the order in which they are made; the last one is the result
    [inputs.text]                           # what the caller gives: amauta run NAME --text FILE …
    help = "…"
    required = true
    many = true
    [[stage]]
    name = "pretrain"
    command = "pretrain"
    reads = ["{dir}/corpus"]                # files and folders whose content decides whether the stage runs again
    makes = ["{dir}/pretrain"]
    needs = ["dialogues"]                   # inputs without which the stage is skipped
    resumable = true                        # the command takes --resume
    with = {out = "{dir}/pretrain"}         # flags; one whose value is an input that was not given is left out
    must = {accuracy = ">= 0.9"}            # goals.py
    shows = [{metric = "accuracy", before = "before.accuracy", label = "…", unit = "share"}]
    floor = "world.entropy"                 # bits per byte below which nothing can come: a line in the chart
    chapter = {en = "…", es = "…"}          # what this stage does, for the report

``{dir}`` is the run's folder, ``{model}`` the last published model that an earlier stage of this run makes (before the
first one: the input of that name), ``{name}`` an input; ``{{`` and ``}}`` are braces.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from amauta.base.errors import ConfigError
from amauta.base.messages import LANGUAGES, language, say
from amauta.base.names import did_you_mean
from amauta.config import build, read_toml
from amauta.recipes.goals import goals_of, parse

Text = str | dict[str, str]
Given = Mapping[str, tuple[str, ...] | None]  # input -> its values, None when it was not given

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_OWN = ("dir", "model")  # placeholders that are no inputs
_TAKEN = ("dir", "set", "recipe", "command", "check_line", "config", "json", "debug", "help")  # no names of inputs


@dataclass(frozen=True)
class Input:
    """Something that the caller gives."""

    help: Text = ""
    required: bool = False
    many: bool = False
    default: str | tuple[str, ...] | None = None


@dataclass(frozen=True)
class Show:
    """One row of the table of what a stage learned."""

    metric: str
    before: str | None = None  # stage.metric of this or an earlier stage, or else a metric of this stage
    label: Text = ""
    unit: Literal["share", "bits/byte", "nats", "count", "number"] = "number"


@dataclass(frozen=True)
class Stage:
    """One command of a recipe. ``flags`` is the TOML key ``with``."""

    name: str
    command: str
    flags: dict[str, Any]
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    resumable: bool = False
    must: dict[str, str | list[str]] = field(default_factory=dict)
    shows: tuple[Show, ...] = ()
    floor: str | None = None
    chapter: Text = ""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``source`` is what the user typed to name it."""

    name: str
    title: Text
    inputs: dict[str, Input]
    stages: tuple[Stage, ...]
    publish: tuple[str, ...]
    source: str


def in_language(text: Text) -> str:
    """A text of a recipe in the user's language, or in the one language that it has."""
    if isinstance(text, str):
        return text
    return text.get(language()) or next(iter(text.values()), "")


def names() -> list[str]:
    """The recipes inside the package."""
    folder = resources.files("amauta.recipes")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read(recipe: str | Path) -> Recipe:
    """The recipe of a name (one inside the package) or of a path to a TOML file.

    Raises ConfigError: no such recipe (with the nearest name), malformed TOML, and any key, placeholder, goal or
    reference that means nothing.
    """
    text = str(recipe)
    if text in names():
        with resources.as_file(resources.files("amauta.recipes").joinpath(f"{text}.toml")) as path:
            return from_dict(read_toml(path), source=text)
    if not text.endswith(".toml"):
        raise ConfigError("recipes.no-recipe", name=text, hint=did_you_mean(text, names()))
    return from_dict(read_toml(Path(text)), source=text)


def from_dict(raw: Mapping[str, Any], *, source: str) -> Recipe:
    """A recipe from the tables of its TOML file, checked whole; ``source`` names it in errors."""
    _known(raw, {"name", "title", "inputs", "stage", "publish"}, source)
    for key, kind in {"name": str, "inputs": dict, "stage": list, "publish": list}.items():
        if not isinstance(raw.get(key, kind()), kind):
            raise ConfigError("recipes.bad-key", where=source, name=key, value=raw[key])
    inputs = {name: build(Input, _table(value, f"{source}, inputs.{name}"), where=f"{source}, inputs.{name}")
              for name, value in raw.get("inputs", {}).items()}  # fmt: skip
    stages = tuple(_stage(_table(table, f"{source}, stage {number}"), number, source)
                   for number, table in enumerate(raw.get("stage", []), 1))  # fmt: skip
    name, title = raw.get("name", ""), raw.get("title", "")
    publish = tuple(str(path) for path in raw.get("publish", []))
    if not _NAME.fullmatch(name):
        raise ConfigError("recipes.bad-name", where=source, name=name)
    if not stages:
        raise ConfigError("recipes.no-stages", where=source)
    made = Recipe(name, title, inputs, stages, publish, source)
    check(made)
    return made


def values(recipe: Recipe, given: Mapping[str, Any]) -> Given:
    """The inputs as the caller gave them, checked against what the recipe asks for.

    Raises ConfigError: an unknown input (with the nearest name), a required one that is missing, several values for
    an input that takes one.
    """
    given = {name.replace("-", "_"): value for name, value in given.items()}
    spelled = {name.replace("-", "_"): name for name in recipe.inputs}
    for name in sorted(given.keys() - spelled.keys()):
        known = sorted(recipe.inputs)
        hint = did_you_mean(name, known) if known else say("recipes.no-inputs")
        raise ConfigError("recipes.unknown-input", recipe=recipe.name, name=name, hint=hint)
    found: dict[str, tuple[str, ...] | None] = {}
    for plain, name in spelled.items():
        wanted = recipe.inputs[name]
        value = given.get(plain)
        value = wanted.default if value is None or value in ((), []) else value
        several = value if isinstance(value, (list, tuple)) else () if value is None else (value,)
        if not several and wanted.required:
            raise ConfigError("recipes.missing-input", recipe=recipe.name, name=name, help=in_language(wanted.help))
        if len(several) > 1 and not wanted.many:
            raise ConfigError("recipes.one-value", recipe=recipe.name, name=name, count=len(several))
        found[name] = tuple(str(item) for item in several) or None
    return found


def fill(template: Any, blanks: Given) -> Any:
    """``template`` with its placeholders filled: text, a list (flattened) or a plain value.

    A text that is one placeholder and nothing else becomes all values of the input, or None when it was not given.
    """
    if isinstance(template, (list, tuple)):
        found: list[Any] = []
        for item in template:
            value = fill(item, blanks)
            found.extend(value if isinstance(value, list) else [] if value is None else [value])
        return found or None
    if not isinstance(template, str):
        return template
    alone = re.fullmatch(r"\{(\w+)\}", template)
    if alone:
        several = blanks.get(alone[1])
        return None if several is None else several[0] if len(several) == 1 else list(several)

    def swap(match: re.Match[str]) -> str:
        return " ".join(blanks.get(match[1]) or ()) if match[1] else match[0][0]

    return _PLACEHOLDER.sub(swap, template)


def model_before(recipe: Recipe, stages: list[Stage]) -> str | None:
    """The template of the last published model that one of ``stages`` makes, or None."""
    made = [path for stage in stages for path in stage.makes]
    return next((model for model in reversed(recipe.publish)
                 if any(model == path or model.startswith(f"{path}/") for path in made)), None)  # fmt: skip


def _stage(table: Mapping[str, Any], number: int, source: str) -> Stage:
    where = f"{source}, stage {table.get('name', number)}"
    known = {name for name in Stage.__dataclass_fields__ if name != "flags"} | {"with"}
    _known(table, known, where)
    shows = [_table(row, f"{where}, shows") for row in table.get("shows", [])]
    for row in shows:
        _known(row, set(Show.__dataclass_fields__), f"{where}, shows")
    plain = {name: value for name, value in table.items() if name != "with"}
    stage = build(Stage, {**plain, "flags": table.get("with", {})}, where=where)
    for metric, texts in stage.must.items():
        for text in [texts] if isinstance(texts, str) else texts:
            if parse(metric, text) is None:
                raise ConfigError("recipes.bad-goal", where=where, name=metric, value=text)
    return stage


def check(recipe: Recipe) -> None:
    """Everything that needs the whole recipe: names used twice, placeholders, languages, references."""
    for name in recipe.inputs:
        if name in _TAKEN or not _NAME.fullmatch(name):
            raise ConfigError("recipes.bad-name", where=f"{recipe.source}, inputs", name=name)
    earlier: list[str] = []
    for stage in recipe.stages:
        where = f"{recipe.source}, stage {stage.name}"
        if not _NAME.fullmatch(stage.name) or stage.name in earlier:
            raise ConfigError("recipes.bad-name", where=where, name=stage.name)
        earlier.append(stage.name)
        for name in stage.needs:
            if name not in recipe.inputs:
                raise ConfigError("recipes.unknown-placeholder", where=where, name=name,
                                  hint=did_you_mean(name, recipe.inputs))  # fmt: skip
        for path in stage.makes:
            if not path.startswith("{dir}/") or ".." in Path(path).parts:  # a stage that runs again clears these
                raise ConfigError("recipes.makes-outside", where=where, path=path)
        for template in _templates([stage.flags, stage.reads, stage.makes]):
            _check_placeholders(template, recipe, where)
        for figure in (*(goal.figure for goal in goals_of(stage.must)), stage.floor):
            first = (figure or "").partition(".")[0]
            if figure and first not in earlier:
                raise ConfigError("recipes.unknown-figure", where=where, name=figure, hint=did_you_mean(first, earlier))
    for path in recipe.publish:
        _check_placeholders(path, recipe, f"{recipe.source}, publish")
    texts = [recipe.title, *(wanted.help for wanted in recipe.inputs.values())]
    texts += [text for stage in recipe.stages for text in (stage.chapter, *(show.label for show in stage.shows))]
    for text in texts:
        if not isinstance(text, str):
            _known(text, set(LANGUAGES), recipe.source)


def _templates(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _templates(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _templates(item)


def _check_placeholders(template: str, recipe: Recipe, where: str) -> None:
    known = {*_OWN, *recipe.inputs}
    for match in _PLACEHOLDER.finditer(template):
        if match[0] in ("{", "}") or (match[1] and match[1] not in known):
            raise ConfigError("recipes.unknown-placeholder", where=where, name=match[1] or template,
                              hint=did_you_mean(match[1] or "", known))  # fmt: skip


def _known(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError("config.unknown-setting", where=where, name=name, hint=did_you_mean(name, known))


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError("recipes.bad-key", where=where, name=where.rpartition(" ")[2], value=value)
    return value
