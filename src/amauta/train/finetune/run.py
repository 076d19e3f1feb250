"""Fine-tuning: a pretrained model learns a task, in the manner of BERT (Devlin et al. 2019, arXiv 1810.04805), of GPT-1
(Radford et al. 2018) or of T5 (Raffel et al. 2020, arXiv 1910.10683), and is graded on records that it did not see.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from amauta.base.errors import ConfigError
from amauta.base.seeds import derive
from amauta.data.buckets import Bucketed, batch_of
from amauta.data.tasks import Task
from amauta.device import Device
from amauta.grades import USUAL, check_extra
from amauta.hub import Found, find_model
from amauta.metrics import plain
from amauta.models import count
from amauta.models.adapters import attached
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of
from amauta.models.pruned import masks_of
from amauta.models.reshape import reshaped, with_head
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run, write_atomically
from amauta.tokenize.added import DELIM, EXTRACT, START, with_tokens
from amauta.tokenize.either import AnyTokenizer
from amauta.train.adapted import adapted, grown, left, unadapted
from amauta.train.aware import keep_aware
from amauta.train.finetune.grading import Grader
from amauta.train.finetune.layout import Layout, Prepared, check_able
from amauta.train.finetune.settings import Finetune
from amauta.train.finetune.steps import labelled_step, span_step, written_step
from amauta.train.finetune.tasks import leaks, tasks_of
from amauta.train.freeze import freeze
from amauta.train.loop import Step, Work, train
from amauta.train.start import conclude, open_run, prepare

LONGEST = 512  # tokens of an input where nothing is said
GPT_DROPOUT = 0.1  # before the classifier (Radford et al. 2018, section 4.1)


def finetune(settings: Finetune) -> dict[str, Any]:
    """Fine-tune a model on a task and leave it in ``out/model``; returns the run's figures.

    With several seeds each has its run in ``out/seed-…``; every figure is then the mean over them, and its deviation
    (of a sample, n - 1) and values stand beside it. Raises ConfigError, DataError, ModelError, RunError, Interrupted.
    """
    if settings.seeds == 1:
        return _one(settings)
    first = settings.loop.seed
    results: list[dict[str, Any]] = []
    for seed in range(first, first + settings.seeds):
        loop = replace(settings.loop, seed=seed)
        results.append(_one(replace(settings, seeds=1, out=settings.out / f"seed-{seed}", loop=loop)))
    together = {"seeds": list(range(first, first + settings.seeds)), **over_seeds(results)}
    write_atomically(Run(settings.out).result, json.dumps(plain(together), indent=1) + "\n")
    return together


def over_seeds(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of what differs between runs, with ``…_std`` and ``…_values``; what is the same everywhere as it is."""
    found: dict[str, Any] = {}
    for name, value in results[0].items():
        values = [result.get(name) for result in results]
        numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
        if all(one == value for one in values) and name not in GRADED:
            found[name] = value
        elif len(numbers) == len(values):
            found[name] = statistics.fmean(numbers)
            if name in GRADED or name.endswith("loss"):
                found[f"{name}_std"] = statistics.stdev(numbers)
                found[f"{name}_values"] = numbers
        else:
            found[name] = values
    return found


GRADED = ("accuracy", "f1", "matthews", "pearson", "spearman", "exact_match", "token_f1", "rank_accuracy")


def _one(settings: Finetune) -> dict[str, Any]:
    """One run, with one seed."""
    check_extra(settings.measures)
    run, finished = open_run(settings, settings.loop, settings.out)
    if finished is not None:
        return finished
    device, loop = prepare(settings.loop)
    found = find_model(settings.model)
    task, heldout = tasks_of(settings)
    leaked = {} if heldout is None else leaks(settings, task, heldout)
    if heldout is not None:
        check_extra(_measures(settings, task))
    tokenizer, spec, fresh = _target(settings, found, task)
    room = replace(spec, context=left(spec, settings.adapters))
    layout = Layout(settings, task, tokenizer, room, _length(settings, room))
    made = layout.prepare(task)
    base = unadapted(read_weights(found, None if fresh or settings.adapters.any else tokenizer), found.name)
    model, trained = _trained(settings, needed_tokenizer(found), base, spec, fresh)
    model = model.to(device.device)
    start = _start(settings, spec, tokenizer)
    step = _step(settings, task, device)
    collate = partial(batch_of, start=start, multiple=64 if loop.compile else 1, see_prompt=settings.see_prompt)
    stream = Bucketed(made.laid, rows=loop.rows, seed=loop.seed, collate=collate, tasks=made.sizes, cap=settings.cap)
    steps = loop.steps or max(1, math.ceil(loop.epochs * len(stream.plan(0)) / loop.accumulate))
    grader = None if heldout is None else _grader(layout, task, heldout, tokenizer, step, device, loop.rows, start)
    work = Work(
        model=model,
        step=step,
        stream=stream,
        steps=steps,
        device=device,
        flops_per_token=_flops(spec, made, apart=start is not None),
        splits=model.packed_rows(),
        masks=masks_of(found, model),
        describe=partial(_places, made),
        evaluate=None if grader is None else partial(grader, model),
    )
    result = train(run, work, loop, settings.optim) | made.counts() | {"padding": stream.padding()}
    result |= {"skipped": task.skipped, "kind": task.kind, "labels": list(task.labels), "trained": trained, **leaked}
    files = [*task.files, *(heldout.files if heldout else [])]
    return conclude(run, settings, _finished(model), tokenizer, result, parent=found, files=files)


def _trained(
    settings: Finetune, known: AnyTokenizer, base: Transformer, spec: Spec, fresh: int
) -> tuple[Transformer, int]:
    """The model of ``spec`` with the base's weights, and how many numbers of it are trained."""
    seed, adapters = derive(settings.loop.seed, "head"), settings.adapters
    if not adapters.any:
        adapted(base, known, adapters, seed)  # which has nothing to do, and says so where a model cannot learn
        model = reshaped(base, spec, seed, fresh=fresh)
        trained = freeze(model, settings.train_only, () if settings.manner == "t5" else _new(base, model))
        if not trained:
            raise ConfigError("finetune.nothing-trained", train_only=settings.train_only, manner=settings.manner)
        return model, trained
    if settings.train_only != "all":
        raise ConfigError("train.adapter-and-only", train_only=settings.train_only)
    model = reshaped(base, replace(spec, vocabulary=base.spec.vocabulary), seed)
    tokens = (START, DELIM, EXTRACT) if settings.manner == "gpt" else ()
    new = tuple(name for name in tokens if name not in known.names.values())
    also = () if settings.manner == "t5" else _new(base, model)
    adapted(model, known, adapters, settings.loop.seed, also=also, special=new)
    return model, sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _measures(settings: Finetune, task: Task) -> tuple[str, ...]:
    return settings.measures or USUAL[task.kind]


def _grader(
    layout: Layout,
    task: Task,
    heldout: Task,
    tokenizer: AnyTokenizer,
    step: Step,
    device: Device,
    rows: int,
    start: int | None,
) -> Grader:
    """What answers and grades the held-out records; it may say nothing where the task has unanswerable questions."""
    settings = layout.settings
    threshold = settings.no_answer
    if threshold is None and task.kind == "span" and any(example.start is None for example in task.examples):
        threshold = 0.0
    return Grader(layout, layout.prepare(heldout), tokenizer, _measures(settings, task), step, device, rows=rows,
                  start=start, threshold=threshold)  # fmt: skip


def _target(settings: Finetune, found: Found, task: Task) -> tuple[AnyTokenizer, Spec, int]:
    """The tokenizer and the spec of the model that will be trained, and how many of its last tokens are new."""
    spec = replace(spec_of(found), prefix_lm=False)  # but for --see-prompt
    check_able(settings, task.kind, spec)
    tokenizer = grown(needed_tokenizer(found), settings.adapters)
    if settings.manner == "t5":
        if "language" not in spec.outputs:
            raise ConfigError("finetune.writes-nothing", model=settings.model, outputs=", ".join(spec.outputs) or "-")
        return tokenizer, replace(spec, outputs=("language",), prefix_lm=settings.see_prompt), 0
    if task.kind == "span":
        return tokenizer, with_head(spec, ("span",)), 0
    labels = task.classes if task.kind == "classification" else 1
    dropout = settings.classifier_dropout
    if settings.manner == "bert":
        head = with_head(spec, ("classifier",), labels=labels, names=task.labels)
        return tokenizer, head if dropout is None else _dropping(head, dropout), 0
    if "language" not in spec.outputs and settings.lm_weight:
        raise ConfigError("finetune.writes-nothing", model=settings.model, outputs=", ".join(spec.outputs) or "-")
    tokenizer, _, fresh = with_tokens(tokenizer, (START, DELIM, EXTRACT))
    outputs = ("language", "classifier") if settings.lm_weight else ("classifier",)
    vocabulary = max(spec.vocabulary, tokenizer.size)
    head = with_head(spec, outputs, labels=labels, names=task.labels, vocabulary=vocabulary)
    last = vocabulary - tokenizer.size + fresh if fresh else 0  # a padded vocabulary had rows for them
    return tokenizer, _dropping(head, GPT_DROPOUT if dropout is None else dropout), last


def _dropping(spec: Spec, dropout: float) -> Spec:
    """The spec with another dropout of the classifier, and before its dense layer where it has one there."""
    return replace(spec, classifier_dropout=dropout, pooler_dropout=dropout if spec.pooler_dropout else 0.0)


def _length(settings: Finetune, spec: Spec) -> int:
    limit = spec.limit
    length = settings.length or min(limit or LONGEST, LONGEST)
    if limit is not None and length > limit:
        raise ConfigError("finetune.beyond-context", length=length, context=limit)
    return length


def _start(settings: Finetune, spec: Spec, tokenizer: AnyTokenizer) -> int | None:
    """The first id of a decoder that writes beside an encoder."""
    if settings.manner != "t5" or spec.kind != "encoder-decoder":
        return None
    return spec.decoder_start if spec.decoder_start is not None else tokenizer.pad or 0


def _step(settings: Finetune, task: Task, device: Device) -> Step:
    if settings.manner == "t5":
        return written_step(device)
    if task.kind == "span":
        return span_step
    return labelled_step(device, lm_weight=settings.lm_weight if settings.manner == "gpt" else 0.0)


def _finished(model: Transformer) -> Transformer:
    """The model as it is kept: a classifier without the language-model output that helped it to learn."""
    if model.spec.outputs != ("language", "classifier"):
        return model
    keep_aware(model)  # made anew below, its layers would be plain ones
    alone = replace(model.spec, outputs=("classifier",))
    if attached(model):
        model.spec = model.outputs.spec = alone
        del model.outputs.language
        return model
    return reshaped(model, alone, 0)


def _new(base: Transformer, model: Transformer) -> tuple[str, ...]:
    """The names of what was not pretrained: the output that is learnt, and a pooler that was drawn with it."""
    held = dict(base.named_parameters())
    drawn = [
        name for name, value in model.named_parameters()
        if name.startswith("outputs.pooler.") and not (name in held and torch.equal(held[name], value))
    ]  # fmt: skip
    return (f"outputs.{model.spec.outputs[-1]}.", *drawn)


def _flops(spec: Spec, made: Prepared, *, apart: bool) -> float:
    """FLOPs of training on one token, its output left out. ``apart``: a token is read by one of two stacks only."""
    bare = replace(spec, outputs=())
    read = max(1, round(statistics.fmean(len(row) for one in made.laid for row in one.rows)))
    written = round(statistics.fmean(len(one.written or ()) for one in made.laid))
    if not apart:
        return count.training_flops(bare, read + written)
    found = count.forward_flops(bare, max(1, written), read)
    return count.TRAINING * (found["encoder"] * read + found["decoder"] * written) / (read + written)


def _places(made: Prepared, batch: Any) -> str:
    """The records of a batch, by file and line."""
    places = [made.examples[number].place for row in batch.units for number in row]
    return ", ".join(dict.fromkeys(places[:20])) + (" …" if len(places) > 20 else "")
