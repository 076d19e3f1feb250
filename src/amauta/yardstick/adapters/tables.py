"""The results as tables for a terminal or a page: in Markdown, in the user's language."""

from typing import Any

from amauta.base.messages import say
from amauta.yardstick.tables import NONE, drawn, number, share

Cell = dict[str, Any]


def as_text(result: Cell) -> str:
    """All tables of a result."""
    parts = [say("bench.published"), published(result["published"])]
    if "tasks" in result:
        found = result["tasks"]
        told = say("bench.tasks", model=found["model"], parameters=f"{found['parameters']:,}")
        parts = [told, ways(found), *parts]
    if "languages" in result:
        found = result["languages"]
        told = say("bench.languages", steps=found["steps"], source=", ".join(found["source"]["corpus"]),
                   target=", ".join(found["target"]["corpus"]))  # fmt: skip
        parts += [told, languages(found)]
    return "\n\n".join(parts)


def ways(found: Cell) -> str:
    """A row a way."""
    headers = [say("bench.way"), say("bench.trained"), say("bench.share"),
               *(say("bench.task", name=name) for name in found["tasks"]), say("bench.mean"), say("bench.seconds"),
               say("bench.speed"), say("bench.peak")]  # fmt: skip
    rows: list[list[str]] = []
    for row in found["rows"]:
        if "missing" in row:
            rows.append([row["way"], *[NONE] * (len(headers) - 1)])
            continue
        rows.append([
            row["way"], f"{row['trained']:,}", f"{100 * row['trained'] / found['parameters']:.2f} %",
            *(share(row["tasks"][name]) for name in found["tasks"]), share(row["accuracy"]), f"{row['seconds']:.1f}",
            f"{row['tokens_per_second']:,.0f}", megabytes(row["peak_bytes"]),
        ])  # fmt: skip
    notes = [say("bench.missing", way=row["way"], reason=row["missing"]) for row in found["rows"] if "missing" in row]
    return "\n".join([drawn(headers, rows), *notes])


def published(rows: list[Cell]) -> str:
    """What was published, beside what the specs give."""
    headers = [
        say("bench.model"),
        say("bench.way"),
        say("bench.was-published"),
        say("bench.counted"),
        say("bench.share"),
    ]
    cells = [[row["model"], row["way"], row["published"], f"{row['counted']:,}", f"{100 * row['share']:.4f} %"]
             for row in rows]  # fmt: skip
    return drawn(headers, cells)


def languages(found: Cell) -> str:
    """A row a strategy and reduction."""
    headers = [say("bench.strategy"), say("bench.reduction"), say("bench.width"), say("bench.trained"),
               say("bench.bits-per-byte"), say("bench.seconds")]  # fmt: skip
    rows = [
        [row["strategy"], _told(row.get("reduction")), _told(row.get("width")), f"{row['trained']:,}",
         number(row["bits_per_byte"]), f"{row['seconds']:.1f}" if "seconds" in row else NONE]
        for row in found["rows"]
    ]  # fmt: skip
    return drawn(headers, rows)


def megabytes(size: int | None) -> str:
    return NONE if size is None else f"{size / 1e6:.1f}"


def _told(value: int | None) -> str:
    return NONE if value is None else str(value)
