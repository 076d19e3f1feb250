"""Distillation, whole: from a teacher, a student and texts to a small model that says what the large one does."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amauta import config
from amauta.base.errors import ConfigError, ModelError
from amauta.data.batches import Batch
from amauta.data.read import read
from amauta.device import Device
from amauta.hub import Found, find_model
from amauta.models import count
from amauta.models.exchange.opening import generation_of, needed_tokenizer, read_weights, spec_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer
from amauta.train.adapted import unadapted
from amauta.train.distill.contract import kept_row
from amauta.train.distill.figures import Figures, beside_teacher, by_step
from amauta.train.distill.kept import keep
from amauta.train.distill.material import Texts, held_out, of_files, texts_of
from amauta.train.distill.openings import openings
from amauta.train.distill.policy import StudentWrites
from amauta.train.distill.sequences import key_of, written
from amauta.train.distill.settings import ENCODERS, Distill
from amauta.train.distill.steps import asked, distilbert_step, layer_of, logit_step, minilm_step
from amauta.train.distill.student import Learner, learner
from amauta.train.loop import Step, Stream, Work, train
from amauta.train.manners import check_able
from amauta.train.objectives import objective_step
from amauta.train.preflight import check_model
from amauta.train.settings import Loop
from amauta.train.start import LONGEST_ROW, conclude, open_run, prepare, stream_and_steps


def distill(settings: Distill) -> dict[str, Any]:
    """Train a student by its teacher and leave it in ``out/model``; returns the run's figures.

    With ``heldout``: ``heldout_kl`` from the teacher to the student (nats a target), ``heldout_agreement``, and the
    losses of both. ``kl`` and its like are those of the contract: the teacher against the student, on probes. Raises
    ConfigError, DataError, ModelError, RunError, Interrupted.
    """
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    both = begin(settings)
    made = taught(settings, run, both)
    work = Work(
        model=both.student,
        step=made.step,
        stream=made.stream,
        steps=made.steps,
        device=both.device,
        flops_per_token=_flops(settings, both),
        splits=both.student.packed_rows(),
        describe=made.describe,
        evaluate=made.evaluate,
        masks=both.learner.masks(),
    )
    result = {**train(run, work, both.loop, settings.optim), **made.counts, "how": settings.lesson.how}
    result |= {"parameters": count.parameters(both.student.spec), "teacher": settings.model,
               "teacher_parameters": count.parameters(both.teacher.spec)}  # fmt: skip
    if isinstance(made.stream, StudentWrites):
        result["written_tokens"] = made.stream.written
    student = both.student.eval()
    same = both.learner.tokenizer.fingerprint == both.tokenizer.fingerprint
    told = config.to_dict(settings)
    row = kept_row(both.found, both.teacher, student, both.tokenizer, told) if same else None
    if row is not None:
        result |= {name: row[name] for name in ("kl", "largest_difference", "top1_agreement", "perplexity_ratio")}
    generation = generation_of(both.found) if both.learner.parent is None and same else None
    return conclude(
        run, settings, student, both.learner.tokenizer, result, parent=both.learner.parent, files=made.files,
        generation=generation, contract=() if row is None else (row,),
    )  # fmt: skip


@dataclass(frozen=True)
class Both:
    """A teacher and its student, ready, and how long a row of tokens is for both."""

    found: Found
    teacher: Transformer
    tokenizer: AnyTokenizer  # the teacher's
    learner: Learner
    length: int
    device: Device
    loop: Loop

    @property
    def student(self) -> Transformer:
        return self.learner.model


def begin(settings: Distill) -> Both:
    """Open the teacher, make or open the student. Raises ModelError and ConfigError for two that do not fit each other
    or the lesson."""
    lesson = settings.lesson
    check(settings)
    device, loop = prepare(settings.loop)
    if lesson.how == "minilm":  # its queries, keys and values are read beside the model's own result
        loop = replace(loop, compile=False)
    found = find_model(settings.model)
    check_teacher(settings, spec_of(found))
    tokenizer = needed_tokenizer(found, chat=bool(settings.data))
    teacher = unadapted(read_weights(found, tokenizer, device=device.device), settings.model)
    prefix = settings.objective.objective == "prefix" and settings.objective.see_prefix
    teacher.spec = replace(teacher.spec, prefix_lm=prefix and teacher.spec.kind == "decoder")
    teacher.requires_grad_(False).eval()
    got = learner(settings, teacher, tokenizer)
    got.model.to(device.device).requires_grad_(True)
    got.model.spec = replace(got.model.spec, prefix_lm=teacher.spec.prefix_lm)
    check_teacher(settings, got.model.spec)
    limits = [one for one in (teacher.spec.limit, got.model.spec.limit) if one is not None]
    length = settings.length or min([*limits, LONGEST_ROW])
    for model in (teacher, got.model):
        check_model(model, length, model.spec.limit or length)
    return Both(found, teacher, tokenizer, got, length, device, loop)


def check(settings: Distill) -> None:
    """ConfigError for settings that do not go together."""
    lesson, causal = settings.lesson, settings.objective.objective == "causal"
    if lesson.how in ("sequences", "on-policy") and not causal:
        raise ConfigError("distill.writers-are-causal", how=lesson.how, objective=settings.objective.objective)
    if lesson.how in ENCODERS and settings.objective.objective != "masked":
        raise ConfigError("distill.encoders-are-masked", how=lesson.how, objective=settings.objective.objective)
    if lesson.best and not (lesson.how == "logits" and causal):
        raise ConfigError("distill.best-of-fixed", how=lesson.how, objective=settings.objective.objective)
    if not settings.text and not settings.data:
        raise ConfigError("distill.no-texts")
    if settings.text and settings.data:
        raise ConfigError("distill.both-texts")


def check_teacher(settings: Distill, spec: Spec) -> None:
    """ModelError for a model that has not what the lesson asks of teacher and student."""
    if spec.reformer is not None:
        raise ModelError("train.not-by-this", name=settings.model, what="reformer")
    if settings.lesson.how == "minilm":
        if spec.kind != "encoder":
            raise ModelError("distill.minilm-of-encoders", model=settings.model, kind=spec.kind)
        return
    check_able(settings.objective, spec, settings.model)


@dataclass(frozen=True)
class Taught:
    """What the loop needs: batches, a step, and what is told of them."""

    stream: Stream
    steps: int
    step: Step
    name: Callable[[int], str]  # of a unit
    evaluate: Figures | None
    counts: dict[str, Any]
    files: Sequence[Path]

    def describe(self, batch: Batch) -> str:
        """The records of a batch, for an error."""
        found = list(dict.fromkeys(self.name(unit) for row in batch.units for unit in row))
        return ", ".join(found[:20]) + (" …" if len(found) > 20 else "")


def taught(settings: Distill, run: Run, both: Both) -> Taught:
    """The lesson, laid out. Raises DataError and ConfigError for texts that cannot serve."""
    lesson, loop, device, length = settings.lesson, both.loop, both.device, both.length
    tokenizer, teacher, student = both.learner.tokenizer, both.teacher, both.student
    if lesson.how == "on-policy":
        return _on_policy(settings, run, both)
    files = read(settings.data or settings.text).files
    if lesson.how == "sequences":
        given, counts = openings(settings, both.tokenizer, min(length, teacher.spec.limit or length))
        parts = written(run, settings, both.found, teacher, both.tokenizer, given)
        texts = of_files(parts, settings, student, tokenizer, length)
        texts = replace(texts, counts={**texts.counts, **counts})
        step = objective_step(device, compiled=loop.compile)
    else:
        texts = texts_of(settings, run, student, tokenizer, length)
        called = teacher.compiled() if loop.compile else teacher
        step = _step(settings, run, both, texts, called)
    stream, steps = stream_and_steps(texts.units, loop, length, texts.collate)
    return Taught(stream, steps, step, texts.name, _evaluation(settings, both, step), texts.counts, files)


def _step(settings: Distill, run: Run, both: Both, texts: Texts, called: Any) -> Step:
    lesson, device, loop = settings.lesson, both.device, both.loop
    if lesson.how == "minilm":
        return minilm_step(lesson, both.teacher, both.student, heads_of(settings, both))
    if lesson.how == "distilbert":
        if both.teacher.spec.width != both.student.spec.width:
            raise ModelError("distill.other-width", ours=both.student.spec.width, theirs=both.teacher.spec.width)
        return distilbert_step(lesson, both.teacher, called, device)
    teacher = asked(both.teacher, called, lesson, device)
    if lesson.best:
        stream, _ = stream_and_steps(texts.units, loop, both.length, texts.collate)
        key = f"{key_of(settings, both.found)}-{stream.fingerprint[:8]}-{lesson.best}-{lesson.softness:g}"
        teacher = keep(run.taught(key), teacher, stream, lesson.best, both.student.spec.vocabulary, device.device)
    return logit_step(lesson, teacher, device, compiled=loop.compile)


def heads_of(settings: Distill, both: Both) -> int:
    """The heads of MiniLM's relations. ConfigError where they do not divide what is compared, or where the teacher has
    no such layer; it says what can be."""
    lesson, specs = settings.lesson, (both.teacher.spec, both.student.spec)
    layers = specs[0].layers
    if not 1 <= layer_of(lesson, both.teacher) <= layers:
        raise ConfigError("distill.no-such-layer", layer=lesson.teacher_layer, layers=layers)
    heads = lesson.relation_heads or specs[0].heads
    widths = [number * spec.head for spec in specs for number in (spec.heads, spec.groups)]
    grouped = any(spec.groups != spec.heads for spec in specs) and "attention" in lesson.relations
    if grouped or any(width % heads for width in widths):
        shared = math.gcd(*widths)
        able = ", ".join(str(one) for one in range(1, shared + 1) if shared % one == 0)
        raise ConfigError("distill.relation-heads", heads=heads, widths=", ".join(map(str, widths)), able=able)
    return heads


def _on_policy(settings: Distill, run: Run, both: Both) -> Taught:
    lesson, loop, tokenizer = settings.lesson, both.loop, both.learner.tokenizer
    given, counts = openings(settings, tokenizer, both.length)
    texts = texts_of(settings, run, both.student, tokenizer, both.length) if settings.writing.share < 1 else None
    offline = None if texts is None else stream_and_steps(texts.units, loop, both.length, texts.collate)[0]
    longest = max(len(one.ids) for one in given) + settings.writing.max_tokens
    length = both.length if offline is not None else min(both.length, longest)
    stream = StudentWrites(
        settings, both.student, tokenizer, given, rows=loop.rows, length=length, given=offline,
        named=None if texts is None else texts.name,
    )  # fmt: skip
    called = both.teacher.compiled() if loop.compile else both.teacher
    step = logit_step(replace(lesson, hard=0.0), asked(both.teacher, called, lesson, both.device), both.device)
    steps = loop.steps or max(1, math.ceil(loop.epochs * len(given) / (loop.rows * loop.accumulate)))
    files = read(settings.data or settings.text).files
    return Taught(stream, steps, step, stream.name, _evaluation(settings, both, step), counts, files)


def _evaluation(settings: Distill, both: Both, step: Step) -> Figures | None:
    tokenizer, student, rows, length = both.learner.tokenizer, both.student, both.loop.rows, both.length
    texts = held_out(settings, student, tokenizer, length)
    if texts is None:
        return None
    if settings.lesson.how == "minilm":
        return by_step(step, student, texts, rows, length, both.device)
    same = tokenizer.fingerprint == both.tokenizer.fingerprint
    return beside_teacher(both.teacher if same else None, student, texts, rows, length, both.device)


def _flops(settings: Distill, both: Both) -> float:
    """Of a token of training: the student's, and what its teacher reads beside it."""
    own = count.training_flops(both.student.spec, both.length)
    if settings.lesson.how == "sequences" or settings.lesson.best:
        return own
    return own + count.training_flops(both.teacher.spec, both.length) / count.TRAINING
