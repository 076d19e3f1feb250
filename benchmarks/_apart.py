"""Contestants in processes of their own, so that each one's peak of memory is its own, taking turns on SmolLM2."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Contestant = Callable[[str, str], dict[str, float]]  # (folder of the model, f32 or bf16) -> its figures
VOCABULARY = 49_152


def compared(benchmark: str, contestants: Iterable[str], goals: Mapping[str, float], rounds: int) -> dict[str, Any]:
    """Medians of every contestant of ``benchmarks.BENCHMARK`` in each type, and ours over the others' by the goals."""
    from amauta.device import pick

    kinds = ["f32", *(["bf16"] if pick("cpu", "auto").autocast else [])]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        found = {kind: _contest(benchmark, list(contestants), rounds, folder, kind) for kind in kinds}
    return {
        "contestants": found,
        "ratios": {
            f"{kind} {name} {figure}": of["amauta"][figure] / of[name][figure]
            for kind, of in found.items()
            for name in of
            if name != "amauta"
            for figure in goals
        },
        "goals": dict(goals),
        "share_of_limit": {kind: of["amauta"]["share_of_peak"] for kind, of in found.items()},
    }


def write(folder: Path) -> None:
    """The model as a folder that all open."""
    from amauta.hub import find_model
    from amauta.models import exchange
    from amauta.models.exchange.opening import read_weights

    exchange.save(read_weights(find_model("smollm2"), None), folder)


def _contest(benchmark: str, names: list[str], rounds: int, folder: str, kind: str) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            words = [sys.executable, "-m", f"benchmarks.{benchmark}", name, folder, kind]
            said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(said.splitlines()[-1]))
    return {
        name: {figure: statistics.median(one[figure] for one in runs) for figure in runs[0]}
        for name, runs in found.items()
    }


def child(contestants: Mapping[str, Contestant], name: str, folder: str, kind: str) -> None:
    """One contestant: its figures, and by how much its process grew, in MB (its parent's memory is no part of that)."""
    import torch

    from amauta.yardstick.adapters.peak import peak_of

    found, peak = peak_of(lambda: contestants[name](folder, kind), torch.device("cpu"))
    print(json.dumps(found | {"peak": (peak or 0) / 2**20}))
