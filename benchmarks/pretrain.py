"""Pretraining tokens/s at 12M parameters and T = 256, against a plain PyTorch loop over transformers' Llama.

All three train the same shape on the same random batch with AdamW and clipping at 1: the peer in f32, the peer under
bf16 autocast, and our step as ``amauta pretrain`` runs it (packed rows, compiled, bf16 where the processor has it).
Blocks of steps alternate, so that a change of the machine's speed meets all; a ratio is taken within each round.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from amauta.data.batches import Batch
from amauta.device import matmul_peak, pick
from amauta.models.count import parameters, training_flops
from amauta.models.sizes import named
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.optim.groups import Optimizers
from amauta.optim.settings import Optim
from amauta.train.pretrain import causal_step

VOCABULARY, ROWS, LENGTH = 4096, 16, 256
ROUNDS, STEPS = 7, 2


def run() -> dict[str, Any]:
    spec = named("mini", vocabulary=VOCABULARY, context=LENGTH)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    device = pick("cpu", "auto")
    contestants = {
        "amauta": ours(spec, ids),
        "transformers f32": peer(spec, ids, None),
        "transformers bf16": peer(spec, ids, torch.bfloat16),
    }
    for step in contestants.values():  # compile, allocate, warm the caches
        step()
        step()
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: list[float] = []
    for _ in range(ROUNDS):
        peaks.append(matmul_peak("cpu", device.autocast or torch.float32, seconds=0.2))
        for name, step in contestants.items():
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            speeds[name].append(STEPS * ROWS * LENGTH / (time.perf_counter() - began))
    flops = training_flops(spec, LENGTH)
    shares = [speed * flops / peak for speed, peak in zip(speeds["amauta"], peaks, strict=True)]
    return {
        "parameters": parameters(spec),
        "tokens_per_second": {name: statistics.median(found) for name, found in speeds.items()},
        "ratios": {
            name: statistics.median(a / b for a, b in zip(speeds["amauta"], found, strict=True))
            for name, found in speeds.items()
            if name != "amauta"
        },
        "share_of_limit": statistics.median(shares),
        "limit": f"{statistics.median(peaks) / 1e9:.0f} GFLOP/s of {device.autocast or torch.float32} matrix products",
        "threads": torch.get_num_threads(),
    }


def ours(spec: Spec, ids: torch.Tensor) -> Callable[[], None]:
    """Our step, as the loop makes it."""
    device = pick("cpu", "auto")
    model = Transformer.create(spec, seed=0)
    optimizers = Optimizers(model, Optim(optimizer="adamw"), splits=model.packed_rows())
    compiled, step = model.compiled(), causal_step(device, compiled=True)
    rows = torch.arange(LENGTH).repeat(ROWS, 1)
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), rows, torch.ones_like(rows), units=[])

    def one() -> None:
        with device.context():
            total, n, _ = step(compiled, batch)
        total.backward()
        torch._foreach_mul_([p.grad for p in optimizers.parameters], 1 / n)
        torch.nn.utils.clip_grad_norm_(optimizers.parameters, 1.0)
        optimizers.step(1.0)

    return one


def peer(spec: Spec, ids: torch.Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """The loop that a user writes over transformers."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=spec.vocabulary, hidden_size=spec.width, intermediate_size=spec.inner,
        num_hidden_layers=spec.layers, num_attention_heads=spec.heads, max_position_embeddings=spec.context,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def one() -> None:
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(input_ids=inputs, labels=inputs, shift_labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return one
