"""What is written under a form obeys it, at every step, and what others write in that form is accepted."""

import csv
import io
import json
import random
import re
from collections import Counter

import jsonschema
import pytest
import torch

from amauta.decode.constrain.constraint import Constrainer
from amauta.decode.constrain.settings import Constraining
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe
from tests.decode.constrain.toys import allowed, write
from tests.tokenize.conftest import texts

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["wool", "é\"", None, 1.5]}, "maxItems": 3},
        "on": {"type": "boolean"},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}  # fmt: skip
COMPACT = {"x-guidance": {"whitespace_flexible": False}, "anyOf": [SCHEMA, {"type": "number", "multipleOf": 3}]}
TYPES = {"string": str, "integer": int, "number": float, "boolean": {"true": True, "false": False}.__getitem__}


def obeys_schema(schema):
    def check(text):
        try:
            jsonschema.validate(json.loads(text), schema)
        except (ValueError, jsonschema.ValidationError):
            return False
        return list(json.loads(text)) == [key for key in SCHEMA["properties"] if key in json.loads(text)]

    return check


def obeys_columns(kinds, rows, header):
    """By Python's own reader: so many rows of these types."""

    def check(text):
        if not text or text.endswith("\n"):
            return False
        try:
            found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            head, body = (found[:1], found[1:]) if header else ([], found)
            for row in body:
                for value, kind in zip(row, kinds, strict=True):
                    TYPES[kind](value) if kind in TYPES else kind.split("|").index(value)
        except (ValueError, KeyError, csv.Error):
            return False
        return head == [["name", "x"]] * header and (len(body) == rows or (rows == 0 and len(body) > 0))

    return check


DIALED = r"(\d{3}-){2}[a-zñé]{1,4}|¿.{2,5}\?"
CHOICES = ("yes", "yes!", 'a"\\\n\x7f', "né")
FORMS = {
    "schema": (Constraining(schema=json.dumps(SCHEMA)), obeys_schema(SCHEMA)),
    "compact": (Constraining(schema=json.dumps({**COMPACT, "anyOf": [SCHEMA]})), obeys_schema(SCHEMA)),
    "regex": (Constraining(regex=DIALED), re.compile(DIALED).fullmatch),
    "choice": (Constraining(choice=CHOICES), CHOICES.__contains__),
    "columns": (Constraining(csv_columns="name,x:integer", csv_rows=2), obeys_columns(["string", "integer"], 2, True)),
    "one column": (Constraining(csv_columns="x", csv_rows=2, csv_header=False), obeys_columns(["string"], 2, False)),
    "cells": (Constraining(csv_columns='a:boolean, b:number, c:red|"q"|two words', csv_header=False),
              obeys_columns(["boolean", "number", 'red|"q"|two words'], 0, False)),
    "grammar": (Constraining(grammar='start: n ("+" n)*\nn: N | "(" N ")"\nN: /[0-9]{1,3}/'),
                re.compile(r"([0-9]{1,3}|\([0-9]{1,3}\))(\+([0-9]{1,3}|\([0-9]{1,3}\)))*").fullmatch),
}  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """A random model over a tokenizer of ours, its vocabulary padded."""
    tokenizer = train_bpe(texts(0, 300), 400)
    spec = Spec(vocabulary=tokenizer.size + 7, context=200, width=16, layers=1, heads=2, init_std=0.3)
    return Transformer.create(spec, 3), tokenizer


def test_a_batch_of_different_forms_each_obeyed_at_every_step(small):
    model, tokenizer = small
    pieces = [tokenizer.token_bytes(id) for id in range(tokenizer.size)]
    bias = torch.zeros(model.spec.vocabulary)  # towards an end, or few would reach it
    bias[[id for id, piece in enumerate(pieces) if re.fullmatch(rb"[ \n\t\r]+", piece)]] = -4.0
    bias[[id for id, piece in enumerate(pieces) if re.fullmatch(rb'["},\]0-9]+', piece)]] = 3.0
    bias[pieces.index(b"\n")] = 1.0
    bias[list(tokenizer.stops)] = 3.0
    names = [name for name in FORMS for _ in range(6)]
    made = Constrainer(tokenizer, len(bias), tokenizer.stops).start([FORMS[name][0] for name in names])
    whole = Counter()

    def watch(row, ids):
        ended = ids[-1] in tokenizer.stops
        raw = b"".join(tokenizer.token_bytes(id) for id in ids)
        try:
            text = raw.decode()
        except UnicodeDecodeError:  # within a character
            assert not made[row].complete
            return
        name = names[row]
        assert made[row].complete == bool(FORMS[name][1](text)), (name, text)
        whole[name] += ended
        assert made[row].complete or not ended

    write(model, [[tokenizer.begin, 30 + row] for row in range(len(names))], made, tokenizer.stops,
          most=120, seed=1, bias=bias, watch=watch)  # fmt: skip
    assert all(whole[name] for name in FORMS), whole


def accepts(tokenizer, settings, text):
    """Whether a text may be written whole: by the tokenizer's spelling, and byte by byte."""
    made = Constrainer(tokenizer, tokenizer.size, tokenizer.stops).start([settings] * 2)
    bytes_ = {tokenizer.token_bytes(id): id for id in range(tokenizer.size)}
    for constraint, ids in zip(
        made, (tokenizer.encode(text), [bytes_[bytes([b])] for b in text.encode()]), strict=True
    ):
        for id in ids:
            if id not in allowed(constraint):
                return False
            constraint.take(id)
        if not allowed(constraint) >= set(tokenizer.stops):
            return False
    return True


def test_what_others_write_is_accepted(small):
    _, tokenizer = small
    chance = random.Random(2)
    cells = ["plain", "with, comma", 'a "quoted" one', "two\nlines", "ñandú 🦙", " spaced ", ""]
    form = Constraining(csv_columns='the "x":string,n:integer')
    for _ in range(5):
        rows = [[chance.choice(cells), chance.choice(["-12", "0", "9" * 18])] for _ in range(3)]
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([['the "x"', "n"], *[[cell or "-", n] for cell, n in rows]])
        text = file.getvalue().removesuffix("\n")
        assert accepts(tokenizer, form, text)
        for wrong in (text + ",1", text + "0" * 18, text + "\n", text.replace('""x""', "x")):
            assert not accepts(tokenizer, form, wrong)
    loose = Constraining(csv_columns=" a : number , b ", csv_rows=1)
    assert all(accepts(tokenizer, loose, f"a,b\n{row}") for row in ("-1.50,x y", "0,7"))
    assert not any(accepts(tokenizer, loose, f"a,b\n{row}") for row in ("1.,x", "x,x", "01,x", "1,", ".5,x"))
    value = {"name": 'x"é🦙', "age": 7, "tags": [None, 'é"', 1.5]}
    for schema, written in (
        (SCHEMA, [json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, indent=2)]),
        (COMPACT, [json.dumps(value, ensure_ascii=False, separators=(",", ":")), "-33"]),
    ):
        for text in written:
            assert accepts(tokenizer, Constraining(schema=json.dumps(schema)), text), text
    for schema, other in ((COMPACT, value), (SCHEMA, value | {"age": 121}), (SCHEMA, value | {"more": 1})):
        text = json.dumps(other, ensure_ascii=False)
        assert not accepts(tokenizer, Constraining(schema=json.dumps(schema)), text)
