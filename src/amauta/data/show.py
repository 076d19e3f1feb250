"""Look at data before using it: what shape its records have, how many there are, and the first of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge
from typing_extensions import Doc

from amauta.base.errors import DataError
from amauta.config import Positional
from amauta.data import records
from amauta.data.read import Row, excerpt, read

_SHOWN = 400  # characters of a field


@dataclass
class Show:
    """What ``amauta data show`` needs to know."""

    files: Annotated[tuple[str, ...], Positional(), Doc("files or patterns: .txt .jsonl .json .parquet, .gz, .zst")]
    count: Annotated[int, Ge(0), Doc("records to show of each file")] = 2
    may_skip: Annotated[int, Ge(0), Doc("bad records that may be skipped")] = 0


def show(settings: Show) -> dict[str, Any]:
    """Counts of records by shape, for all files and for each, and the first records as they are read.

    A record whose shape is not known is shown by the names of its fields; one whose shape is known and whose content
    is bad (a dialogue without an answer …) is shown with the reason, and counted under ``bad``.
    """
    reader = read(settings.files, may_skip=settings.may_skip)
    shapes: Counter[str] = Counter()
    files: dict[str, dict[str, Any]] = {}
    for row in reader:
        shape = records.shape_of(row) or "unknown"
        file = files.setdefault(str(row.file), {"records": 0, "shapes": Counter(), "bad": 0, "first": []})
        shapes[shape] += 1
        file["records"] += 1
        file["shapes"][shape] += 1
        seen, bad = _reading(row, shape)
        file["bad"] += bad
        if len(file["first"]) < settings.count:
            file["first"].append({"line": row.line, "shape": shape, **seen})
    plain = {name: file | {"shapes": dict(file["shapes"])} for name, file in files.items()}
    return {
        "records": shapes.total(), "shapes": dict(shapes), "bad": sum(file["bad"] for file in files.values()),
        "skipped": reader.skipped, "skipped_reasons": reader.reasons, "files": plain,
    }  # fmt: skip


def _reading(row: Row, shape: str) -> tuple[dict[str, Any], bool]:
    """A record as its shape's reader gives it, long texts shortened; and whether the reader refused it."""
    if shape == "unknown":
        return {"fields": list(row.value)}, False
    try:
        value = READERS[shape](row)
    except DataError as error:
        return {"error": str(error)}, True
    name = {str: "text", list: "messages"}.get(type(value))
    parts = {name: value} if name else vars(value)
    return {name: _short(part) for name, part in parts.items()}, False


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    return value


def as_text(result: dict[str, Any]) -> str:
    """The result of ``show`` for a person: a heading and an indented line a field."""
    lines: list[str] = []
    for name, file in result["files"].items():
        counts = ", ".join(f"{shape} {count}" for shape, count in file["shapes"].items())
        lines.append(f"{name}: {counts}" + (f" (bad {file['bad']})" if file["bad"] else ""))
        for first in file["first"]:
            lines.append(f"  {first['line']} {first['shape']}")
            for field, value in first.items():
                if field not in ("line", "shape"):
                    lines += [f"    {field}: {part}" for part in _lines(value)]
    return "\n".join(lines)


def _lines(value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"{item['role']}: {excerpt(item['content'], _SHOWN)}" for item in value]
    return [excerpt(value, _SHOWN)]


def _messages(row: Row) -> list[records.Message]:
    """A dialogue with its tool calls, as fine-tuning reads it."""
    return records.dialogue_of(row).messages


READERS: dict[str, Callable[[Row], Any]] = {
    "preference": records.preference_of,
    "messages": _messages,
    "sharegpt": _messages,
    "unpaired": records.unpaired_of,
    "completion": _messages,
    "alpaca": records.messages_of,
    "question": records.messages_of,
    "labelled": records.labelled_of,
    "text": records.text_of,
}
