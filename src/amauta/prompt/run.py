"""A method over the examples of a task: every result recorded as it comes, a second call goes on where one stopped."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

from amauta.base.errors import ConfigError, RunError
from amauta.base.messages import say
from amauta.base.names import one_of
from amauta.base.seeds import derive
from amauta.config import to_dict
from amauta.grades import mean_interval, wilson
from amauta.metrics import Journal, plain, progress, read
from amauta.prompt import tasks
from amauta.prompt.methods import METHODS
from amauta.prompt.outcome import Outcome
from amauta.prompt.records import task_from
from amauta.prompt.settings import Ask, Prompting
from amauta.prompt.task import Example, Task

FREE = ("examples", "seeds", "out", "tree", "methods")  # settings that change no single answer


def task_of(ask: Ask) -> Task:
    """A task of the package by its name, or that of a file. ConfigError, DataError."""
    file = Path(ask.task).expanduser()
    if file.suffix or file.exists():
        return task_from(file, ask.shown)
    if ask.shown is not None:
        raise ConfigError("prompt.shown-without-file", task=ask.task)
    return tasks.named(ask.task)


def run(
    model: Any, task: Task, settings: Any, *, method: str, out: Path | None = None, tree: Path | None = None
) -> dict[str, Any]:
    """What the examples came to. ``settings``: a ``RunPrompt`` or ``ComparePrompts``.

    ConfigError: an unknown method. RunError: ``out`` holds another run (which settings differ), or other examples.
    """
    if method not in METHODS:
        raise ConfigError("prompt.unknown-method", name=method, hint=one_of(method, METHODS))
    examples = task.examples(settings.examples, settings.seed)
    told = plain({**_settings_of(settings), "method": method, "model": model.name})
    rows = _done(out, told, examples)
    missing = [
        (seed, place) for seed in range(settings.seeds) for place in range(len(examples)) if (seed, place) not in rows
    ]
    journal = None if out is None else Journal(out, from_step=len(rows) if out.exists() else None)
    try:
        if journal is not None and not read(journal.path):
            journal.log(0, run=told)
        with progress(say("prompt.asking"), len(missing)) as bar:
            for seed, place in missing:
                example = examples[place]
                outcome = METHODS[method](model, task, example, _seeded(settings, seed, place))
                rows[seed, place] = row = _row(seed, place, task, example, outcome)
                if journal is not None:
                    journal.log(len(rows), **row)
                if tree is not None:
                    _keep(outcome, tree, len(rows) if settings.seeds * len(examples) > 1 else None)
                bar.advance()
    finally:
        if journal is not None:
            journal.close()
    wanted = [rows[seed, place] for seed in range(settings.seeds) for place in range(len(examples))]
    return {"task": task.name, "method": method, "model": model.name, **summary(wanted, settings.seeds)}


def summary(rows: Sequence[dict[str, Any]], seeds: int) -> dict[str, Any]:
    """Accuracy with its 95 % interval, what it cost, and what went wrong.

    Over one seed the interval is Wilson's over the examples; over several it is Student's over the seeds, and tells how
    demonstrations, order and sampling move the figure for these examples.
    """
    size = len(rows) // seeds
    each = [sum(row["grade"] for row in rows[i : i + size]) / size for i in range(0, len(rows), size)]
    mean, low, high = mean_interval(each, 0.0, 1.0)
    if seeds == 1:
        low, high = wilson(mean * size, size)
    figures: dict[str, Any] = {
        "examples": size, "seeds": seeds, "accuracy": mean, "accuracy_low": low, "accuracy_high": high,
        "accuracy_std": stdev(each) if seeds > 1 else None, "accuracies": each,
    }  # fmt: skip
    for name in ("generated_tokens", "read_tokens", "calls", "seconds"):
        figures[name] = sum(row[name] for row in rows) / len(rows)
    figures["no_answer"] = sum(row["answer"] is None for row in rows) / len(rows)
    for name, fact in (("parse_failures", "parsed"), ("scratch_right", "scratch_right")):
        known = [row[fact] for row in rows if row.get(fact) is not None]
        if known:
            share = sum(known) / len(known)
            figures[name] = 1 - share if fact == "parsed" else share
    figures["cut"] = sum(row.get("finish") == "length" for row in rows) / len(rows)
    figures["repaired"] = sum(bool(row.get("repaired")) for row in rows) / len(rows)
    figures["dropped"] = sum(row.get("dropped", 0) for row in rows)
    return figures


def _settings_of(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in to_dict(settings).items() if name not in FREE}


def _seeded(settings: Prompting, seed: int, place: int) -> Prompting:
    """The settings of one example in one run: demonstrations and order by the run's seed, sampling by both."""
    base = settings.sampling.seed or 0
    drawn = derive(base, "example", seed, place) % 2**31
    return replace(
        settings, demonstration_seed=settings.demonstration_seed + seed, order_seed=settings.order_seed + seed,
        sampling=replace(settings.sampling, seed=drawn),
    )  # fmt: skip


def _row(seed: int, place: int, task: Task, example: Example, outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": seed, "example": place, "question": example.question, "right": example.answer,
        "answer": outcome.answer, "grade": task.grade(example, outcome.answer), "text": outcome.text,
        "generated_tokens": outcome.generated_tokens, "read_tokens": outcome.read_tokens, "calls": outcome.calls,
        "seconds": outcome.seconds, **outcome.facts,
    }  # fmt: skip


def _done(out: Path | None, told: dict[str, Any], examples: Sequence[Example]) -> dict[tuple[int, int], dict[str, Any]]:
    """What a file holds of this run: its rows by seed and example."""
    if out is None or not out.exists():
        return {}
    found: dict[tuple[int, int], dict[str, Any]] = {}
    rows = read(out)
    if rows and "run" not in rows[0]:
        raise RunError("prompt.not-results", file=out)
    if rows and (differing := sorted(_differing(rows[0]["run"], told))):
        raise RunError("prompt.other-run", file=out, names=", ".join(differing))
    for row in rows[1:]:
        place = row["example"]
        if place < len(examples) and row["question"] != examples[place].question:
            raise RunError("prompt.other-examples", file=out, number=place + 1)
        found[row["seed"], place] = row
    return found


def _differing(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The names of the settings in which two nested tables differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            yield from _differing(one.get(name), other.get(name), f"{path}.{name}" if path else name)
    elif one != other:
        yield path


def _keep(outcome: Outcome, path: Path, number: int | None) -> None:
    """Write an outcome's tree, as a page or as JSON by the name's end."""
    if outcome.tree is None:
        return
    if number is not None:
        path = path.with_name(f"{path.stem}-{number}{path.suffix}")
    if path.suffix == ".json":
        outcome.tree.save(path)
        return
    from amauta.decode.tree.page import save_page

    save_page(outcome.tree, path)
