"""How diverse the made tasks are, as figures and as a page: what was refused and why, how like the tasks are to those
of people, how long, and with which words they open (Wang et al. 2022, arXiv 2212.10560, section 3, figures 3 to 5).

The published sunburst of root verbs and objects needs a parser; opening words, which in English instructions are mostly
the verb, stand in its place.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from amauta.base.messages import language as spoken
from amauta.pages import Speech, template
from amauta.train.self_instruct import plots
from amauta.train.self_instruct.rouge import words
from amauta.train.self_instruct.seeds import Task
from amauta.train.self_instruct.settings import SelfInstruct

TASKS = 30  # that are shown
OPENINGS = 20
REASONS = {
    "empty": "self_instruct.empty", "short": "self_instruct.short", "long": "self_instruct.long",
    "barred": "self_instruct.barred", "start": "self_instruct.start", "cut": "self_instruct.cut",
    "alike": "self_instruct.alike", "unread": "self_instruct.unread", "no-output": "self_instruct.no-output",
    "same": "self_instruct.same", "unfinished": "self_instruct.unfinished", "duplicate": "self_instruct.duplicate",
    "contradiction": "self_instruct.contradiction", "many": "self_instruct.many",
}  # fmt: skip


def diversity(seeds: Sequence[Task], tasks: Sequence[Task]) -> dict[str, float]:
    """Of made tasks: the mean ROUGE-L with the likest seed and with the likest task before, distinct-1 and -2 (the
    share of different words and pairs of words; Li et al. 2016, arXiv 1510.03055) beside those of the seeds, and the
    number of different opening words."""
    found = {
        "to_seeds": sum(task.to_seeds for task in tasks) / len(tasks),
        "likeness": sum(task.likeness for task in tasks) / len(tasks),
        "openings": len(openings(tasks)),
    }
    for n in (1, 2):
        found[f"distinct_{n}"] = distinct([task.instruction for task in tasks], n)
        found[f"distinct_{n}_seeds"] = distinct([task.instruction for task in seeds], n)
    return found


def distinct(texts: Sequence[str], n: int) -> float:
    """Different runs of n words over all such runs; 0 where there is none."""
    runs = [tuple(held[i : i + n]) for held in map(words, texts) for i in range(len(held) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0


def openings(tasks: Sequence[Task]) -> Counter[str]:
    """The first words of instructions."""
    return Counter(words(task.instruction)[0] for task in tasks)


def report(
    settings: SelfInstruct, seeds: Sequence[Task], tasks: Sequence[Task], curve: Sequence[tuple[int, int, int]],
    result: dict[str, Any], language: str | None = None,
) -> str:  # fmt: skip
    """The page in "en" or "es": one file that asks for nothing from outside and needs no script."""
    say = Speech(language or spoken())
    pictures = [
        (say("self_instruct.plot-curve"), plots.curve(curve, say)),
        (say("self_instruct.plot-seeds"), plots.shares([one.to_seeds for one in tasks], settings.similarity, say)),
        (say("self_instruct.plot-openings"), plots.bars(openings(tasks).most_common(OPENINGS), say)),
        (say("self_instruct.plot-lengths"), plots.lengths(_lengths(seeds, tasks, say), say)),
    ]
    return template("amauta.train.self_instruct", "report.html").render(
        language=say.language, words=_words(settings, result, say), facts=_facts(result, say), pictures=pictures,
        refused=_reasons(result["refused"], say), dropped=_reasons(result["instances_dropped"], say),
        tasks=[{"task": one, "likeness": say.number(one.likeness, 2)} for one in tasks[:TASKS]],
        settings=[(name, str(value)) for name, value in vars(settings).items()],
    )  # fmt: skip


def _lengths(seeds: Sequence[Task], tasks: Sequence[Task], say: Speech) -> list[tuple[str, list[int], list[int]]]:
    """Words of instructions, inputs and outputs: (name, of made tasks, of seeds)."""

    def inputs(some: Sequence[Task]) -> list[int]:
        return [len(words(given)) for task in some for given, _ in task.instances if given]

    def outputs(some: Sequence[Task]) -> list[int]:
        return [len(words(output)) for task in some for _, output in task.instances]

    def asked(some: Sequence[Task]) -> list[int]:
        return [len(words(task.instruction)) for task in some]

    return [
        (say("self_instruct.instructions"), asked(tasks), asked(seeds)),
        (say("self_instruct.inputs"), inputs(tasks), inputs(seeds)),
        (say("self_instruct.outputs"), outputs(tasks), outputs(seeds)),
    ]


def _facts(result: dict[str, Any], say: Speech) -> list[tuple[str, str]]:
    number = lambda value: say.number(value, 0)  # noqa: E731
    held = result["diversity"]
    both = {n: [say.share(held[f"distinct_{n}{whose}"]) for whose in ("", "_seeds")] for n in (1, 2)}
    return [
        (say("self_instruct.seeds"), number(result["seeds"])),
        (say("self_instruct.instructions"), number(result["instructions"])),
        (say("self_instruct.of-proposed", count=number(result["proposed"])), say.share(result["acceptance"])),
        (say("self_instruct.classification"), number(result["classification"])),
        (say("self_instruct.instances"), number(result["instances"])),
        (say("self_instruct.without"), number(result["without_instances"])),
        (say("self_instruct.records"), number(result["records"])),
        (say("self_instruct.to-seeds"), say.number(held["to_seeds"], 3)),
        *((say("self_instruct.distinct", n=n), f"{made} ({seeds})") for n, (made, seeds) in both.items()),
    ]


def _reasons(counts: dict[str, int], say: Speech) -> list[tuple[str, str]]:
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return [(say(REASONS[reason]), say.number(count, 0)) for reason, count in ordered]


def _words(settings: SelfInstruct, result: dict[str, Any], say: Speech) -> dict[str, str]:
    return {
        "title": say("self_instruct.title"),
        "of": say("self_instruct.of", model=settings.model, seeds=", ".join(settings.seeds)),
        "refused": say("self_instruct.refused-instructions"), "dropped": say("self_instruct.dropped-instances"),
        "none": say("self_instruct.none"),
        "tasks": say("self_instruct.first-tasks", count=min(TASKS, result["instructions"])),
        "likest": say("self_instruct.likest"), "yes": say("self_instruct.is-classification"),
        "input": say("self_instruct.input"), "output": say("self_instruct.output"),
        "settings": say("self_instruct.settings"), "nothing": say("self_instruct.no-instance"),
    }  # fmt: skip
