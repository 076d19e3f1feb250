"""A LoRA step of supervised fine-tuning of SmolLM2-135M over 16 dialogues of real lengths, against peft in a plain
transformers loop: tokens/s and peak memory, the same dtype.

The lengths are those of 16 records of GSM8K by SmolLM2's tokenizer and chat template; the ids are random, which changes
neither. Rank 8 on all linear layers. Each contestant is a process of its own, so that the peak is its own too, and they
alternate. Tokens are real ones, padding is not counted. Ours packs the dialogues into rows of 1,408 tokens, one row a
micro-batch, and compiles the step, as ``amauta sft --adapter lora`` does; the peer pads the dialogues of a micro-batch
of 4, in the order in which they come. The loss of the first step says that both learn the same.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._apart import VOCABULARY, child, compared

LENGTHS = (
    (101, 110), (131, 210), (120, 99), (111, 116), (193, 232), (147, 167), (119, 145), (97, 83),
    (92, 113), (94, 90), (136, 226), (72, 96), (109, 111), (124, 192), (82, 116), (80, 202),
)  # tokens of question and answer  # fmt: skip
TOKENS = sum(map(sum, LENGTHS))
ROW, TOGETHER = 1408, 4
ROUNDS, STEPS = 2, 2
RANK = 8
GOALS = {"tokens_per_second": 1.5, "peak": 0.8}


def run() -> dict[str, Any]:
    return {"tokens": TOKENS, **compared("lora", CONTESTANTS, GOALS, ROUNDS)}


def drawn() -> list[tuple[list[int], list[int]]]:
    """Question and answer of each dialogue."""
    import numpy as np

    generator = np.random.default_rng(0)
    return [tuple(generator.integers(10, VOCABULARY, n).tolist() for n in lengths) for lengths in LENGTHS]  # type: ignore[misc]


def amauta(folder: str, kind: str) -> dict[str, float]:
    import numpy as np
    import torch

    from amauta.adapt.settings import Adapters
    from amauta.data.batches import Listed, PackedBatches, Piece
    from amauta.device import matmul_peak, pick
    from amauta.models import count, exchange
    from amauta.models.adapters import attach
    from amauta.optim.groups import Optimizers
    from amauta.optim.settings import Optim
    from amauta.train.loop import Work, _one_step, share_totals
    from amauta.train.pretrain import causal_step

    device, model = pick("cpu", kind), exchange.load(Path(folder))  # type: ignore[arg-type]
    attach(model, Adapters(adapter=("lora",), adapter_rank=RANK), seed=0)
    units = [
        (Piece(np.array([*question, *answer]), np.arange(1, len(question) + len(answer)) >= len(question)),)
        for question, answer in drawn()
    ]
    stream = PackedBatches(Listed(units), rows=1, length=ROW)
    rows = len(stream.plan(0))
    flops = count.training_flops(model.spec, ROW)
    work = Work(
        model=model, step=causal_step(device, compiled=True), stream=stream, steps=STEPS, device=device,
        flops_per_token=flops, splits=model.packed_rows(), describe=str,
    )  # fmt: skip
    optimizers = Optimizers(model, Optim(optimizer="adamw", lr=1e-4, weight_decay=0.0), splits=work.splits)
    model.train()
    compiled, seconds, losses = model.compiled(), list[float](), list[float]()
    for step in range(STEPS + 1):  # the first one compiles
        began = time.perf_counter()
        batches = [next(stream) for _ in range(rows)]
        share_totals(batches)
        losses.append(_one_step(compiled, work, optimizers, batches, 0, step, 1.0, 0.0)["loss"])
        seconds.append(time.perf_counter() - began)
    step_seconds = statistics.median(seconds[1:])
    return {
        "tokens_per_second": TOKENS / step_seconds,
        "step": step_seconds,
        "first_loss": losses[0],
        "micro_batches": rows,
        "share_of_peak": TOKENS * flops / step_seconds / matmul_peak(device.device, device.autocast or torch.float32),
    }


def peft(folder: str, kind: str) -> dict[str, float]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(whole, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
    records, seconds, losses = drawn(), list[float](), list[float]()
    answers = sum(len(answer) for _, answer in records)
    for _ in range(STEPS + 1):
        began, total = time.perf_counter(), 0.0
        for first in range(0, len(records), TOGETHER):
            batch = padded(records[first : first + TOGETHER])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
                loss = model(**batch, num_items_in_batch=torch.tensor(answers)).loss
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        seconds.append(time.perf_counter() - began)
    step = statistics.median(seconds[1:])
    return {"tokens_per_second": TOKENS / step, "step": step, "first_loss": losses[0]}


def padded(records: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
    """A micro-batch as a plain loop makes it: padding on the right, no loss on it and on questions."""
    import torch

    longest = max(len(question) + len(answer) for question, answer in records)
    rows = [(*question, *answer) for question, answer in records]
    labels = [[*[-100] * len(question), *answer] for question, answer in records]
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor([[*row, *[-100] * (longest - len(row))] for row in labels]),
    }


CONTESTANTS = {"amauta": amauta, "peft": peft}


if __name__ == "__main__":
    child(CONTESTANTS, *sys.argv[1:])
