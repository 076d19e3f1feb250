"""A DPO step of SmolLM2-135M over 8 pairs of real lengths, against trl: tokens/s and peak memory, the same dtype.

The lengths are those of 8 records drawn from HH-RLHF's harmless split, by SmolLM2's tokenizer and chat template; the
ids are random, which changes neither. Each contestant is a process of its own, so that the peak is its own too, and
they alternate. Tokens are real ones, padding is not counted. Ours is timed with the log-probs of the reference, which
in one epoch are computed once for each pair too; the rows are packed and the step is compiled, as ``amauta prefer``
runs it. ``trl`` is its trainer as it comes (activations computed twice, the reference beside the policy); ``trl
precomputed`` is given the log-probs of the reference, not counted. A step is 8 pairs: one micro-batch in trl, three
in ours (``--rows 1 --accumulate 3``).
"""

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._apart import VOCABULARY, child, compared

LENGTHS = (
    (67, 68, 72), (93, 26, 27), (95, 15, 9), (106, 61, 72), (71, 99, 82), (113, 7, 81), (76, 34, 9), (348, 68, 42)
)  # tokens of prompt, chosen answer and rejected answer  # fmt: skip
TOKENS = sum(2 * prompt + chosen + rejected for prompt, chosen, rejected in LENGTHS)
ROW, ROWS = 1024, 3  # into which the pairs fit
ROUNDS, STEPS = 2, 1
GOALS = {"tokens_per_second": 1.5, "peak": 0.7}


def run() -> dict[str, Any]:
    return {"tokens": TOKENS, **compared("dpo", CONTESTANTS, GOALS, ROUNDS)}


def drawn() -> list[tuple[list[int], list[int], list[int]]]:
    """Prompt, chosen and rejected of each pair."""
    import numpy as np

    generator = np.random.default_rng(0)
    return [tuple(generator.integers(10, VOCABULARY, n).tolist() for n in lengths) for lengths in LENGTHS]


def amauta(folder: str, kind: str) -> dict[str, float]:
    import numpy as np
    import torch

    from amauta.data.batches import Listed, PackedBatches, Piece
    from amauta.device import matmul_peak, pick
    from amauta.losses.preference import dpo
    from amauta.models import count, exchange
    from amauta.optim.groups import Optimizers
    from amauta.optim.settings import Optim
    from amauta.train.loop import Work, _one_step, share_totals
    from amauta.train.prefer.steps import pair_logprobs, preference_step

    device, model = pick("cpu", kind), exchange.load(Path(folder))  # type: ignore[arg-type]
    units = [
        tuple(Piece(np.array([*prompt, *side]), np.arange(1, len(prompt) + len(side)) >= len(prompt)) for side in sides)
        for prompt, *sides in drawn()
    ]
    stream = PackedBatches(Listed(units), rows=1, length=ROW)
    assert len(stream.plan(0)) == ROWS
    began = time.perf_counter()
    ref = pair_logprobs(model, units, rows=1, length=ROW, device=device)
    before = time.perf_counter() - began
    flops = count.training_flops(model.spec, ROW)
    work = Work(
        model=model, step=preference_step(dpo, {"policy", "ref"}, device, ref=ref), stream=stream, steps=STEPS,
        device=device, flops_per_token=flops, splits=model.packed_rows(), describe=str,
    )  # fmt: skip
    optimizers = Optimizers(model, Optim(optimizer="adamw", lr=1e-6, weight_decay=0.0), splits=work.splits)
    compiled, seconds = model.compiled(), list[float]()
    for step in range(STEPS + 1):  # the first one compiles
        began = time.perf_counter()
        batches = [next(stream) for _ in range(ROWS)]
        share_totals(batches)
        _one_step(compiled, work, optimizers, batches, 0, step, 1.0, 1.0)
        seconds.append(time.perf_counter() - began)
    step_seconds = statistics.median(seconds[1:])
    return {
        "tokens_per_second": TOKENS / (step_seconds + before),
        "step": step_seconds,
        "reference": before,
        "share_of_peak": TOKENS * flops / step_seconds / matmul_peak(device.device, device.autocast or torch.float32),
    }


def trl(folder: str, kind: str, *, precomputed: bool = False) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    named = {"<pad>": 0, "<end>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    words = Tokenizer(models.WordLevel(named, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>")
    rows = [
        {"prompt": spelt(prompt), "chosen": " " + spelt(chosen[:-1]), "rejected": " " + spelt(rejected[:-1])}
        for prompt, chosen, rejected in drawn()
    ]
    ends: list[float] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        args = DPOConfig(
            output_dir=out, per_device_train_batch_size=len(rows), max_steps=STEPS, use_cpu=True,
            bf16=kind == "bf16", report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
            learning_rate=1e-6, weight_decay=0.0, precompute_ref_log_probs=precomputed,
        )  # fmt: skip
        load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # noqa: E731
        trainer = DPOTrainer(
            model=load(), ref_model=None if precomputed else load(), args=args, train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer, callbacks=[Watch()],
        )  # fmt: skip
        trainer.train()
    step = statistics.median(end - start for start, end in zip(ends[::2], ends[1::2], strict=True))
    return {"tokens_per_second": TOKENS / step, "step": step}


def spelt(ids: list[int]) -> str:
    return " ".join(f"w{id}" for id in ids)


CONTESTANTS = {"amauta": amauta, "trl": trl, "trl precomputed": partial(trl, precomputed=True)}


if __name__ == "__main__":
    child(CONTESTANTS, *sys.argv[1:])
