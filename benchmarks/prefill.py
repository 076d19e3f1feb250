"""Reading a prompt of 1,000 tokens before the first answer token: tokens/s against transformers in the same type and
llama.cpp on the same weights, and the share of the matrix products' peak. SmolLM2-135M-Instruct; contestants alternate.
"""

import statistics
from typing import Any

import torch

from amauta.decode.feed import feed_for
from amauta.device import matmul_peak
from benchmarks._peers import DTYPES, alternating, llama_cpp, ours, theirs

LENGTH, ROUNDS, GOAL = 1000, 5, 1.5


def run() -> dict[str, Any]:
    found = {dtype: contest(dtype) for dtype in DTYPES}
    return {
        "contests": found,
        "ratios": {f"{dtype} over {peer}": one for dtype in found for peer, one in found[dtype]["ratios"].items()},
        "goal": GOAL,
        "share_of_limit": {dtype: one["share_of_limit"] for dtype, one in found.items()},
    }


def contest(dtype: str) -> dict[str, Any]:
    model = ours("smollm2", dtype)
    peer = theirs(model, dtype)
    prompt = torch.randint(5, 40_000, (LENGTH,), generator=torch.Generator().manual_seed(0)).tolist()
    ids = torch.tensor([prompt])

    @torch.inference_mode()
    def read() -> None:
        feed_for(model.model, 1, LENGTH + 1).start([prompt])

    @torch.inference_mode()
    def transformers() -> None:
        peer(ids, use_cache=True, logits_to_keep=1)

    works = {"ours": read, "transformers": transformers}
    with llama_cpp(model, "bf16" if dtype == "bf16" else "f32") as work:
        if work is not None:
            works["llama.cpp"] = lambda: work(prompt, 1)
        seconds = alternating(works, ROUNDS)
    spec = model.model.spec
    weights = sum(weight.numel() for name, weight in model.model.named_parameters() if name != "embedding.weight")
    flops = 2 * LENGTH * weights + 2 * spec.layers * spec.heads * spec.head * LENGTH**2  # attention sees half of T²
    return {
        "tokens_per_second": {one: LENGTH / statistics.median(times) for one, times in seconds.items()},
        "ratios": {
            peer: statistics.median(a / b for a, b in zip(seconds[peer], seconds["ours"], strict=True))
            for peer in seconds
            if peer != "ours"
        },
        "share_of_limit": flops / statistics.median(seconds["ours"]) / matmul_peak("cpu", DTYPES[dtype]),
    }
