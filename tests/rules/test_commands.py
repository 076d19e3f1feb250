"""The door: quick to open, every flag explained, every command with an example, the reference up to date."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from amauta.base.messages import LANGUAGES
from amauta.cli import _help_pages
from amauta.cli._door import Command
from amauta.cli._flags import flagged, parse, parser
from amauta.cli._root import found, load
from tests.rules.sources import ROOT

HEAVY = {"torch", "pydantic", "numpy", "transformers", "matplotlib", "pyarrow"}
SECONDS = 0.5


def commands() -> list[tuple[str, Command]]:
    everything: list[tuple[str, Command]] = []
    for name in found():
        thing = load(name)
        subs = {name: thing} if isinstance(thing, Command) else {f"{name} {k}": v for k, v in thing.commands.items()}
        everything += subs.items()
    return everything


COMMANDS = commands()


def loaded_after(code: str) -> set[str]:
    """The heavy libraries that a fresh Python has loaded after running ``code``."""
    tail = f"\nimport sys, json; print('\\n' + json.dumps(sorted(set(sys.modules) & {HEAVY!r})))"
    out = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str], language: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", language)
    assert loaded_after(f"from amauta.cli import main; main({words})") == set()


def test_the_package_loads_nothing_heavy():
    assert loaded_after("import amauta") == set()


def test_the_help_of_every_command_loads_no_torch():
    loaded = loaded_after("from amauta.cli import _help_pages; _help_pages.page('es')")
    assert not loaded & {"torch", "transformers", "matplotlib", "pyarrow"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_answers_in_half_a_second(language: str, monkeypatch: pytest.MonkeyPatch):
    """In seconds of the processor, the best of five: on an idle machine they are the seconds of a clock, and on one
    that is busy with other work (another test, say) they stay the same.
    """
    monkeypatch.setenv("AMAUTA_LANG", language)
    tries = []
    for _ in range(5):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "amauta", "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        assert "doctor" in done.stdout
        tries.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert 0 < min(tries) < SECONDS, f"amauta --help takes {min(tries):.2f} s"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_command_explains_itself(name: str, command: Command):
    parser(command.settings, name).assemble_argument_collection()  # no two flags of one name
    unexplained = [".".join(setting.path) for setting in flagged(command.settings) if not setting.help.strip()]
    assert not unexplained, f"settings without Doc: {unexplained}"
    assert command.summary, "a docstring begins with a sentence on what the command does"
    assert f"amauta {name}" in command.examples, "a docstring ends with Examples: and real command lines"


def lines_of(text: str) -> list[list[str]]:
    """The words of every line that calls amauta, without what stands before it or after a pipe."""
    calls = [line.strip().partition("amauta ") for line in text.splitlines() if not line.lstrip().startswith("#")]
    marked = [rest for before, call, rest in calls if call and (not before or before.endswith(("| ", "time ")))]
    return [[word for word in shlex.split(rest, comments=True)] for rest in marked]


def understood(words: list[str]) -> None:
    """Read a command line as the door does, up to and with its settings, and run nothing."""
    thing = load(words[0])
    alone = not isinstance(thing, Command) and thing.alone is not None and len(words) == 1
    used = 1 if isinstance(thing, Command) or alone else 2
    command = thing if isinstance(thing, Command) else thing.commands[thing.alone if alone else words[1]]
    parse(command.settings, words[used:], f"amauta {' '.join(words[:used])}")


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_the_examples_are_understood(name: str, command: Command):
    lines = lines_of(command.examples)
    assert lines
    for words in lines:
        understood(words)


@pytest.mark.parametrize("page", ["README.md", "README.es.md"])
def test_the_command_lines_of_a_page_are_understood(page: str):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = [words for block in blocks for words in lines_of(block) if words != ["--help"]]
    assert len(lines) > 5
    for words in lines:
        understood(words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_reference_is_up_to_date(language: str):
    page = ROOT / "docs" / "reference" / _help_pages.FILES[language]
    assert page.read_text(encoding="utf-8") == _help_pages.page(language), "run: make help-pages"
