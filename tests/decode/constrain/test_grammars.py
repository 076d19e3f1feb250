"""Forms of an answer: one at a time, read from files or from the text itself, and refused with the reason."""

import json
from dataclasses import dataclass, field

import pytest

from amauta.base.errors import ConfigError, DataError
from amauta.cli._flags import parse
from amauta.config import build, to_dict
from amauta.decode.constrain.grammars import TAIL, grammar_of
from amauta.decode.constrain.settings import Constraining, plain
from amauta.tokenize.train import train_bpe
from tests.decode.constrain.toys import start
from tests.tokenize.conftest import texts


@dataclass
class Command:
    """Stands for a command that has the form of its answers as a section."""

    form: Constraining = field(default_factory=Constraining)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(texts(0, 200), 320)


# what is wrong -> the message's key, and words that it must name
REFUSED = {
    "several": (dict(regex="a", choice=("a",)), "several", "regex, choice"),
    "rows of no csv": (dict(csv_rows=2), "no-columns", "csv_rows"),
    "header of no csv": (dict(regex="a", csv_header=False), "no-columns", "csv_header"),
    "no choices": (dict(choice=()), "no-choice", "0 were given"),
    "an empty choice": (dict(choice=("a", "")), "no-choice", "empty"),
    "no json": (dict(schema="{'a': 1}"), "not-json", "line 1 column 2"),
    "no file": (dict(schema="no-such.json"), "no-file", "no-such.json"),
    "no grammar": (dict(grammar="no-such.lark"), "no-file", "no-such.lark"),
    "not": (dict(schema='{"properties": {"a": {"not": {}}}}'), "unsupported", ": not."),
    "two unsupported": (dict(schema='{"type": "array", "uniqueItems": true, "contains": {}}'), "unsupported",
                        "contains"),
    "a type that is none": (dict(schema='{"type": "banana"}'), "bad-grammar",
                            "(schema) cannot be used: Invalid type: banana"),
    "a reference to nothing": (dict(schema='{"$ref": "#/nope"}'), "bad-grammar", "/nope"),
    "false": (dict(schema="false"), "unsatisfiable", "schema is false"),
    "an empty range": (dict(schema='{"type": "integer", "minimum": 5, "maximum": 3}'), "unsatisfiable",
                       "minimum (5) is greater than maximum (3)"),
    "an open bracket": (dict(regex="a("), "bad-grammar", '(regex) cannot be used: invalid regex "a(" (in regex): '
                        "regex parse error: a( error: unclosed group"),
    "look-ahead": (dict(regex="(?=a)a"), "bad-grammar", "look-ahead"),
    "a reference back": (dict(regex=r"(a)\1"), "bad-grammar", "backreferences"),
    "a regex that nothing matches": (dict(regex=r"[^\s\S]"), "empty", "regex"),
    "a rule that is missing": (dict(grammar='start: "a" foo'), "bad-grammar", 'at 1(8): unknown name: "foo"'),
    "a grammar without end": (dict(grammar='start: start "a"'), "empty", "grammar"),
    "a column's type": (dict(csv_columns="a:int"), "column-type", "Did you mean 'integer'?"),
    "a column twice": (dict(csv_columns="a,b,a"), "column-name", '"a"'),
    "a column without a name": (dict(csv_columns="a,:integer"), "column-name", '""'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_form_that_cannot_be_is_refused_with_the_reason(case, tokenizer):
    form, key, words = REFUSED[case]
    with pytest.raises(ConfigError) as told:
        start(tokenizer, tokenizer.stops, **form)
    assert told.value.key == f"constrain.{key}"
    assert words in str(told.value)
    assert "%llguidance" not in str(told.value)  # what we added is not the user's


@pytest.mark.parametrize(
    "form", [dict(regex="a\ud800"), dict(choice=("b", "a\udfff")), dict(grammar='start: "\ud800"')]
)
def test_half_a_character_is_refused(form, tokenizer):
    with pytest.raises(DataError):
        start(tokenizer, tokenizer.stops, **form)


def test_every_character_can_be_a_choice(tokenizer):
    characters = [chr(code) for code in (*range(0x180), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0x1F999, 0x10FFFF)]
    byte = {tokenizer.token_bytes(id): id for id in reversed(range(tokenizer.size))}
    first = start(tokenizer, tokenizer.stops, choice=tuple(f"{one}." for one in characters))
    for one in characters:
        constraint = first.copy()
        for part in f"{one}.".encode():
            constraint.take(byte[bytes([part])])
        assert constraint.finished


def test_files_and_texts_are_read_alike(tmp_path, tokenizer):
    schema, grammar = '{"type": "integer", "minimum": 1}', 'b: "b"\nstart: "a" b'
    for kind, text in (("schema", schema), ("grammar", grammar)):
        file = tmp_path / f"a {kind}"
        file.write_text(text, encoding="utf-8")
        assert grammar_of(Constraining(**{kind: text})) == grammar_of(Constraining(**{kind: str(file)}))
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    for name in (tmp_path / "bad", tmp_path, "a\0b"):
        with pytest.raises(ConfigError) as told:
            grammar_of(Constraining(schema=str(name)))
        assert told.value.key == "constrain.no-file"


def test_the_keys_of_a_schema_keep_their_order():
    schema = {"properties": {"b": {}, "a": {}}, "required": ["a", "b"]}
    assert grammar_of(Constraining(**plain({"schema": schema}))) == f"start: %json {json.dumps(schema)}\n{TAIL}"


def test_python_files_and_flags_make_the_same_settings():
    assert Constraining().kind is None and grammar_of(Constraining()) is None
    wanted = Constraining(choice=("yes", "no"))
    assert wanted.kind == "choice"
    assert build(Constraining, plain({"choice": ["yes", "no"]})) == wanted
    assert parse(Command, ["--choice", "yes", "--choice", "no"], "x").settings.form == wanted
    assert build(Constraining, plain({"choice": "yes"})) == Constraining(choice=("yes",))
    assert build(Constraining, plain({"schema": True})) == Constraining(schema="true")
    table = Constraining(csv_columns="a,b:integer", csv_rows=3, csv_header=False)
    words = ["--csv-columns", "a,b:integer", "--csv-rows", "3", "--no-csv-header"]
    assert parse(Command, words, "x").settings.form == table == build(Constraining, to_dict(table))
    with pytest.raises(ConfigError) as told:
        build(Constraining, {"regex": "a", "grammar": "b"})
    assert told.value.key == "constrain.several"
    with pytest.raises(ConfigError) as told:
        build(Constraining, {"csv_columns": "a", "csv_rows": -1})
    assert told.value.key == "config.several"
