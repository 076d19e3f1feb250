"""SmolLM2-135M from its GGUF file to the first token, against transformers: seconds and peak memory.

Each contestant is a process of its own, from its start (imports included) to the logits of one prompt, so that the peak
is its own too; they alternate. The file is the one that ``amauta models add smollm2`` installs.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

from amauta.device import NumberType
from amauta.hub import find_model

ROUNDS = 3
GOALS = {"seconds": 4.0, "peak": 2.0}  # f32 weights alone are nearly half of transformers' peak
IDS = [1, 9690, 198, 2683, 359]


def run() -> dict[str, Any]:
    path = str(find_model("smollm2").path)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(ROUNDS):
        for name in CONTESTANTS:
            words = [sys.executable, "-m", "benchmarks.load", name, path]
            found[name].append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    middle = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()
    }
    theirs = middle.pop("transformers")
    return {
        "contestants": middle | {"transformers": theirs},
        "ratios": {
            f"{name} {key}": theirs[key] / ours[key]
            for name, ours in middle.items()
            for key in ("seconds", "loading", "peak")
        },
        "goals": GOALS,
        "share_of_limit": None,
    }


def amauta(path: str, dtype: NumberType = "f32") -> float:
    import torch

    import amauta as package

    began = time.perf_counter()
    package.load(path, dtype=dtype).logits(torch.tensor([IDS]))
    return time.perf_counter() - began


def transformers(path: str) -> float:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    began = time.perf_counter()
    folder, _, file = path.rpartition("/")
    AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    with torch.inference_mode():
        model(torch.tensor([IDS]))
    return time.perf_counter() - began


CONTESTANTS = {"amauta": amauta, "amauta bf16": partial(amauta, dtype="bf16"), "transformers": transformers}


def child(name: str, path: str) -> None:
    """One contestant: seconds from the process's start, seconds of loading, and peak memory in MB."""
    began = time.perf_counter()
    loading = CONTESTANTS[name](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "loading": loading, "peak": peak}))


if __name__ == "__main__":
    child(*sys.argv[1:])
