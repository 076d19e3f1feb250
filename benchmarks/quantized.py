"""One text at a time, greedy, with weights of 8 and 4 bits: tokens/s against our own bf16, and against llama.cpp at
Q8_0 and Q4_0 on the same weights; SmolLM2-135M-Instruct, and random weights in the shape of Qwen2.5-0.5B.

Weights are rounded to the nearest: how they were chosen changes nothing here. The limit is memory: weights and cache
read once a token over the bandwidth measured in the same run. llama.cpp is left out unless AMAUTA_LLAMA_CPP names a
Python that has llama-cpp-python. Contestants alternate.
"""

import statistics
from typing import Any

import torch

from amauta.compress.run import quantize
from amauta.compress.settings import Calibration, Rounding
from amauta.device import memory_bandwidth
from amauta.language_model import LanguageModel, load
from amauta.models.quantized import bytes_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from benchmarks._peers import alternating, llama_cpp

PROMPT, TOKENS, ROUNDS = 16, 48, 7
GOALS = {"int8 over bf16": 1.5, "int4 over bf16": 2.2, "over llama.cpp": 0.8}
SCHEMES = {"int8": Rounding(scheme="int8"), "int4": Rounding(scheme="int4"), "nf4": Rounding(scheme="nf4")}
PEERS = {"int8": "q8_0", "int4": "q4_0"}
QWEN = Spec(
    vocabulary=151_936, context=4096, width=896, layers=24, heads=14, kv_heads=2, feedforward=4864, qkv_bias=True,
    rope_theta=1_000_000.0, norm_eps=1e-6,
)  # fmt: skip


def run() -> dict[str, Any]:
    found = {name: contest(name) for name in ("smollm2", "0.5B")}
    return {
        "contests": found,
        "ratios": {f"{name} {ratio}": value for name, one in found.items() for ratio, value in one["ratios"].items()},
        "goals": GOALS,
        "share_of_limit": {name: one["share_of_limit"] for name, one in found.items()},
    }


def contest(name: str) -> dict[str, Any]:
    whole = load("smollm2", dtype="f32")
    if name != "smollm2":  # its tokenizer is never asked: prompts are ids
        whole = LanguageModel(Transformer.create(QWEN, 0).eval(), whole.tokenizer)
    models = {"bf16": _other(whole, _bf16(whole.model))}
    models |= {scheme: _other(whole, quantize(whole.model, None, how, Calibration())[0])
               for scheme, how in SCHEMES.items()}  # fmt: skip
    prompt = torch.randint(5, 1500, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()

    def write(model: LanguageModel) -> None:
        model.generate([prompt], max_tokens=TOKENS, min_tokens=TOKENS, temperature=0)

    seconds = alternating({one: lambda model=model: write(model) for one, model in models.items()}, ROUNDS)
    bandwidth = max(memory_bandwidth() for _ in range(3))
    ratios = {f"{scheme} over bf16": _ratio(seconds["bf16"], seconds[scheme]) for scheme in SCHEMES}
    for scheme, kind in PEERS.items():
        with llama_cpp(whole, kind) as work:
            if work is None:
                continue
            both = alternating(
                {"ours": lambda scheme=scheme: write(models[scheme]), kind: lambda work=work: work(prompt, TOKENS)},
                ROUNDS,
            )
            seconds |= {f"llama.cpp {kind}": both[kind], f"{scheme} beside {kind}": both["ours"]}
            ratios[f"{scheme} over llama.cpp {kind}"] = _ratio(both[kind], both["ours"])
    read = {one: bytes_of(model.model) for one, model in models.items()}
    speeds = {one: TOKENS / statistics.median(times) for one, times in seconds.items()}
    return {
        "tokens_per_second": speeds, "ratios": ratios, "bytes": read, "bandwidth": bandwidth,
        "share_of_limit": {one: speeds[one] * read[one] / bandwidth for one in models},
    }  # fmt: skip


def _bf16(model: Transformer) -> Transformer:
    made = Transformer(model.spec)
    made.load_state_dict(model.state_dict())
    return made.to(torch.bfloat16).eval()


def _other(whole: LanguageModel, model: Transformer) -> LanguageModel:
    return LanguageModel(model, whole.tokenizer)


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
