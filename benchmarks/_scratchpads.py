"""Small decoders that learn addition from the same sums, with scratchpads (Nye et al. 2021, arXiv 2112.00114) and
without: as many tokens each, by ``amauta sft`` on records of ``amauta prompt records``."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import amauta
from amauta.decode.settings import Asked
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.optim.settings import Optim
from amauta.prompt import tasks
from amauta.prompt.run import run
from amauta.prompt.scratchpad import record
from amauta.prompt.settings import RunPrompt
from amauta.prompt.task import Example, Task
from amauta.tokenize.train import train_bpe
from amauta.train.settings import Loop, Sft
from amauta.train.sft import sft
from benchmarks._kept import Kept

DIGITS, RECORDS, EXAMPLES, LONGEST = 3, 12_000, 60, 160  # LONGEST: tokens of an answer
STEPS, ROWS, LENGTH, VOCABULARY, NEVER = 450, 16, 128, 320, 10**9
SHAPE: dict[str, Any] = {"width": 64, "layers": 3, "heads": 4, "context": 256, "qk_norm": True, "dropout": 0.0}
OPTIM = Optim(optimizer="muon", lr=3e-3)
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "generated_tokens", "no_answer", "scratch_right")


def compared(kept: Kept) -> dict[str, Any]:
    """Both decoders, on sums of so many digits as they learnt, and of one more."""
    asked = {"digits": DIGITS, "records": RECORDS, "examples": EXAMPLES, "steps": STEPS, "rows": ROWS,
             "length": LENGTH, "shape": SHAPE, "lr": OPTIM.lr}  # fmt: skip
    ways = {way: kept(f"scratchpads.{way}", asked, lambda way=way: learnt(way == "scratchpad"))
            for way in ("direct", "scratchpad")}  # fmt: skip
    return {**asked, "ways": ways}


def learnt(steps: bool) -> dict[str, Any]:
    """One decoder from its first weights to its answers."""
    task = tasks.named("addition")
    assert task.training is not None
    examples = [one for one in task.training(RECORDS, 0) if one.facts["digits"] <= DIGITS]
    records = [record(task, one, steps=steps) for one in examples]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        both = [record(task, one)["completion"] for one in examples] + [one["prompt"] for one in records]
        tokenizer = train_bpe(both, VOCABULARY, allow_smaller=True)
        first = Transformer.create(Spec(vocabulary=tokenizer.size, **SHAPE), 0)
        (folder / "first").mkdir()
        write_model(first, tokenizer, folder / "first")
        told = sft(Sft(
            model=str(folder / "first"), data=(str(folder / "records.jsonl"),), out=folder / "run", length=LENGTH,
            loop=Loop(steps=STEPS, rows=ROWS, device="cpu", compile=False, save_every=NEVER,
                      threads=torch.get_num_threads()),
            optim=OPTIM,
        ))  # fmt: skip
        model = amauta.load(folder / "run" / "model", device="cpu")
        figures = {str(digits): graded(model, task, digits, steps) for digits in (*range(1, DIGITS + 1), DIGITS + 1)}
    return {"learnt": len(records), "parameters": sum(p.numel() for p in first.parameters()), "loss": told["loss"],
            "digits": figures}  # fmt: skip


def graded(model: Any, task: Task, digits: int, steps: bool) -> dict[str, Any]:
    """Sums of exactly so many digits that were not learnt; only the answer counts."""

    def drawn(count: int, seed: int) -> Sequence[Example]:
        return [one for one in task.examples(40 * count, seed) if one.facts["digits"] == digits][:count]

    settings = RunPrompt(task=task.name, model=model.name, examples=EXAMPLES // DIGITS, shots=0, layout="chat",
                         sampling=Asked(max_tokens=LONGEST))  # fmt: skip
    one = replace(task, examples=drawn)
    found = run(model, one, settings, method="scratchpad" if steps else "direct")
    return {name: found[name] for name in FIGURES if name in found} | {"examples": found["examples"]}
