"""Looking at data: shapes counted by hand, bad records shown with their reason."""

import json
from pathlib import Path

from amauta.data.records import SHAPES
from amauta.data.show import READERS, Show, as_text, show

ROWS = [
    {"text": "x" * 900},
    {"prompt": "¿2+3?", "completion": "5"},
    {"prompt": "p", "chosen": "a", "rejected": "a"},
    {"foo": 1, "bar": 2},
    {"text": "b", "label": 1},
]


def test_shapes_are_counted_and_records_shown(tmp_path: Path) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    b.write_text('{"text": "solo"}\n')
    result = show(Show(files=(str(tmp_path / "*.jsonl"),), count=4))
    assert result["shapes"] == {"text": 2, "completion": 1, "preference": 1, "unknown": 1, "labelled": 1}
    assert (result["records"], result["bad"]) == (6, 1)
    file = result["files"][str(a)]
    assert file["records"] == 5 and file["shapes"]["text"] == 1 and file["bad"] == 1
    first = file["first"]
    assert [one["line"] for one in first] == [1, 2, 3, 4]
    assert first[0]["text"] == "x" * 399 + "…"
    assert first[1]["messages"][1] == {"role": "assistant", "content": "5"}
    assert "are equal" in first[2]["error"]
    assert first[3]["fields"] == ["foo", "bar"]
    text = as_text(result)
    assert f"{b}: text 1" in text and 'assistant: "5"' in text and "(bad 1)" in text


def test_every_shape_has_its_reader() -> None:
    assert list(READERS) == list(SHAPES)
