"""What methods of prompting make of a real small model: right answers, tokens, seconds; labels; learning by examples.

SmolLM2-135M-Instruct (``amauta models add smollm2``) is asked the tasks by each method that applies to them; the labels
of its demonstrations are right, random or away (Min et al. 2022, arXiv 2202.12837); it learns one task from the same
examples in its prompt and in its weights; and small decoders learn long addition with scratchpads and without.
``--out FOLDER`` keeps every part when it is done, and the same call goes on. ``python -m benchmarks.pages.prompting``
makes a page of the result; nothing in it is typed by hand.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

import amauta
from amauta.config import to_dict
from amauta.decode.settings import Asked
from amauta.device import pick
from amauta.prompt import tasks
from amauta.prompt.labels import experiment
from amauta.prompt.run import run as ask
from amauta.prompt.settings import LabelExperiment, RunPrompt
from amauta.prompt.thoughts.settings import Thoughts
from benchmarks import _learning, _scratchpads
from benchmarks._kept import Kept

MODEL, EXAMPLES, FEW = "smollm2", 10, 2  # FEW: of tasks whose search asks the model dozens of times for one example
SAMPLES, STEPS = 5, 96  # of self-consistency; tokens of a chain of thought
THOUGHTS = Thoughts(branching=2, breadth=2, judgements=1, simulations=4, parts=4, thought_tokens=24,
                    judgement_tokens=24)  # fmt: skip
ASKED = {
    "sentiment": (EXAMPLES, ("direct", "few-shot", "cot")),
    "arithmetic": (EXAMPLES, ("direct", "few-shot", "cot", "self-consistency")),
    "game24": (FEW, ("direct", "few-shot", "cot", "tot", "mcts")),
    "sorting": (FEW, ("direct", "few-shot", "got")),
}
WRITES = ("cot", "self-consistency")  # what is asked for reasoning; others answer as long as the task says
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "generated_tokens", "read_tokens", "calls", "seconds",
           "no_answer", "examples")  # fmt: skip
LABELS = LabelExperiment(task="sentiment", model=MODEL, examples=24, shots=8, seeds=5)


def run(out: Path | None = None) -> dict[str, Any]:
    """``out``: a folder that keeps the parts."""
    with tempfile.TemporaryDirectory() as name:
        kept = Kept(out or Path(name))
        model = amauta.load(MODEL, device="cpu")
        dtype = "bf16" if pick("cpu").autocast else "f32"
        quick = amauta.load(MODEL, device="cpu", dtype=dtype)
        found = {
            "labels": kept("labels", to_dict(LABELS), lambda: experiment(model, tasks.named(LABELS.task), LABELS)),
            "learning": _learning.compared(kept, model),
            "methods": {task: {method: asked(kept, quick, task, method, count) for method in methods}
                        for task, (count, methods) in ASKED.items()},
            "scratchpads": _scratchpads.compared(kept),
        }  # fmt: skip
    return {
        "model": MODEL, **found, "samples": SAMPLES, "steps": STEPS, "thoughts": to_dict(THOUGHTS), "dtype": dtype,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "seconds": kept.seconds,
        "ratios": {}, "share_of_limit": None,
    }  # fmt: skip


def asked(kept: Kept, model: Any, task: str, method: str, count: int) -> dict[str, Any]:
    """The examples of a task by one method: its figures, without each answer's."""
    longest = Asked(max_tokens=STEPS) if method in WRITES else Asked()
    settings = RunPrompt(task=task, model=MODEL, examples=count, samples=SAMPLES, sampling=longest, thoughts=THOUGHTS)
    told = {**to_dict(settings), "method": method, "dtype": str(next(model.model.parameters()).dtype)}

    def work() -> dict[str, Any]:
        found = ask(model, tasks.named(task), settings, method=method)
        return {name: found[name] for name in FIGURES}

    return kept(f"{task}.{method}", told, work)
