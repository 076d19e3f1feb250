"""Flags made from settings classes: what reaches the settings, and what is said about what does not."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.cli._flags import _parameters, parse
from amauta.config import Positional, Unset, settings_of


@dataclass
class Loop:
    steps: Annotated[int, Gt(0), Doc("steps")] = 1000
    rate: Annotated[float, Doc("rate")] = 0.5
    compile: Annotated[bool, Doc("compile")] = True
    seed: Annotated[int, Doc("seed")] = 1


@dataclass
class Work:
    out: Annotated[Path, Doc("where to")]
    recipe: Annotated[str | None, Positional(), Doc("what to run")] = None
    text: Annotated[tuple[Path, ...], Doc("files")] = ()
    sizes: Annotated[tuple[int, ...], Doc("sizes")] = ()
    betas: Annotated[tuple[float, float], Doc("two numbers")] = (0.9, 0.95)
    device: Annotated[Literal["auto", "cpu"], Doc("device")] = "auto"
    most: Annotated[int | None, Doc("most")] = None
    seed: Annotated[int, Doc("seed")] = 7
    table: Annotated[dict[str, int], Doc("only in a file")] = field(default_factory=dict)
    loop: Loop = field(default_factory=Loop)


def settings(line: str, *more: str) -> Work:
    return parse(Work, [*line.split(), *more], "amauta work").settings


DEFAULT = Work(out=Path("o"))


def changed(**values: Any) -> Work:
    loop = {name: values.pop(name) for name in ("steps", "rate", "compile") if name in values}
    return dataclasses.replace(DEFAULT, loop=Loop(**loop), **values)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--out o", DEFAULT),
        ("--out=o --steps 5", changed(steps=5)),
        ("--out o --loop.steps 1e3 --rate 3e-4", changed(steps=1000, rate=3e-4)),
        ("--out o --no-compile", changed(compile=False)),
        ("--out o --loop.no-compile", changed(compile=False)),
        ("--out o --compile", DEFAULT),
        ("--out o --text a b --text c", changed(text=(Path("a"), Path("b"), Path("c")))),
        ("--out o --sizes 1 2_000 3", changed(sizes=(1, 2000, 3))),
        ("--out o --betas 0.5 -1", changed(betas=(0.5, -1.0))),
        ("demo --out o", changed(recipe="demo")),
        ("--out o --recipe demo", changed(recipe="demo")),
        ("--out o --device cpu --most 3", changed(device="cpu", most=3)),
        ("--out o --seed 4", changed(seed=4)),  # the outer one: two settings end in "seed"
    ],
)
def test_flags_become_settings(line: str, wanted: Work):
    assert settings(line) == wanted


def test_a_name_that_two_settings_share_needs_its_section():
    assert settings("--out o --loop.seed 4").loop.seed == 4


def test_a_name_that_only_sections_share_is_no_flag_by_itself():
    @dataclass
    class Two:
        first: Loop = field(default_factory=Loop)
        second: Loop = field(default_factory=Loop)

    assert parse(Two, ["--second.steps", "6"], "amauta two").settings == Two(second=Loop(steps=6))
    with pytest.raises(ConfigError, match="Unknown flag '--steps'"):
        parse(Two, ["--steps", "6"], "amauta two")


def test_text_with_spaces_stays_whole():
    assert settings("--out o", "two words").recipe == "two words"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--recipe", "-"], changed(recipe="-")),
        (["--recipe=-"], changed(recipe="-")),
        (["-"], changed(recipe="-")),
        (["--recipe", "- x"], changed(recipe="- x")),
        (["--recipe", "-\nx"], changed(recipe="-\nx")),
        (["--recipe", "-5 °C"], changed(recipe="-5 °C")),
        (["--recipe", "-5"], changed(recipe="-5")),
        (["--text", "-", "a", "- b", "--most", "3"], changed(text=(Path("-"), Path("a"), Path("- b")), most=3)),
        (["--text", "a", "--text", "-"], changed(text=(Path("a"), Path("-")))),
        (["--sizes", "-1", "2"], changed(sizes=(-1, 2))),
        (["--rate", "-1e-3"], changed(rate=-1e-3)),
    ],
)
def test_a_value_may_begin_with_a_dash(words: list[str], wanted: Work):
    assert settings("--out o", *words) == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", "- x"], "cannot be '- x'"),
        (["demo", "- x"], "for: - x."),
        (["--recipe", "-x"], "--recipe needs a value"),
        (["--steps", "-5x"], "cannot be '-5x'"),
    ],
)
def test_what_begins_with_a_dash_is_named_as_it_was_written(words: list[str], told: str):
    with pytest.raises(ConfigError) as error:
        settings("--out o", *words)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("--out o --stepz 3", "cli.unknown-flag", "Did you mean '--steps'?"),
        ("--out o --no-compil", "cli.unknown-flag", "'--no-compile'?"),
        ("--out o --qqq 3", "cli.unknown-flag", "amauta work --help"),
        ("--out o --steps 1.5", "cli.bad-value", "'1.5'. Give a whole number"),
        ("--out o --sizes 1 2.5", "cli.bad-value", "whole number"),
        ("--out o --steps many", "cli.bad-value", "'many'"),
        ("--out o --rate fast", "cli.bad-value", "Give a number."),
        ("--out o --device cup", "cli.bad-value", "Allowed: auto, cpu. Did you mean 'cpu'?"),
        ("--out o --steps", "cli.no-value", "--loop.steps"),
        ("--out o --text", "cli.no-value", "--text"),
        ("--out o --steps 1 --steps 2", "cli.repeated", "--steps"),
        ("demo more --out o", "cli.extra-words", "more"),
        ("--steps 3", "cli.missing", "--out"),
        ("--out o --steps -1", "config.several", "'loop.steps' is -1"),
        ("--out o --table 3", "cli.unknown-flag", "--table"),
    ],
)
def test_mistakes_are_named(line: str, key: str, words: str):
    with pytest.raises(ConfigError) as error:
        settings(line)
    assert (error.value.key, error.value.exit_code) == (key, 2)
    assert words in str(error.value)


def test_mistakes_are_named_in_spanish(monkeypatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    with pytest.raises(ConfigError, match="Opción desconocida '--stepz'. ¿Quiso decir '--steps'"):
        settings("--out o --stepz 3")


def test_flag_over_file_over_default(tmp_path: Path):
    file = tmp_path / "work.toml"
    file.write_text('out = "from-file"\nmost = 5\n[loop]\nsteps = 20\nrate = 2\n[table]\na = 1\n')
    made = settings(f"--config {file} --steps 30")
    assert (made.loop.steps, made.loop.rate, made.loop.compile) == (30, 2.0, True)
    assert (made.out, made.most, made.table, made.seed) == (Path("from-file"), 5, {"a": 1}, 7)
    # A flag that repeats the default still wins over the file.
    assert settings(f"--config {file} --steps 1000").loop.steps == 1000


def test_an_outer_class_keeps_the_defaults_that_it_gives_to_a_section():
    """Giving one field of a section must not throw the others back to the section's own defaults."""

    @dataclass
    class Tuned:
        loop: Loop = field(default_factory=lambda: Loop(steps=5, rate=0.25))

    assert parse(Tuned, ["--steps", "6"], "amauta tuned").settings.loop == Loop(steps=6, rate=0.25)
    assert {setting.path[-1]: setting.default for setting in settings_of(Tuned)}["rate"] == 0.25


def test_a_mistake_in_the_file_names_the_file(tmp_path: Path):
    file = tmp_path / "work.toml"
    file.write_text('out = "o"\n[loop]\nstep = 20\n')
    with pytest.raises(ConfigError) as error:
        settings(f"--config {file}")
    assert str(file) in str(error.value) and "Did you mean 'steps'?" in str(error.value)


def test_the_common_flags():
    assert parse(Work, ["--out", "o", "--json"], "amauta work").json
    assert not parse(Work, ["--out", "o", "--debug"], "amauta work").json


def test_a_setting_may_not_take_the_name_of_a_common_flag():
    @dataclass
    class Clash:
        json: Annotated[int, Doc("clash")] = 1

    with pytest.raises(AssertionError, match="--json"):
        parse(Clash, [], "amauta clash")


def test_defaults_are_in_the_help_and_not_in_what_is_given():
    from amauta.cli import _help_pages
    from amauta.cli._door import Command
    from amauta.cli._root import command_page

    def work(_: Work) -> dict[str, Any]:
        """Do work.

        Examples:
            amauta work --out a-very-long-name-that-would-not-fit-on-one-line --text one two three four five six
        """
        return json.loads("{}")

    page = _help_pages._drawn(command_page(Command(Work, work), "work"))
    assert "--loop.steps --steps INT" in page and "[default: 1000]" in page
    assert "[required]" in page and "[default: 0.9 0.95]" in page and "RECIPE" in page
    assert "--loop.no-compile --no-compile" in page and "[default: yes]" in page
    example = "  amauta work --out a-very-long-name-that-would-not-fit-on-one-line --text one two three four five six"
    assert page.splitlines()[-2:] == ["Examples:", example]  # not folded


def test_help_in_spanish(monkeypatch):
    from amauta.base import messages

    monkeypatch.setenv("AMAUTA_LANG", "es")
    words = {"Loop": {"steps": {"es": "pasos"}}, "sections": {"loop": {"es": "bucle"}}}
    monkeypatch.setattr(messages, "translations", lambda: words)
    helps = {str(p.annotation.__metadata__[0].name[0]): p.annotation.__metadata__[0] for p in _parameters(Work)}
    assert helps["--loop.steps"].help == "pasos [por defecto: 1000]"
    assert helps["--loop.rate"].help == "rate [por defecto: 0.5]"  # not translated
    assert helps["--device"].help == "device [por defecto: auto] [valores: auto, cpu]"
    assert helps["--most"].help == "most" and helps["--out"].help == "where to [obligatorio]"
    assert helps["--loop.steps"].group[0].name == "loop (bucle)"


def test_help_tells_what_holds_when_a_setting_is_not_given():
    @dataclass
    class Asked:
        plain: Annotated[int | None, Unset(3), Doc("plain")] = None
        model: Annotated[int | None, Unset(4, "decode.else"), Doc("model")] = None
        none: Annotated[tuple[str, ...] | None, Unset(()), Doc("none")] = None

    helps = [parameter.annotation.__metadata__[0].help for parameter in _parameters(Asked)][:3]
    assert helps == ["plain [default: 3]", "model [the model's generation_config.json, else 4]", "none"]
