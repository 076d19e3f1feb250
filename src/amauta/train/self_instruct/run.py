"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560, section 2): a model invents instructions like those that people
wrote, says which of them are classification, and makes instances of each; what is not new or not sound is left out.

It differs from the published run in its demonstrations (``wording.py``), in the few rules named in ``parse.py``, and in
that instances are drawn greedily without penalties.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from amauta.base.errors import Interrupted, ModelError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.metrics import console, plain, progress
from amauta.runs import Run, write_atomically
from amauta.train.self_instruct import parse
from amauta.train.self_instruct.asked import Asked
from amauta.train.self_instruct.report import diversity, report
from amauta.train.self_instruct.rouge import Pool
from amauta.train.self_instruct.seeds import Task, read_seeds
from amauta.train.self_instruct.settings import SelfInstruct
from amauta.train.self_instruct.wording import for_instances, for_instructions, for_judgement, wording
from amauta.train.self_instruct.writers import Draw, Writer, Written
from amauta.train.start import open_run

SEEDS = 2**31  # servers take no larger ones
JUDGED = 8  # tokens of a yes or a no


@dataclass
class Tally:
    """What became of what was written; ``curve``: (requests, proposed, accepted) after each batch of requests."""

    requests: Counter[str] = field(default_factory=Counter)
    proposed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unclear: int = 0
    instances: Counter[str] = field(default_factory=Counter)
    curve: list[tuple[int, int, int]] = field(default_factory=list)


def self_instruct(settings: SelfInstruct, write: Writer, *, chat: bool) -> dict[str, Any]:
    """Make tasks and leave them in ``out``: records.jsonl (Alpaca records, for ``amauta sft``), tasks.jsonl and
    report.html; returns the counts.

    Raises DataError for seeds, RunError for a folder that holds another run, ModelError where nothing new came, and
    Interrupted.
    """
    run, finished = open_run(settings, settings, settings.out)  # type: ignore[arg-type]  # only resume is read of a loop
    if finished is not None:
        return finished
    seeds, skipped = read_seeds(settings.seeds, least=settings.human + settings.machine, may_skip=settings.may_skip)
    tally = Tally()
    with Asked(run, write) as asked:
        try:
            tasks = invent(seeds, settings, asked, tally, chat=chat)
            judge(tasks, settings, asked, tally)
            fill(tasks, settings, asked, tally)
        except KeyboardInterrupt:
            raise Interrupted("self_instruct.interrupted", folder=settings.out, step=asked.step) from None
    return _conclude(run, settings, seeds, tasks, tally, skipped)


def invent(seeds: Sequence[Task], settings: SelfInstruct, asked: Asked, tally: Tally, *, chat: bool) -> list[Task]:
    """New instructions, each unlike every one before it, until there are ``count`` or ``patience`` is at its end."""
    say_it, pool, made = wording(settings.language), Pool(task.instruction for task in seeds), list[Task]()
    fruitless = 0
    draw = Draw(settings.instruction_tokens, settings.temperature, settings.top_p, settings.presence_penalty)

    def take(answers: Sequence[Written]) -> dict[str, Any]:
        nonlocal fruitless
        before, proposed = len(made), tally.proposed
        for answer in answers:
            held = len(made)
            _consider(answer, seeds, settings, pool, made, tally)
            fruitless = 0 if len(made) > held else fruitless + 1
        tally.requests["instructions"] += len(answers)
        tally.curve.append((tally.requests["instructions"], tally.proposed, len(made)))
        bar.advance(len(made) - before, requests=tally.requests["instructions"])
        return {"proposed": tally.proposed - proposed, "accepted": len(made) - before}

    with progress(say("self_instruct.inventing"), settings.count) as bar:
        while len(made) < settings.count and fruitless < settings.patience:
            seed = derive(settings.seed, "instructions", asked.step)
            generator = np.random.default_rng(seed)
            requests = [for_instructions(_shown(seeds, made, settings, generator), say_it, chat=chat)
                        for _ in range(settings.batch)]  # fmt: skip
            asked("instructions", requests, _seeded(draw, seed), take)
    if len(made) < settings.count:
        console.print(say("self_instruct.patience", made=len(made), count=settings.count, patience=settings.patience,
                          reasons=_reasons(tally.refused)), markup=False, soft_wrap=True)  # fmt: skip
    if not made:
        raise ModelError("self_instruct.nothing-new", requests=tally.requests["instructions"],
                         proposed=tally.proposed, reasons=_reasons(tally.refused))  # fmt: skip
    return made


def _shown(seeds: Sequence[Task], made: Sequence[Task], settings: SelfInstruct, generator: np.random.Generator
           ) -> list[str]:  # fmt: skip
    """The instructions of one request, in a random order: seeds stand in for those that are not made yet."""
    own = min(settings.machine, len(made))
    people = settings.human + settings.machine - own
    shown = [seeds[i].instruction for i in generator.choice(len(seeds), people, replace=False)]
    shown += [made[i].instruction for i in generator.choice(len(made), own, replace=False)] if own else []
    return [shown[i] for i in generator.permutation(len(shown))]


def _consider(
    answer: Written, seeds: Sequence[Task], settings: SelfInstruct, pool: Pool, made: list[Task], tally: Tally
) -> None:
    """Take what is new of one answer; what is said of a cut answer's last instruction is not known, so it goes."""
    say_it = wording(settings.language)
    parts = parse.instructions(answer.text, say_it)
    for number, part in enumerate(parts, start=1):
        if len(made) == settings.count:
            return
        tally.proposed += 1
        reason = parse.refusal(part, say_it, settings.least_words, settings.most_words)
        reason = "cut" if reason is None and number == len(parts) and not answer.whole else reason
        likeness = pool.likeness(part) if reason is None else np.zeros(1)
        if reason is None and likeness.max() >= settings.similarity:
            reason = "alike"
        if reason is not None:
            tally.refused[reason] += 1
            continue
        nearest = pool.texts[int(likeness.argmax())]
        made.append(Task(part, likeness=float(likeness.max()), to_seeds=float(likeness[: len(seeds)].max()),
                         nearest=nearest))  # fmt: skip
        pool.add(part)


def judge(tasks: Sequence[Task], settings: SelfInstruct, asked: Asked, tally: Tally) -> None:
    """Ask of each task whether it is classification; an answer that is neither yes nor no counts as no."""
    say_it = wording(settings.language)
    with progress(say("self_instruct.judging"), len(tasks)) as bar:
        for part in _batches(tasks, settings.batch):

            def take(answers: Sequence[Written], part: Sequence[Task] = part) -> dict[str, Any]:
                found = [parse.is_classification(answer.text, say_it) for answer in answers]
                for task, one in zip(part, found, strict=True):
                    task.classification = bool(one)
                tally.unclear += found.count(None)
                tally.requests["classification"] += len(part)
                bar.advance(len(part))
                return {"yes": found.count(True), "unclear": found.count(None)}

            requests = [for_judgement(task.instruction, say_it) for task in part]
            asked("classification", requests, Draw(JUDGED), take)


def fill(tasks: Sequence[Task], settings: SelfInstruct, asked: Asked, tally: Tally) -> None:
    """Ask for instances of each task: a label first where it is classification, else an input first."""
    say_it, most = wording(settings.language), settings.instances
    with progress(say("self_instruct.filling"), len(tasks)) as bar:
        for part in _batches(tasks, settings.batch):

            def take(answers: Sequence[Written], part: Sequence[Task] = part) -> dict[str, Any]:
                for task, answer in zip(part, answers, strict=True):
                    begun = f"{say_it.label}:" if task.classification else ""
                    found = parse.instances(begun + answer.text, say_it, classification=bool(task.classification),
                                            whole=answer.whole, most=most)  # fmt: skip
                    task.instances = found.instances
                    tally.instances.update(found.dropped)
                tally.requests["instances"] += len(part)
                bar.advance(len(part))
                return {"instances": sum(len(task.instances) for task in part)}

            requests = [for_instances(task.instruction, say_it, classification=bool(task.classification), most=most)
                        for task in part]  # fmt: skip
            asked("instances", requests, Draw(settings.instance_tokens), take)


def _conclude(
    run: Run, settings: SelfInstruct, seeds: Sequence[Task], tasks: Sequence[Task], tally: Tally, skipped: int
) -> dict[str, Any]:
    """Write the records, the tasks, the report and, last, the result, which is the mark of a finished run."""
    sound = [task for task in tasks if task.instances]
    sources = [*((task, "seed") for task in seeds if settings.with_seeds), *((task, "model") for task in sound)]
    records = [
        {"instruction": task.instruction, "input": given, "output": output, "source": source}
        for task, source in sources for given, output in task.instances
    ]  # fmt: skip
    made = sum(len(task.instances) for task in sound)
    result: dict[str, Any] = {
        "data": str(run.records), "records": len(records), "instructions": len(tasks), "instances": made,
        "seeds": len(seeds), "seeds_skipped": skipped, "classification": sum(bool(one.classification) for one in tasks),
        "without_instances": len(tasks) - len(sound), "requests": dict(tally.requests), "proposed": tally.proposed,
        "acceptance": len(tasks) / tally.proposed, "refused": dict(sorted(tally.refused.items())),
        "unclear": tally.unclear, "instances_dropped": dict(sorted(tally.instances.items())),
        "diversity": diversity(seeds, tasks), "report": str(run.report),
    }  # fmt: skip
    write_atomically(run.records, _lines(records))
    write_atomically(run.tasks, _lines([asdict(task) for task in tasks]))
    write_atomically(run.report, report(settings, seeds, tasks, tally.curve, result))
    write_atomically(run.result, json.dumps(plain(result), indent=1) + "\n")
    return result


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    return (tasks[start : start + size] for start in range(0, len(tasks), size))


def _seeded(draw: Draw, seed: int) -> Draw:
    return Draw(**{**asdict(draw), "seed": seed % SEEDS})


def _reasons(refused: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in refused.most_common()) or "–"


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows)
