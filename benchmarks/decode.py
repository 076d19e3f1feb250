"""One text at a time, greedy: tokens/s of SmolLM2-135M-Instruct and of a model of the demo's size, against
transformers' ``generate`` in the same type, and llama.cpp on the same weights.

The limit is memory: weights and cache read once a token over the bandwidth measured in the same run. llama.cpp is
left out unless AMAUTA_LLAMA_CPP names a Python that has llama-cpp-python. Contestants alternate.
"""

import statistics
from typing import Any

import torch

from amauta.device import memory_bandwidth
from benchmarks._peers import alternating, bytes_read, llama_cpp, ours, theirs

PROMPT, TOKENS, ROUNDS = 16, 64, 5
GOALS = {"transformers": 2.0, "llama.cpp": 0.9, "share_of_limit": 0.6}
LLAMA_KINDS = {"bf16": ("f16", "bf16"), "f32": ()}


def run() -> dict[str, Any]:
    found = {f"{name} {dtype}": contest(name, dtype) for name, dtype in CONTESTS}
    return {
        "contests": found,
        "ratios": {
            f"{name} over {peer}": ratio for name, one in found.items() for peer, ratio in one["ratios"].items()
        },
        "goals": GOALS,
        "share_of_limit": {name: one["share_of_limit"] for name, one in found.items()},
    }


CONTESTS = (("smollm2", "bf16"), ("smollm2", "f32"), ("demo", "f32"))


def contest(name: str, dtype: str) -> dict[str, Any]:
    model = ours(name, dtype)
    peer = theirs(model, dtype)
    prompt = torch.randint(5, 1500, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    ids = torch.tensor([prompt])

    @torch.inference_mode()
    def transformers() -> None:
        peer.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip

    works = {
        "ours": lambda: model.generate([prompt], max_tokens=TOKENS, min_tokens=TOKENS, temperature=0),
        "transformers": transformers,
    }
    seconds = alternating(works, ROUNDS)
    bandwidth = max(memory_bandwidth() for _ in range(3))
    for kind in LLAMA_KINDS[dtype] if name != "demo" else ():
        with llama_cpp(model, kind) as work:
            if work is not None:
                both = alternating({"ours": works["ours"], kind: lambda work=work: work(prompt, TOKENS)}, ROUNDS)
                seconds |= {f"llama.cpp {kind}": both[kind], f"ours beside {kind}": both["ours"]}
    speeds = {one: TOKENS / statistics.median(times) for one, times in seconds.items()}
    ratios = {"transformers": _ratio(seconds["transformers"], seconds["ours"])}
    for kind in LLAMA_KINDS[dtype]:
        if f"llama.cpp {kind}" in seconds:
            ratios[f"llama.cpp {kind}"] = _ratio(seconds[f"llama.cpp {kind}"], seconds[f"ours beside {kind}"])
    limit = bandwidth / bytes_read(model, PROMPT + TOKENS // 2)
    return {
        "tokens_per_second": speeds, "ratios": ratios, "bandwidth": bandwidth, "limit": limit,
        "share_of_limit": speeds["ours"] / limit,
    }  # fmt: skip


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
