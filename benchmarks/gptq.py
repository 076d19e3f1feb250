"""GPTQ and AWQ of SmolLM2-135M-Instruct to 4 bits, shown 128 rows of 512 tokens: seconds, and the perplexity of prose
that they were not shown, beside rounding to the nearest number and bf16.

Groups are of 64 weights: 128 does not divide the model's width of 576. Needs AMAUTA_DATA and the known model smollm2.
"""

import time
from typing import Any

from amauta.compress.settings import Rounding
from amauta.language_model import load
from amauta.models.quantized import in_full
from benchmarks import tradeoff
from benchmarks._tasks import SKIPPED, data

GOALS = {"gptq seconds": 300, "perplexity of the best over bf16": 1.03}
WAYS = {
    "nearest": Rounding(scheme="int4", group=64),
    "nearest, affine": Rounding(scheme="int4", group=64, affine=True),
    "awq": Rounding(scheme="awq", group=64),
    "gptq": Rounding(scheme="gptq", group=64),
}


def run() -> dict[str, Any]:
    held = data()
    if held is None:
        return SKIPPED
    whole = load(tradeoff.MODEL, dtype="f32")
    model, _ = tradeoff.made("bf16", whole, held)
    base = tradeoff.perplexity(model.float(), whole, held)
    found: dict[str, dict[str, float]] = {}
    for name, how in WAYS.items():
        began = time.perf_counter()
        model, _ = tradeoff.rounded(how, whole, held)
        seconds = time.perf_counter() - began
        found[name] = {"seconds": seconds, "perplexity": tradeoff.perplexity(in_full(model).float(), whole, held)}
    return {
        "perplexity of bf16": base,
        "ways": found,
        "ratios": {f"{name} over bf16": one["perplexity"] / base for name, one in found.items()},
        "goals": GOALS,
        "share_of_limit": None,
    }
