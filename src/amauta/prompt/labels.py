"""A label as the answer: its probability, calibrated or not, and the experiment on what the labels of demonstrations
are good for (Min et al. 2022, arXiv 2202.12837).

Direct: the label y with the highest p(y | text). Channel: the y with the highest p(text | y), each demonstration turned
round as well (Min et al. 2022, arXiv 2108.04106). Prompts are plain text; the log-prob of a label is the sum over its
tokens.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.grades import mean_interval, wilson
from amauta.metrics import progress
from amauta.prompt.budget import fit
from amauta.prompt.conditions import CHANGES, WORDS, Change, other_words, partly_correct
from amauta.prompt.demonstrations import choose
from amauta.prompt.scoring import Row, logprobs, row_of
from amauta.prompt.settings import Inference, LabelExperiment
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Prompt, Shot, compose, read_template
from amauta.runs import write_atomically


def label_rows(model: Any, prompt: Prompt, labels: Sequence[str], inference: Inference) -> tuple[list[Row], int]:
    """What is scored for each label of a prompt's question, and the demonstrations that were dropped to make it fit."""
    if inference == "channel":
        turned = tuple(Shot(shot.answer, shot.question) for shot in prompt.shown)
        layout = replace(prompt.template, opening="", separator="\n")
        asked = [Prompt(layout, prompt.head, turned, Shot(label)) for label in labels]
        answers = [prompt.asked.question] * len(labels)
    else:
        asked, answers = [prompt] * len(labels), [prompt.template.lead + label for label in labels]
    room = max(len(model.tokenizer.encode(answer)) for answer in answers) + 1
    # the same demonstrations before every label, or their scores would not be comparable
    dropped = max(fit(model, one, room, chat=False).dropped for one in (asked if inference == "channel" else asked[:1]))
    kept = [replace(one, shown=one.shown[dropped:]) for one in asked]
    return [row_of(model, one.text(), answer) for one, answer in zip(kept, answers, strict=True)], dropped


def shares(scores: Sequence[float]) -> list[float]:
    """Probabilities over the labels alone, from their log-probs."""
    highest = max(scores)
    mass = [math.exp(score - highest) for score in scores]
    return [one / math.fsum(mass) for one in mass]


def calibrated(probabilities: Sequence[float], content_free: Sequence[Sequence[float]]) -> list[float]:
    """Contextual calibration (Zhao et al. 2021, arXiv 2102.09690, section 5): each label's probability divided by its
    mean probability after inputs without content, then normalised."""
    means = [math.fsum(one) / len(content_free) for one in zip(*content_free, strict=True)]
    odds = [p / max(mean, 1e-300) for p, mean in zip(probabilities, means, strict=True)]
    return [one / math.fsum(odds) for one in odds]


def macro_f1(right: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> float:
    """The mean over labels of each one's F1; 0 for a label that is neither right nor given anywhere."""
    found: list[float] = []
    for label in labels:
        hits = sum(a == b == label for a, b in zip(right, given, strict=True))
        total = sum(one == label for one in right) + sum(one == label for one in given)
        found.append(2 * hits / total if total else 0.0)
    return math.fsum(found) / len(found)


@dataclass(frozen=True)
class Draw:
    """One condition under one seed: what was answered, what the labels were called, and the prompts' cost."""

    answers: list[str]
    labels: list[str]
    dropped: int
    rows: list[dict[str, Any]]


def experiment(model: Any, task: Task, settings: LabelExperiment) -> dict[str, Any]:
    """Accuracy and macro-F1 under each condition, with 95 % intervals over the seeds.

    The interval tells how the draw of demonstrations moves the figure, for these examples. ConfigError: a task without
    labels, too few demonstrations, or calibration of the channel, whose scores are no probabilities of labels.
    """
    labels = list(task.labels or ())
    if not labels:
        raise ConfigError("prompt.no-labels", task=task.name)
    if settings.calibrate and settings.inference == "channel":
        raise ConfigError("prompt.calibrated-channel")
    examples = task.examples(settings.examples, settings.seed)
    changes: dict[str, Change] = {name: CHANGES[name] for name in dict.fromkeys(settings.conditions)}
    changes |= {f"{percent}-correct": partly_correct(_percent(percent)) for percent in settings.correct}
    if "random-words" in changes and len(labels) > len(WORDS):
        raise ConfigError("prompt.too-many-labels", task=task.name, count=len(labels), allowed=len(WORDS))
    plan = [(name, seed) for name in changes for seed in range(1 if name == "none" else settings.seeds)]
    draws: dict[str, list[Draw]] = {name: [] for name in changes}
    with progress(say("prompt.asking"), len(plan) * len(examples)) as bar:
        for name, seed in plan:
            draws[name].append(_draw(model, task, examples, settings, name, changes[name], seed))
            bar.advance(len(examples))
    right = [example.answer for example in examples]
    figures = {name: _figures(found, right, labels) for name, found in draws.items()}
    if settings.out is not None:
        told = [row for found in draws.values() for draw in found for row in draw.rows]
        write_atomically(settings.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told))
    return {
        "task": task.name, "model": model.name, "inference": settings.inference, "shots": settings.shots,
        "seeds": settings.seeds, "examples": len(examples), "calibrated": settings.calibrate, "labels": labels,
        "conditions": figures, **_differences(draws, right, settings.seeds), "caveat": say("prompt.labels-caveat"),
    }  # fmt: skip


def _percent(value: int) -> int:
    if not 0 <= value <= 100:
        raise ConfigError("prompt.bad-percent", value=value)
    return value


def _draw(
    model: Any, task: Task, examples: Sequence[Example], settings: LabelExperiment, name: str, change: Change, seed: int
) -> Draw:
    """All examples after one draw of demonstrations; the set, its order and the false labels have this seed."""
    source = random.Random(derive(seed, "labels", name))
    labels = list(task.labels or ())
    words = other_words(labels, source) if name == "random-words" else labels
    template = task.template if settings.template is None else read_template(settings.template)
    shown = choose(task, settings.shots, demonstration_seed=seed, order_seed=seed).examples
    changed: list[Shot] = []
    rows: list[Row] = []
    dropped = 0
    free = [Example(text, "") for text in settings.content_free] if settings.calibrate else []
    for place, example in enumerate([*free, *examples]):
        prompt = compose(template, example, shown, instruction=task.instruction)
        if not place:
            changed = change(prompt.shown, words, source)
        made, gone = label_rows(model, replace(prompt, shown=tuple(changed)), words, settings.inference)
        rows += made
        dropped += gone
    scores = logprobs(model, rows)
    each = [scores[i : i + len(words)] for i in range(0, len(scores), len(words))]
    odds = [shares(one) for one in each]
    empty, asked = odds[: len(free)], odds[len(free) :]
    if empty:
        asked = [calibrated(one, empty) for one in asked]
    chosen = [labels[max(range(len(labels)), key=lambda i: (one[i], -i))] for one in asked]
    told = [
        {"condition": name, "seed": seed, "question": example.question, "right": example.answer, "answer": answer,
         "probabilities": dict(zip(words, one, strict=True)),
         "logprobs": dict(zip(words, each[len(free) + i], strict=True))}
        for i, (example, answer, one) in enumerate(zip(examples, chosen, asked, strict=True))
    ]  # fmt: skip
    return Draw(chosen, words, dropped, told)


def _figures(draws: Sequence[Draw], right: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy and macro-F1 of one condition: mean and interval over its draws; of one draw only Wilson's interval of
    the accuracy over examples."""
    accuracies = [_accuracy(draw, right) for draw in draws]
    scores = [macro_f1(right, draw.answers, labels) for draw in draws]
    found: dict[str, Any] = {"draws": len(draws), "dropped": sum(draw.dropped for draw in draws)}
    for name, values in (("accuracy", accuracies), ("macro_f1", scores)):
        mean, low, high = mean_interval(values, 0.0, 1.0)
        if len(values) == 1:
            low, high = wilson(mean * len(right), len(right)) if name == "accuracy" else (None, None)
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        found[f"{name}_std"] = stdev(values) if len(values) > 1 else None
    return {**found, "accuracies": accuracies, "macro_f1s": scores}


def _accuracy(draw: Draw, right: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(draw.answers, right, strict=True)) / len(right)


def _differences(draws: dict[str, list[Draw]], right: Sequence[str], seeds: int) -> dict[str, Any]:
    """Gold less random, draw by draw: the same demonstrations in the same order, only their labels differ."""
    if not {"gold", "random"} <= draws.keys():
        return {}
    pairs = zip(draws["gold"], draws["random"], strict=True)
    mean, low, high = mean_interval([_accuracy(one, right) - _accuracy(other, right) for one, other in pairs])
    interval = {"low": low, "high": high} if seeds > 1 else {"low": None, "high": None}
    return {"gold_minus_random": {"accuracy": mean, **interval}}
