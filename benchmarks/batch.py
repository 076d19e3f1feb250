"""Sixteen requests of mixed prompt and answer lengths at once: tokens/s wanted, ours (one running batch, a place is
free as soon as its request ends) against transformers' batched ``generate``, which pads and waits for the longest.

SmolLM2-135M-Instruct and a model of the demo's size. Contestants alternate. Both are given the whole list at once.
"""

import statistics
from typing import Any

import torch

from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from benchmarks._peers import alternating, ours, theirs

REQUESTS, ROUNDS, GOAL = 16, 3, 3.0
CONTESTS = (("smollm2", "bf16"), ("smollm2", "f32"), ("demo", "f32"))


def run() -> dict[str, Any]:
    found = {f"{name} {dtype}": contest(name, dtype) for name, dtype in CONTESTS}
    return {
        "contests": found,
        "ratios": {name: one["ratio"] for name, one in found.items()},
        "goal": GOAL,
        "share_of_limit": None,
    }


def contest(name: str, dtype: str) -> dict[str, Any]:
    model = ours(name, dtype)
    peer = theirs(model, dtype)
    random = torch.Generator().manual_seed(0)
    sizes = torch.randint(8, 97, (REQUESTS, 2), generator=random).tolist()  # of prompts and of answers
    prompts = [torch.randint(5, 1500, (length,), generator=random).tolist() for length, _ in sizes]
    wanted = [Sampling(max_tokens=count, min_tokens=count, temperature=0) for _, count in sizes]
    longest = max(len(prompt) for prompt in prompts)
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])  # to the left, as it needs
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    most = max(count for _, count in sizes)

    def one_batch() -> None:
        found = generate(model.model, prompts, wanted, rows=REQUESTS, stop_ids=model.stop_ids)
        assert [len(one.ids) for one in found] == [count for _, count in sizes]

    @torch.inference_mode()
    def transformers() -> None:
        peer.generate(
            padded, attention_mask=mask, max_new_tokens=most, min_new_tokens=most, do_sample=False, pad_token_id=0
        )

    seconds = alternating({"ours": one_batch, "transformers": transformers}, ROUNDS)
    tokens = sum(count for _, count in sizes)
    return {
        "tokens": tokens,
        "tokens_per_second": {one: tokens / statistics.median(times) for one, times in seconds.items()},
        "ratio": statistics.median(a / b for a, b in zip(seconds["transformers"], seconds["ours"], strict=True)),
    }
