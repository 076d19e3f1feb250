"""Every message stands in both languages with the same blanks, is used, and is given what its blanks need."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from amauta.base import messages
from tests.rules.sources import PACKAGE, modules, tree

# help.toml holds no messages: the English of help stands in the code (test_help.py).
FILES = sorted(file for file in (PACKAGE / "base" / "messages").glob("*.toml") if file.name != "help.toml")
CATALOGUE = {f"{file.stem}.{name}": texts for file in FILES for name, texts in messages.subject(file.stem).items()}
SUBJECTS = {file.stem for file in FILES}
SPEAKERS = re.compile(r"say|\w*(Error|MissedGoal|Interrupted)")
FILE_NAME = re.compile(r".*\.(toml|jsonl?|html|txt|safetensors|gguf|parquet|py|npy|bin)")


def blanks(text: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in Formatter().parse(text) if name is not None}


def keys_in(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Every string that reads like a message of a known subject, with its line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            subject, dot, name = node.value.partition(".")
            if dot and subject in SUBJECTS and re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
                yield node.value, node.lineno


def calls_in(module: ast.Module) -> Iterator[tuple[str, set[str], int]]:
    """Every ``say("key", …)`` and ``SomeError("key", …)`` whose fields are all written out: key, fields, line."""
    for node in ast.walk(module):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        key = node.args[0].value
        if SPEAKERS.fullmatch(called) and isinstance(key, str) and all(word.arg for word in node.keywords):
            yield key, {str(word.arg) for word in node.keywords}, node.lineno


def _where(file: Path, line: int) -> str:
    return f"{file.relative_to(PACKAGE)}:{line}"


@pytest.mark.parametrize("key", sorted(CATALOGUE))
def test_both_languages_with_the_same_blanks(key: str):
    texts = CATALOGUE[key]
    assert set(texts) == set(messages.LANGUAGES)
    assert all(text.strip() for text in texts.values())
    assert blanks(texts["en"]) == blanks(texts["es"])


def test_every_key_used_exists():
    missing = [
        f"{_where(file, line)} {key}"
        for file in modules()
        for key, line in keys_in(tree(file))
        if key not in CATALOGUE and not FILE_NAME.fullmatch(key)
    ]
    assert not missing, "\n".join(missing)


def test_every_key_is_used():
    used = {key for file in modules() for key, _ in keys_in(tree(file))}
    assert not set(CATALOGUE) - used


def test_every_blank_is_filled():
    wrong = [
        f"{_where(file, line)} {key}: blanks {sorted(blanks(CATALOGUE[key]['en']))}, given {sorted(fields)}"
        for file in modules()
        for key, fields, line in calls_in(tree(file))
        if key in CATALOGUE and blanks(CATALOGUE[key]["en"]) != fields
    ]
    assert not wrong, "\n".join(wrong)


def test_a_key_that_is_spoken_stands_in_the_catalogue():
    wrong = [
        f"{_where(file, line)} {key}"
        for file in modules()
        for key, _, line in calls_in(tree(file))
        if re.fullmatch(r"[a-z]+\.[a-z0-9-]+", key) and key not in CATALOGUE
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rules_themselves():
    text = 'raise DataError("runs.disk-full", path=p)\nsay("cli.error", text=1)\nsay("cli.error", **more)\nf("x.y")'
    module = ast.parse(text)
    assert list(calls_in(module)) == [("runs.disk-full", {"path"}, 1), ("cli.error", {"text"}, 2)]
    assert [key for key, _ in keys_in(module)] == ["runs.disk-full", "cli.error", "cli.error"]
    assert blanks("{a} of {b!r} at {c.d:.2f}") == {"a", "b", "c"}
