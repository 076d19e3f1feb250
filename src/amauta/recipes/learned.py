"""What each stage of a run has learned: the rows of the table that is printed and stands in the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amauta.base.messages import say
from amauta.recipes.goals import Figures, Verdict, goals_of, judge, look_up
from amauta.recipes.ledger import Ledger, Record, figures, load
from amauta.recipes.numbers import figure
from amauta.recipes.recipe import in_language


@dataclass(frozen=True)
class Row:
    """One figure of one stage. ``verdicts`` are its goals, which may be none."""

    stage: str
    metric: str
    label: str
    unit: str
    before: float | None
    after: float | None
    verdicts: tuple[Verdict, ...]

    @property
    def reached(self) -> bool | None:
        """Whether all goals were reached; None where there is none, or none that could be judged."""
        judged = [verdict.reached for verdict in self.verdicts if verdict.reached is not None]
        return all(judged) if judged else None

    @property
    def goal(self) -> str:
        """The goals as text, with the values of the figures that they name: ``< 2.31 (ngram.bits_per_byte)``."""
        return ", ".join(_goal_text(verdict, self.unit) for verdict in self.verdicts)


def verdicts(ledger: Ledger) -> list[Verdict]:
    """All goals of the run, judged."""
    known = figures(ledger)
    return [verdict for record in ledger["stages"] for verdict in _verdicts_of(record, known)]


def rows(ledger: Ledger) -> list[Row]:
    """The table: what each stage's recipe wants shown, and every figure that has a goal. Skipped stages have no row."""
    known = figures(ledger)
    found: list[Row] = []
    for record in ledger["stages"]:
        if record["state"] == "skipped":
            continue
        judged = _verdicts_of(record, known)
        shows = {show["metric"]: show for show in record["shows"]}
        for metric in dict.fromkeys([*shows, *record["must"]]):
            show = shows.get(metric, {})
            after = look_up(known, f"{record['name']}.{metric}")
            if after is None and record["state"] == "ended" and metric not in record["must"]:
                continue  # the command had nothing to measure it on
            label = in_language(show.get("label", "")) or metric
            found.append(Row(record["name"], metric, label, show.get("unit", "number"),
                             _before(record["name"], show.get("before"), known),
                             after,
                             tuple(verdict for verdict in judged if verdict.metric == metric)))  # fmt: skip
    return found


def missed(ledger: Ledger) -> list[dict[str, Any]]:
    """What was not reached: the goals of the recipe, and those of the commands themselves."""
    found: list[dict[str, Any]] = [
        {"stage": verdict.stage, "metric": verdict.metric, "goal": verdict.text, "value": verdict.value,
         "bound": verdict.bound}
        for verdict in verdicts(ledger) if verdict.reached is False
    ]  # fmt: skip
    for record in ledger["stages"]:
        if record.get("complaint") and record["state"] == "ended":
            found.append({"stage": record["name"], "metric": None, "goal": record["complaint"], "value": None,
                          "bound": None})  # fmt: skip
    return found


def _verdicts_of(record: Record, known: Figures) -> list[Verdict]:
    return [judge(record["name"], goal, known) for goal in goals_of(record["must"])]


def _before(stage: str, name: str | None, known: Figures) -> float | None:
    """The figure to compare with: ``stage.metric``, or a metric of the same stage."""
    if name is None:
        return None
    return look_up(known, name if name.partition(".")[0] in known else f"{stage}.{name}")


def _goal_text(verdict: Verdict, unit: str) -> str:
    compare, _, rest = verdict.text.replace("<=", "≤ ").replace(">=", "≥ ").replace("==", "= ").partition(" ")
    if compare[:1] in "<>" and len(compare) > 1:  # "<0.5", written without a space
        compare, rest = compare[0], compare[1:] + rest
    if verdict.bound is None:
        return f"{compare} {rest.strip()}"
    named = rest.strip() if any(letter.isalpha() for letter in rest) and not _is_number(rest) else ""
    return f"{compare} {figure(verdict.bound, unit)}" + (f" ({named.replace('*', '×')})" if named else "")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def table(folder: Path) -> str:
    """What each stage of the run in ``folder`` learned, as text in columns; empty when there is nothing to show."""
    ledger = load(folder)
    found = rows(ledger) if ledger else []
    if not found:
        return ""
    head = (say("recipes.stage"), say("recipes.figure"), say("recipes.before"), say("recipes.after"),
            say("recipes.result"), say("recipes.goal"))  # fmt: skip
    lines = [head, *((row.stage, row.label, figure(row.before, row.unit), figure(row.after, row.unit), result_of(row),
                      row.goal or "–") for row in found)]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown: list[str] = []
    for line in lines:
        cells = [cell.rjust(width) if column in (2, 3) else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(line, widths, strict=True))]  # fmt: skip
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def result_of(row: Row) -> str:
    """Whether the goals of a row were reached, in words."""
    if not row.verdicts:
        return "–"
    if row.reached is None:
        return say("recipes.not-judged")
    return say("recipes.reached") if row.reached else say("recipes.missed")
