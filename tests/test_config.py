"""Settings: what layers become, what is refused and in which words, and that what is written down comes back."""

import dataclasses
import tomllib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import AllowInfNan
from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.cli._door import Command
from amauta.cli._root import found, load
from amauta.config import Positional, Unset, build, read_toml, settings_of, to_dict, to_toml
from amauta.models.sizes import NAMED
from amauta.train.settings import Pretrain


@dataclass
class Deep:
    power: Annotated[float, Ge(0), Lt(1), AllowInfNan(False), Doc("power")] = 0.5
    shape: Annotated[Literal["cosine", "linear"], Doc("shape")] = "linear"


@dataclass
class Loop:
    steps: Annotated[int, Gt(0), Le(100), Doc("steps")] = 10
    on: Annotated[bool, Doc("on or off")] = True
    deep: Deep = field(default_factory=Deep)


@dataclass
class Extra:
    name: Annotated[str, Doc("name")]


@dataclass
class Work:
    out: Annotated[Path, Positional(), Doc("where to")]
    text: Annotated[tuple[Path, ...], Doc("files")] = ()
    betas: Annotated[tuple[float, float], Doc("two numbers")] = (0.9, 0.95)
    most: Annotated[int | None, Gt(0), Unset(5), Doc("most")] = None
    modes: Annotated[tuple[Literal["a", "b"], ...], Doc("modes")] = ()
    table: Annotated[dict[str, int], Doc("any names")] = field(default_factory=dict)
    loop: Loop = field(default_factory=lambda: Loop(steps=20))
    extra: Extra | None = None


def refused(layer: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        build(Work, layer, where="work.toml")
    return error.value


def test_later_layers_win_over_earlier_ones_and_over_defaults():
    file = {"out": "from-file", "most": 5, "loop": {"steps": 30, "deep": {"power": 0.25}}}
    flags = {"out": "from-flag", "loop": {"deep": {"shape": "cosine"}}}
    made = build(Work, file, flags)
    assert made == Work(Path("from-flag"), most=5, loop=Loop(30, deep=Deep(0.25, "cosine")))


def test_layers_are_left_as_they_were():
    file: dict[str, Any] = {"out": "a", "loop": {"steps": 30}}
    build(Work, file, {"loop": {"steps": 40}})
    assert file == {"out": "a", "loop": {"steps": 30}}


def test_a_section_keeps_the_defaults_of_the_class_that_holds_it():
    assert build(Work, {"out": "a", "loop": {"on": False}}).loop == Loop(steps=20, on=False)


def test_a_preset_stands_below_what_is_given():
    given_values = {"text": ["a"], "tokenizer": "t", "out": "o", "size": "mini"}
    made = build(Pretrain, given_values, {"shape": {"layers": 3}})
    assert {name: getattr(made.shape, name) for name in NAMED["mini"]} == NAMED["mini"] | {"layers": 3}
    assert (made.shape.kv_heads, made.shape.qk_norm) == (None, False)  # nothing is left of the default size, demo


@pytest.mark.parametrize(
    ("layer", "name", "hint"),
    [
        ({"ouT": "a"}, "ouT", "Did you mean 'out'?"),
        ({"loop": {"step": 3}}, "loop.step", "Did you mean 'steps'?"),
        ({"loop": {"deep": {"pover": 3}}}, "loop.deep.pover", "Did you mean 'power'?"),
        ({"extra": {"nam": "x"}}, "extra.nam", "Did you mean 'name'?"),  # through Optional
        ({"loop": {"zzz": 3}}, "loop.zzz", "Allowed: deep, on, steps."),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(layer: dict[str, Any], name: str, hint: str):
    error = refused(layer)
    assert error.key == "config.unknown-setting"
    assert str(error) == f"work.toml: unknown setting '{name}'. {hint}"


def test_names_are_free_where_a_setting_is_a_table():
    assert build(Work, {"out": "a", "table": {"any": 1}}).table == {"any": 1}


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ({"most": "12"}, """most' is "12". It must be a whole number"""),
        ({"most": True}, "most' is true. It must be a whole number"),
        ({"most": 1.5}, "most' is 1.5. It must be a whole number"),
        ({"most": 0}, "most' is 0. It must be greater than 0."),  # a limit holds through Optional
        ({"loop": {"deep": {"power": True}}}, "loop.deep.power' is true. It must be a number"),
        ({"loop": {"deep": {"power": "0.1"}}}, 'loop.deep.power\' is "0.1". It must be a number'),
        ({"loop": {"deep": {"power": float("nan")}}}, "loop.deep.power' is NaN. It must be a finite number."),
        ({"loop": {"deep": {"power": 1.0}}}, "power' is 1.0. It must be less than 1"),
        ({"loop": {"deep": {"power": -1}}}, "power' is -1. It must be 0"),
        ({"loop": {"steps": 101}}, "steps' is 101. It must be 100 or less."),
        ({"loop": {"on": 1}}, "loop.on' is 1. It must be true or false."),
        ({"loop": {"on": "true"}}, 'loop.on\' is "true". It must be true or false.'),
        ({"loop": 3}, "loop' is 3. It must be a table"),
        ({"out": 3}, "out' is 3. It must be text"),
        ({"text": "a"}, 'text\' is "a". It must be a list'),
        ({"text": ["a", 3]}, "text.1' is 3. It must be text"),
        ({"betas": [0.5]}, "betas' is [0.5]. It must have at least 2 values."),
        ({"betas": [1, 2, 3]}, "betas' is [1, 2, 3]. It must have at most 2 values."),
        ({"table": {"a": "x"}}, 'table.a\' is "x". It must be a whole number'),
        ({"modes": ["c"]}, 'modes.0\' is "c". Allowed: a, b.'),
        ({"loop": {"deep": {"shape": "cosin"}}}, "Allowed: cosine, linear. Did you mean 'cosine'?"),
        ({"extra": {}}, "'extra.name' is required and was not given."),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(layer: dict[str, Any], line: str):
    assert line in str(refused({"out": "a"} | layer))


def test_every_fault_is_reported_at_once_with_its_path():
    error = refused({"most": "x", "loop": {"steps": 0, "deep": {"power": 2}}, "text": [1]})
    assert error.key == "config.several" and error.fields["count"] == 5
    assert [line.partition("'")[2].partition("'")[0] for line in str(error).splitlines()[1:]] == [
        "out", "text.0", "most", "loop.steps", "loop.deep.power",
    ]  # fmt: skip


def test_faults_are_told_in_spanish(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert str(refused({"most": "x", "loop": {"steps": 0, "deep": {"shape": "cosin"}}})).splitlines() == [
        "Ajustes que no se pueden usar: 4",
        "work.toml: falta el ajuste 'out', que es obligatorio.",
        "work.toml: el ajuste 'most' vale \"x\". Debe ser un número entero, sin comillas.",
        "work.toml: el ajuste 'loop.steps' vale 0. Debe ser mayor que 0.",
        "work.toml: el ajuste 'loop.deep.shape' vale \"cosin\". Se admite: cosine, linear. ¿Quiso decir 'cosine'?",
    ]


def test_settings_are_listed_with_all_that_help_needs():
    listed = {".".join(setting.path): setting for setting in settings_of(Work)}
    assert list(listed) == [
        "out", "text", "betas", "most", "modes", "table", "loop.steps", "loop.on", "loop.deep.power",
        "loop.deep.shape", "extra",
    ]  # fmt: skip
    steps, most, shape = listed["loop.steps"], listed["most"], listed["loop.deep.shape"]
    assert (steps.type, steps.default, steps.help, steps.owner) == (int, 20, "steps", Loop)
    assert [name for name, setting in listed.items() if setting.positional] == ["out"]
    assert listed["out"].default is dataclasses.MISSING
    assert (most.unset, steps.unset) == (Unset(5), None)
    assert (shape.choices, listed["modes"].choices, steps.choices) == (("cosine", "linear"), ("a", "b"), ())


def test_an_inherited_setting_belongs_to_the_class_that_defines_it():
    @dataclass
    class Longer(Deep):
        more: Annotated[int, Doc("more")] = 1

    assert [setting.owner for setting in settings_of(Longer)] == [Deep, Deep, Longer]


numbers = st.floats(allow_nan=False)
made_by_chance = st.builds(
    Work,
    out=st.text(max_size=9).map(Path),
    text=st.lists(st.text(max_size=9).map(Path), max_size=3).map(tuple),
    betas=st.tuples(numbers, numbers),
    most=st.none() | st.integers(1, 2**63 - 1),
    modes=st.lists(st.sampled_from("ab"), max_size=3).map(tuple),
    table=st.dictionaries(st.text(max_size=9), st.integers(-(2**63), 2**63 - 1), max_size=3),
    loop=st.builds(
        Loop,
        steps=st.integers(1, 100),
        on=st.booleans(),
        deep=st.builds(Deep, st.floats(0, 1, exclude_max=True), st.sampled_from(["cosine", "linear"])),
    ),
    extra=st.none() | st.builds(Extra, st.text(max_size=9)),
)


@examples(max_examples=100, deadline=None)
@given(made_by_chance)
def test_what_is_written_comes_back_equal(work: Work):
    assert build(Work, tomllib.loads(to_toml(work))) == work


def settings_classes() -> list[type]:
    things = [load(name) for name in found() if name != "run"]
    return [
        command.settings
        for thing in things
        for command in ([thing] if isinstance(thing, Command) else thing.commands.values())
    ]


EXAMPLES: dict[Any, Any] = {str: 'a "b"\nñ', int: 3, float: 0.25, bool: True, Path: Path("some folder/file")}


def filled(cls: type, *, only_required: bool) -> dict[str, Any]:
    """An example for every field of ``cls`` that needs a value; also for those that are None by default."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        inner = next((part for part in get_args(hint) if part is not types.NoneType), hint)
        known = next(each for each in dataclasses.fields(cls) if each.name == name)
        required = known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
        if required or (known.default is None and not only_required):
            values[name.removesuffix("_")] = (
                (EXAMPLES[inner],) * 2 if get_origin(hint) is tuple else EXAMPLES.get(inner, known.default)
            )
    return values


@pytest.mark.parametrize("only_required", [True, False])
@pytest.mark.parametrize("cls", settings_classes(), ids=lambda cls: cls.__name__)
def test_the_settings_of_every_command_come_back_equal(cls: type, only_required: bool):
    given_values = filled(cls, only_required=only_required)
    settings = build(cls, given_values)
    held = {name.removesuffix("_"): value for name, value in vars(settings).items()}
    assert {name: held[name] for name in given_values} == given_values
    assert build(cls, tomllib.loads(to_toml(settings))) == settings


@pytest.mark.parametrize("cls", settings_classes(), ids=lambda cls: cls.__name__)
def test_what_may_be_none_is_none_by_default(cls: type):
    """TOML has no null: a None that is not the default could not be written down."""
    wrong = [s.path for s in settings_of(cls) if types.NoneType in get_args(s.type) and s.default is not None]
    assert not wrong


def test_plain_values():
    work = Work(Path("a"), text=(Path("b"), Path("c")), modes=("a",), table={"x": 1})
    loop = {"steps": 20, "on": True, "deep": {"power": 0.5, "shape": "linear"}}
    assert to_dict(work) == {"out": "a", "text": ["b", "c"], "betas": [0.9, 0.95], "modes": ["a"], "table": {"x": 1},
                             "loop": loop}  # fmt: skip


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match="is not valid TOML: .*line 1"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xf1"')
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_toml(tmp_path / "latin.toml")


@dataclass(frozen=True)
class Inner:
    in_: Annotated[int, Gt(0)] = 3


@dataclass(frozen=True)
class Keyworded:
    as_: str
    for_: tuple[Path, ...] = ()
    within: Inner = field(default_factory=Inner)


def test_a_setting_may_be_a_python_keyword():
    assert [setting.path for setting in settings_of(Keyworded)] == [("as",), ("for",), ("within", "in")]
    made = build(Keyworded, {"as": "a", "for": ["b"]}, {"within": {"in": 4}})
    assert made == Keyworded("a", (Path("b"),), Inner(4))
    assert to_dict(made) == {"as": "a", "for": ["b"], "within": {"in": 4}}
    assert build(Keyworded, to_dict(made)) == made and build(Keyworded, {"as": "a"}).within == Inner(3)
    with pytest.raises(ConfigError, match=r"within\.in. is -1"):
        build(Keyworded, {"as": "a", "within": {"in": -1}})
    with pytest.raises(ConfigError, match="as_"):
        build(Keyworded, {"as_": "a"})
    with pytest.raises(ConfigError, match=r"\bas\b"):
        build(Keyworded, {})
