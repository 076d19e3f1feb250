"""The real MiniLM encoder fine-tuned on three tasks, against transformers with the same weights, batches and settings.

Every run of either begins with one model folder, MiniLM with a new output that transformers drew by the seed, and sees
the same records in the same batches; rates, clipping and epochs are the same. What differs is what a user
gets by choosing one or the other: tokenizing, laying out, dropout's own draws, the loss, AdamW and its groups. All in
f32, and the two take turns, seed by seed. ``passed``: in each task the means over the seeds are within one standard
deviation, that of both together. ``python -m benchmarks.pages.finetuning`` makes a page of the result.

Needs AMAUTA_DATA and MiniLM (``amauta models add minilm``).
"""

import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from amauta import metrics
from amauta.data.buckets import Bucketed
from amauta.data.tasks import Example
from amauta.grades import grades
from amauta.hub import find_model
from amauta.models.exchange.opening import needed_tokenizer, spec_of
from amauta.optim.schedules import factor
from amauta.optim.settings import Optim
from amauta.runs import Run
from amauta.train.finetune.layout import Layout
from amauta.train.finetune.run import finetune
from amauta.train.finetune.settings import Finetune
from amauta.train.finetune.tasks import tasks_of
from amauta.train.settings import Loop
from benchmarks._tasks import SKIPPED, Files, acceptability, data, likeness, records, similarity

MODEL, SEEDS, EPOCHS, ROWS = "minilm", 5, 3, 32
OPTIM = Optim(optimizer="adamw", lr=1e-4, beta2=0.999, schedule="linear", warmup=0.1, weight_decay=0.01)
LENGTH = 128
NEVER = 10**9
SIZES = {"acceptability": (12, 6), "likeness": (640, 500), "similarity": (1200, 500)}  # to learn, to answer


def run(budget: float | None = None) -> dict[str, Any]:
    """``budget``: begin no further seed of a task after so many seconds; two are done in any case."""
    real, began = data(), time.perf_counter()
    if real is None:
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = (
            acceptability(real, folder, *SIZES["acceptability"]),  # pairs of each of its 67 paradigms
            likeness(real, folder, "en", *SIZES["likeness"]),
            similarity(real, folder, "en", *SIZES["similarity"]),
        )
        found = {}
        for n, task in enumerate(tasks):
            until = None if budget is None else began + budget * (n + 1) / len(tasks)
            found[task.name] = compared(task, folder / task.name, until)
    speeds = [theirs / ours for one in found.values() for ours, theirs in zip(*one["seconds"].values(), strict=True)]
    return {
        "model": MODEL, "tasks": found, "passed": all(one["passed"] for one in found.values()),
        "ratios": {"seconds of a step": statistics.median(speeds)}, "share_of_limit": None,
        "settings": {"epochs": EPOCHS, "rows": ROWS, "lr": OPTIM.lr, "warmup": OPTIM.warmup},
        "threads": torch.get_num_threads(), "seconds": time.perf_counter() - began,
    }  # fmt: skip


def compared(task: Files, folder: Path, until: float | None) -> dict[str, Any]:
    values: dict[str, list[float]] = {"amauta": [], "transformers": []}
    seconds: dict[str, list[float]] = {"amauta": [], "transformers": []}
    steps = 0
    for seed in range(SEEDS):
        if until is not None and seed >= 2 and time.perf_counter() > until:
            break
        begin = begun(task, folder / "begin", seed)
        settings = asked(task, begin, folder / "run", seed)
        for who, work in (("amauta", ours), ("transformers", theirs)):
            told = work(settings, task)
            values[who].append(told["value"])
            seconds[who].append(told["seconds"])
            steps = told["steps"]
            print(f"{task.name} seed {seed} {who}: {told}", file=sys.stderr, flush=True)
        shutil.rmtree(folder)
    return {
        "language": task.language, "source": task.source, "measure": task.measure, "steps": steps, "values": values,
        "seconds": seconds, **task.sizes, **verdict(values["amauta"], values["transformers"]),
    }  # fmt: skip


def verdict(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The difference of the means, and whether it is within one standard deviation: the root of the mean variance."""
    deviation = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 2)
    difference = statistics.fmean(ours) - statistics.fmean(theirs)
    return {"difference": difference, "deviation": deviation, "passed": abs(difference) <= deviation}


def begun(task: Files, folder: Path, seed: int) -> str:
    """MiniLM with an output that knows nothing yet, as transformers makes it."""
    import transformers

    transformers.logging.set_verbosity_error()
    path = find_model(MODEL).path
    names = [] if task.kind == "regression" else sorted({row["label"] for row in records(task.train)})
    more: dict[str, Any] = {"num_labels": len(names) or 1}
    if names:
        more |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, **more)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return str(folder)


def asked(task: Files, model: str, out: Path, seed: int) -> Finetune:
    loop = Loop(epochs=EPOCHS, rows=ROWS, seed=seed, device="cpu", dtype="f32", compile=False, save_every=NEVER,
                threads=torch.get_num_threads(), evaluate_every=NEVER)  # fmt: skip
    return Finetune(
        model=model, task=(str(task.train),), heldout=(str(task.heldout),), out=out, length=LENGTH, loop=loop,
        kind=task.kind, measures=(task.measure,), optim=OPTIM,
    )  # fmt: skip


def ours(settings: Finetune, task: Files) -> dict[str, Any]:
    told = finetune(settings)
    steps = [row for row in metrics.read(Run(settings.out).metrics) if "tokens" in row]
    took = statistics.median(row["tokens"] / row["tokens_per_second"] for row in steps)
    return {"value": told[task.measure], "seconds": took, "steps": told["steps"]}


def theirs(settings: Finetune, task: Files) -> dict[str, Any]:
    """The loop that a user writes over transformers."""
    import transformers

    steps, heldout = seen(settings)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(settings.model)
    words = transformers.AutoTokenizer.from_pretrained(settings.model)

    def batch(examples: list[Example]) -> dict[str, Any]:
        pairs = [[one.pair for one in examples]] if examples[0].pair is not None else []
        texts = [one.text for one in examples]
        return dict(words(texts, *pairs, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"))

    bare = [weight for name, weight in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    held = set(bare)
    groups = [{"params": bare, "weight_decay": 0.0},
              {"params": [weight for weight in model.parameters() if weight not in held]}]  # fmt: skip
    optim = torch.optim.AdamW(groups, lr=OPTIM.lr, betas=(OPTIM.beta1, OPTIM.beta2), weight_decay=OPTIM.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optim, factor(OPTIM, len(steps)))
    torch.manual_seed(settings.loop.seed)
    seconds: list[float] = []
    model.train()
    for examples in steps:
        began = time.perf_counter()
        model(**batch(examples), labels=torch.tensor([one.label for one in examples])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip)
        optim.step()
        schedule.step()
        optim.zero_grad()
        seconds.append(time.perf_counter() - began)
    given: list[float] = []
    with torch.inference_mode():
        for first in range(0, len(heldout), ROWS):
            logits = model.eval()(**batch(heldout[first : first + ROWS])).logits
            given += logits[:, 0].tolist() if task.kind == "regression" else logits.argmax(-1).tolist()
    value = grades([task.measure], [one.label for one in heldout], given)[task.measure]
    return {"value": value, "seconds": statistics.median(seconds), "steps": len(steps)}


def seen(settings: Finetune) -> tuple[list[list[Example]], list[Example]]:
    """The records of each of our steps, and those that are answered: their order is all that is taken from here."""
    learnt, heldout = tasks_of(settings)
    assert heldout is not None
    found = find_model(settings.model)
    layout = Layout(settings, learnt, needed_tokenizer(found), spec_of(found), LENGTH)
    plan = Bucketed(layout.prepare(learnt).laid, rows=ROWS, seed=settings.loop.seed).plan
    steps = [numbers for epoch in range(EPOCHS) for numbers in plan(epoch)]
    return [[learnt.examples[n] for n in numbers] for numbers in steps], heldout.examples
