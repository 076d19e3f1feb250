"""report.html: what a run built and what each stage learned, in one file that asks for nothing from outside."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

from amauta.base.errors import RunError
from amauta.base.messages import language, say
from amauta.metrics import read as read_lines
from amauta.pages import markup, template
from amauta.recipes import ledger as ledgers
from amauta.recipes import numbers
from amauta.recipes.charts import Curve, Level, draw, finite
from amauta.recipes.goals import Figures, flat, look_up
from amauta.recipes.learned import Row, missed, result_of, rows, verdicts
from amauta.recipes.ledger import Ledger, Record
from amauta.recipes.recipe import in_language
from amauta.runs import Run, write_atomically

Line = dict[str, Any]

_HELDOUT = "heldout_"
_MAIN = ("loss", "bits_per_byte", "accuracy")  # what is drawn at once; other curves are folded
_COUNTS = ("step", "tokens", "supervised", "flops")  # how much work a step was: no curve tells anything
_SAMPLES = 4  # shown at once; the rest are folded


def write(dir: str | Path) -> Path:
    """Write ``DIR/report.html`` from what stands in the run folder, finished or not, and return its path.

    Raises RunError when no recipe was run in the folder.
    """
    folder = Path(dir)
    ledger = ledgers.load(folder)
    if ledger is None:
        raise RunError("recipes.no-run", dir=folder)
    page = template("amauta.recipes").render(_facts(folder, ledger))
    write_atomically(Run(folder).report, page)
    return Run(folder).report


def _facts(folder: Path, ledger: Ledger) -> dict[str, Any]:
    """All that the page shows."""
    known = ledgers.figures(ledger)
    seconds = sum(record.get("seconds") or 0.0 for record in ledger["stages"])
    misses = missed(ledger)
    whole = all(record["state"] in ("ended", "skipped") for record in ledger["stages"])
    return {
        "language": language(),
        "title": in_language(ledger.get("title") or "") or ledger["recipe"],
        "words": _words(),
        "verdict": say("recipes.report-unfinished") if not whole else _summary(ledger, len(misses)),
        "mood": "open" if not whole else "bad" if misses else "good",
        "built": _built(folder, ledger, seconds),
        "rows": [_row(row) for row in rows(ledger)],
        "stages": [_stage(folder, record, number, seconds, known) for number, record in enumerate(ledger["stages"])],
        "complaints": [miss["goal"] for miss in misses if miss["metric"] is None],
        "commands": next_commands(folder) if Run(folder).model.is_dir() else [],
        "again": ledger.get("again"),
        "whole": whole,
    }


def next_commands(folder: Path) -> list[str]:
    """The commands to go on with after a run that published a model."""
    model = shlex.quote(str(Run(folder).model))
    return [f"amauta chat --model {model}", f'amauta generate --model {model} --prompt "…"']


def _summary(ledger: Ledger, misses: int) -> str:
    goals = sum(verdict.reached is not None for verdict in verdicts(ledger))
    if misses:
        return say("recipes.report-missed", missed=misses, goals=max(goals, misses))
    return say("recipes.report-passed", goals=goals) if goals else say("recipes.report-no-goals")


def _words() -> dict[str, str]:
    """The page's fixed texts."""
    return {
        "after": say("recipes.after"), "before": say("recipes.before"), "built": say("recipes.report-built"),
        "command": say("recipes.report-command"), "curves": say("recipes.report-more-curves"),
        "figure": say("recipes.figure"), "figures": say("recipes.report-figures"), "goal": say("recipes.goal"),
        "goes_on": say("recipes.report-go-on"), "learned": say("recipes.report-learned"),
        "more_samples": say("recipes.report-more-samples"), "next": say("recipes.report-next"),
        "prompt": say("recipes.report-prompt"), "result": say("recipes.result"),
        "samples": say("recipes.report-samples"), "settings": say("recipes.report-settings"),
        "stage": say("recipes.stage"), "stages": say("recipes.report-stages"), "state": say("recipes.report-state"),
        "time": say("recipes.time"), "nothing": say("recipes.report-nothing-learned"),
        "again": say("recipes.report-again"),
    }  # fmt: skip


def _built(folder: Path, ledger: Ledger, seconds: float) -> list[tuple[str, str]]:
    """What was built: the model and its size, the time, the last day of work."""
    facts: list[tuple[str, str]] = [(say("recipes.report-recipe"), ledger["recipe"])]
    model = Run(folder).model
    if model.is_dir():
        facts.append((say("recipes.report-model"), str(model)))
        weights = list(model.glob("*.safetensors"))
        count = sum(_parameters(path) for path in weights)
        if count:
            facts.append((say("recipes.report-parameters"), numbers.grouped(count, 0)))
        size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
        facts.append((say("recipes.report-size"), numbers.size(size)))
    facts.append((say("recipes.report-total"), numbers.duration(seconds)))
    ends = [record["ended"] for record in ledger["stages"] if record.get("ended")]
    if ends:
        facts.append((say("recipes.report-date"), max(ends)[:16].replace("T", " ")))
    return facts


def _parameters(path: Path) -> int:
    """The number of parameters in a safetensors file, read from its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _row(row: Row) -> dict[str, str]:
    return {
        "stage": row.stage, "label": row.label, "before": numbers.figure(row.before, row.unit),
        "after": numbers.figure(row.after, row.unit), "goal": row.goal or "–", "result": result_of(row),
        "mood": {None: "open", True: "good", False: "bad"}[row.reached],
    }  # fmt: skip


def _stage(folder: Path, record: Record, number: int, seconds: float, known: Figures) -> dict[str, Any]:
    """One stage's part of the page."""
    runs = [Run(folder / name) for name in record.get("folders", [])]
    lines = [line for run in runs if run.metrics.is_file() for line in read_lines(run.metrics)]
    samples = _samples([line for run in runs if run.samples.is_file() for line in read_lines(run.samples)])
    main, more = _charts(lines, record, number, known)
    spent = record.get("seconds") or 0.0
    return {
        "name": record["name"],
        "chapter": in_language(record.get("chapter") or ""),
        "state": _state(record),
        "time": numbers.duration(spent) if spent else "–",
        "share": 100 * spent / seconds if seconds else 0.0,
        "line": shlex.join(["amauta", *record["line"]]) if record.get("line") else "",
        "flags": [(name, _value(value)) for name, value in record.get("flags", {}).items()],
        "metrics": [(name, _value(value)) for name, value in flat(record.get("metrics") or {}).items()],
        "configs": [run.config.read_text(encoding="utf-8") for run in runs if run.config.is_file()],
        "charts": main,
        "more_charts": more,
        "samples": samples[:_SAMPLES],
        "more_samples": samples[_SAMPLES:],
    }


def _state(record: Record) -> str:
    if record["state"] == "skipped":
        return say("recipes.state-skipped", input=record.get("lacking"))
    return {"ended": say("recipes.state-ended"), "begun": say("recipes.state-begun"),
            "waiting": say("recipes.state-waiting")}[record["state"]]  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return numbers.truth(value)
    if isinstance(value, (int, float)):
        return numbers.short(value)
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return "–" if value is None else str(value)


def _charts(lines: list[Line], record: Record, number: int, known: Figures) -> tuple[list[Any], list[Any]]:
    """The main charts and the others; a figure and its held-out sister share one."""

    keys = [key for line in lines for key, value in line.items() if key not in _COUNTS and _drawable(value)]
    names = dict.fromkeys(key.removeprefix(_HELDOUT) for key in keys)
    main: list[Any] = []
    more: list[Any] = []
    for name in sorted(names, key=lambda name: (_MAIN.index(name) if name in _MAIN else len(_MAIN), name)):
        own = say("recipes.training") if name == "loss" or _HELDOUT + name in keys else say("recipes.this-model")
        curves = [curve for curve in (_curve(lines, name, own),
                                      _curve(lines, _HELDOUT + name, say("recipes.held-out"))) if curve]  # fmt: skip
        if not any(name in _MAIN or min(curve.values) < max(curve.values) for curve in curves):
            continue  # what never changes tells nothing as a curve; its value stands among the figures
        place = f"c{number}-{len(main) + len(more)}"
        svg = draw(place, _axis(name), say("recipes.axis-step"), curves, _levels(name, record, known))
        chart = {"title": _axis(name), "svg": markup(svg)}  # our own picture; matplotlib escapes its texts
        (main if name in _MAIN else more).append(chart)
    return main, more


def _drawable(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _curve(lines: list[Line], key: str, label: str) -> Curve | None:
    there = [line for line in lines if line.get(key) is not None and "step" in line]
    steps, values = finite([line["step"] for line in there], [line[key] for line in there])
    return Curve(label, steps, values) if len(values) > 1 else None


def _levels(name: str, record: Record, known: Figures) -> list[Level]:
    """The floor, and the figures of other stages that this figure is compared with."""
    levels: list[Level] = []
    floor = record.get("floor")
    if floor and name == "bits_per_byte":
        value = look_up(known, floor)
        if value is not None:
            levels.append(Level(say("recipes.floor", value=numbers.figure(value, "bits/byte")), value, bound=True))
    for show in record["shows"]:
        other = show.get("before") or ""
        value = look_up(known, other) if show["metric"].endswith(name) and other != floor else None
        if value is not None and other.partition(".")[0] != record["name"]:
            levels.append(Level(f"{other.partition('.')[0]} {numbers.figure(value, show['unit'])}", value))
    return levels


def _axis(name: str) -> str:
    """The name of a logged figure with its unit."""
    known = {
        "loss": say("recipes.axis-loss"), "bits_per_byte": say("recipes.axis-bits"), "lr": say("recipes.axis-lr"),
        "grad_norm": say("recipes.axis-gradient"), "tokens_per_second": say("recipes.axis-speed"),
        "accuracy": say("recipes.axis-accuracy"), "flops_per_second": say("recipes.axis-flops"),
        "lr_factor": say("recipes.axis-lr-factor"), "perplexity": say("recipes.axis-perplexity"),
        "excess": say("recipes.axis-excess"), "share_of_peak": say("recipes.axis-peak"),
        "margin": say("recipes.axis-margin"), "chosen_reward": say("recipes.axis-chosen-reward"),
        "rejected_reward": say("recipes.axis-rejected-reward"), "chosen_logprob": say("recipes.axis-chosen-logprob"),
        "rejected_logprob": say("recipes.axis-rejected-logprob"),
    }  # fmt: skip
    return known.get(name, name)


def _samples(lines: list[Line]) -> list[dict[str, Any]]:
    """Each prompt with what the model wrote first and last."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        if isinstance(line.get("prompt"), str) and "text" in line:
            found.setdefault(line["prompt"], []).append(line)
    pairs: list[dict[str, Any]] = []
    for prompt, versions in found.items():
        first, last = versions[0], versions[-1]
        shown = [first] if first is last else [first, last]
        names = (say("recipes.before"), say("recipes.after"))
        pairs.append({"prompt": prompt, "texts": [
            (say("recipes.at-step", when=when, step=numbers.short(line.get("step") or 0)), str(line["text"]))
            for when, line in zip(names, shown, strict=False)]})  # fmt: skip
    return pairs
