"""The same examples of a task learnt in the prompt and in the weights.

In context: k demonstrations, right labels. Fine-tuned: the same k, as fine-tuning in T5's manner lays them out and with
its loss, on all weights; kept in memory, because writing a model and its states takes longer than these few steps. Both
are asked alike: the label that is likeliest after the text, without demonstrations where the weights have learnt. k = 0
is the model as it is, for both.
"""

import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import amauta
from amauta.base.seeds import derive
from amauta.config import to_dict
from amauta.data.buckets import Laid, batch_of
from amauta.device import pick
from amauta.optim.groups import Optimizers
from amauta.optim.schedules import factor
from amauta.optim.settings import Optim
from amauta.prompt import tasks
from amauta.prompt.demonstrations import choose
from amauta.prompt.labels import experiment
from amauta.prompt.settings import LabelExperiment
from amauta.prompt.task import Example, Task
from amauta.prompt.template import compose
from amauta.train.finetune.steps import written_step
from amauta.train.loop import share_totals
from benchmarks._kept import Kept

MODEL, TASK, EXAMPLES, SEEDS, SHOTS = "smollm2", "sentiment", 24, 3, (1, 2, 4, 8, 16)
STEPS, ROWS, LEARNT = 24, 8, 0.1  # at most so many steps; nats a token on its own examples at which it may stop
OPTIM = Optim(optimizer="adamw", lr=1e-4, beta2=0.999, schedule="constant", warmup=0.1, weight_decay=0.0)


def compared(kept: Kept, model: Any) -> dict[str, Any]:
    """What each seed answered, by number of examples and way of learning."""
    task, asked = tasks.named(TASK), {"task": TASK, "model": MODEL, "examples": EXAMPLES}
    learnt = {**asked, "steps": STEPS, "rows": ROWS, "learnt": LEARNT, "optim": to_dict(OPTIM)}
    none = kept("learning.0", asked, lambda: answers(model, task))
    ways: dict[str, dict[int, list[Any]]] = {"context": {0: [none]}, "weights": {0: [none]}}
    for seed in range(SEEDS):
        for shots in SHOTS:
            shown = choose(task, shots, demonstration_seed=seed, order_seed=seed).examples
            drawn = {"shots": shots, "seed": seed}
            inside = kept(f"learning.context.{shots}.{seed}", {**asked, **drawn},
                          lambda shown=shown: answers(model, task, shown))  # fmt: skip
            weights = kept(f"learning.weights.{shots}.{seed}", {**learnt, **drawn},
                           lambda shown=shown, seed=seed: tuned_answers(task, shown, seed))  # fmt: skip
            ways["context"].setdefault(shots, []).append(inside)
            ways["weights"].setdefault(shots, []).append(weights)
    right = [example.answer for example in task.examples(EXAMPLES, 0)]
    told = {"task": TASK, "examples": EXAMPLES, "seeds": SEEDS, "steps": STEPS, "rows": ROWS, "learnt": LEARNT,
            "lr": OPTIM.lr}  # fmt: skip
    return json.loads(json.dumps({**told, "ways": ways, "right": right}))


def answers(model: Any, task: Task, shown: Sequence[Example] = ()) -> dict[str, Any]:
    """What the model answers after exactly these demonstrations."""
    after = replace(task, demonstrations=tuple(shown))
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "answers.jsonl"
        settings = LabelExperiment(
            task=TASK, model=MODEL, examples=EXAMPLES, shots=max(1, len(shown)), seeds=1, out=out,
            conditions=("gold",) if shown else ("none",),
        )  # fmt: skip
        if not shown:
            after = replace(task, demonstrations=task.demonstrations[:1])  # drawn, and not shown
        experiment(model, after, settings)
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {"answers": [row["answer"] for row in rows]}


def tuned_answers(task: Task, shown: Sequence[Example], seed: int) -> dict[str, Any]:
    """What the model answers when it has learnt these examples, and its loss on them, step by step."""
    model = amauta.load(MODEL, device="cpu")
    losses = tune(model, [_laid(model, task, example) for example in shown], seed)
    return {**answers(model, task), "losses": losses}


def tune(model: Any, laid: Sequence[Laid], seed: int) -> list[float]:
    """Steps until all examples are learnt, by the mean loss of the last pass over them, but no more than STEPS: a rule
    that looks at nothing held out."""
    inner, device = model.model.train().requires_grad_(), pick("cpu")
    step, optimizers, rate = written_step(device), Optimizers(inner, OPTIM), factor(OPTIM, STEPS)
    one_pass, losses = math.ceil(len(laid) / ROWS), list[float]()
    while len(losses) < STEPS and not (len(losses) >= one_pass and statistics.fmean(losses[-one_pass:]) < LEARNT):
        n = len(losses)
        torch.manual_seed(derive(seed, "dropout", n))
        batch = batch_of([laid[(n * ROWS + i) % len(laid)] for i in range(min(ROWS, len(laid)))])
        share_totals([batch])
        with device.context():
            total, count, _ = step(inner, batch)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(optimizers.parameters, OPTIM.clip)
        optimizers.step(rate(n))
        losses.append(float(total.detach()) / count)
    inner.eval().requires_grad_(False)
    return losses


def _laid(model: Any, task: Task, example: Example) -> Laid:
    prompt = compose(task.template, example, instruction=task.instruction).text()
    end = [] if model.tokenizer.end is None else [model.tokenizer.end]
    ids = model.tokenizer.prompt(prompt)
    return Laid([ids], [[0] * len(ids)], written=[*model.tokenizer.encode(example.answer), *end])
