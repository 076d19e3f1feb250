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
from typing import Any

from amauta.hub import find_model

ROUNDS = 3
GOALS = {"seconds": 4.0, "peak": 2.0}
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
    ours, theirs = middle["amauta"], middle["transformers"]
    return {
        "contestants": middle,
        "ratios": {key: theirs[key] / ours[key] for key in ("seconds", "loading", "peak")},
        "goals": GOALS,
        "share_of_limit": None,
    }


def amauta(path: str) -> float:
    import torch

    import amauta as package

    began = time.perf_counter()
    package.load(path).logits(torch.tensor([IDS]))
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


CONTESTANTS = {"amauta": amauta, "transformers": transformers}


def child(name: str, path: str) -> None:
    """One contestant: seconds from the process's start, seconds of loading, and peak memory in MB."""
    began = time.perf_counter()
    loading = CONTESTANTS[name](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - began, "loading": loading, "peak": peak}))


if __name__ == "__main__":
    child(*sys.argv[1:])
