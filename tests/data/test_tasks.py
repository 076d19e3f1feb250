"""Records of tasks: what each kind reads, and what is said of those that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from amauta.base.errors import DataError
from amauta.data.tasks import Columns, read_task


@pytest.fixture
def written(tmp_path: Path):
    def write(name: str, *rows: dict[str, Any]) -> list[str]:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [str(path)]

    return write


def test_classes_by_name_in_order_of_the_alphabet_or_as_they_are_given(written: Any):
    rows = [{"text": "a", "label": "pos"}, {"text": "b", "text_pair": "c", "label": "neg"}]
    task = read_task(written("x", *rows), Columns())
    assert (task.kind, task.labels, task.classes) == ("classification", ("neg", "pos"), 2)
    assert [(one.text, one.pair, one.label) for one in task.examples] == [("a", None, 1), ("b", "c", 0)]
    given = read_task(written("x", *rows), Columns(), labels=["pos", "neg"])
    assert [one.label for one in given.examples] == [0, 1]
    numbers = read_task(written("n", *[{"text": "a", "label": n} for n in (0, 2, 1)]), Columns())
    assert (numbers.labels, numbers.classes) == ((), 3)
    named = read_task(written("n", *[{"text": "a", "label": n} for n in (0, 1)]), Columns(), labels=["no", "yes"])
    assert [one.label for one in named.examples] == [0, 1]
    digits = read_task(written("n", *[{"text": "a", "label": n} for n in (1, 2)]), Columns(), labels=["1", "2"])
    assert [one.label for one in digits.examples] == [0, 1]


def test_other_kinds_are_found_by_their_columns(written: Any):
    scores = read_task(written("s", {"a": "x", "b": "y", "score": 3.8}), Columns("a", "b", "score"))
    assert (scores.kind, scores.examples[0].pair, scores.examples[0].label) == ("regression", "y", 3.8)
    choice = read_task(written("c", {"text": "q", "choices": ["x", "y"], "label": "y"}), Columns())
    assert (choice.kind, choice.examples[0].label) == ("choice", 1)
    squad = {"question": "q", "context": "one two one", "answers": {"text": ["one"], "answer_start": [8]}}
    spans = read_task(written("q", squad, squad | {"answers": {"text": [], "answer_start": []}}), Columns())
    assert (spans.kind, [one.start for one in spans.examples]) == ("span", [8, None])
    texts = read_task(written("t", {"prompt": "p", "completion": "c"}), Columns())
    assert (texts.kind, texts.examples[0].completion) == ("text", "c")


POS, NEG = {"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([POS, {"sentence": "b", "label": "neg"}], {}, r"bad\.jsonl:2: .*no column text; it has sentence, label"),
        ([{"premise": "a", "gold": 1}], {"kind": "regression"}, r"no column text, label; it has premise, gold"),
        ([POS, NEG, {"text": "c", "label": "neutral"}], {"labels": ["neg", "pos"]},
         r'bad\.jsonl:3: the label "neutral" is not in the set: neg, pos'),
        ([POS, NEG], {"labels": ["neg", "neutral", "pos"]}, "Without examples: neutral; with: neg: 1, pos: 1"),
        ([{"text": "a", "label": 0}, {"text": "a", "label": 2}], {}, "Without examples: 1; with: 0: 1, 2: 1"),
        ([POS, POS], {}, "only one class"),
        ([POS, {"text": "a", "label": 1}], {}, "texts in some records and numbers in others"),
        ([{"text": "a", "label": -1}, {"text": "a", "label": 0}], {}, "label -1 is below 0"),
        ([{"text": "a", "label": [1]}], {"kind": "classification"}, r"column label holds \[1\]"),
        ([{"text": 5, "label": 1}], {"kind": "classification"}, "column text holds 5"),
        ([{"text": "a", "label": True}], {"kind": "regression"}, "column label holds true"),
        ([{"text": "a", "choices": ["x", "y"], "label": 2}], {}, r"column label holds 2; allowed: 0 … 1 \| x \| y"),
        ([{"question": "q", "context": "c", "answers": ["z"]}], {}, 'answer "z" does not stand in the context'),
        ([POS, NEG], {"labels": ["pos", "neg", "pos"]}, "twice: pos, neg, pos"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(written: Any, rows: list[dict[str, Any]], more: dict[str, Any], said: str):
    with pytest.raises(DataError, match=said):
        read_task(written("bad", *rows), Columns(), **more)


def test_heldout_records_have_the_classes_of_the_task(written: Any):
    task = read_task(written("task", POS, NEG), Columns())
    assert read_task(written("few", POS), Columns(), like=task).examples[0].label == 1  # a class may be missing there
    with pytest.raises(DataError, match='held.*"other" is not in the set: neg, pos'):
        read_task(written("held", {"text": "a", "label": "other"}), Columns(), like=task)


def test_bad_records_are_skipped_and_counted_where_they_may(written: Any):
    task = read_task(written("some", POS, {"text": "a"}, NEG), Columns(), may_skip=1)
    assert (len(task.examples), task.skipped) == (2, 1)
