"""Time and memory of long texts: a Reformer's layers (LSH, reversible) against full attention, forward and backward.

Each point is a process of its own: two layers of width 64 over one text, a short pass to warm up,
then forward and backward at the length asked for. Seconds are of that pass; memory is the process's peak above what it
held before. ``fused`` is our own stack, whose attention never holds the T x T scores; ``matrix`` is the same attention
by its definition, which holds them, as most of the older code does. A slope is that of a straight line through the
logarithms of the lengths from ``FROM`` on: 1 is linear, 2 is quadratic. A length that a budget or the memory does not
allow is named as such. ``--budget`` sets the seconds (240 when left out).
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTHS = tuple(1024 * 2**i for i in range(6))  # 1k to 32k
FROM = 4096  # below it, constant costs bend the line
CONTESTANTS = ("reformer", "fused", "matrix")
WIDTH, HEADS, LAYERS, VOCABULARY = 64, 2, 2, 256
WARM = 256  # tokens of the first pass, which is not measured
START = 5.0  # seconds that a process takes to begin
MARGIN = 2 << 30  # bytes of memory that are left to others


def run(budget: float = 240.0, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    """``points[contestant][length]`` with seconds and MiB, or the reason why there is none; slopes; ratios.

    ``ratios`` are theirs over the Reformer's seconds (and MiB) at the longest length that both reached.
    """
    ends = time.perf_counter() + budget
    points: dict[str, dict[int, Any]] = {name: {} for name in CONTESTANTS}
    for length in lengths:  # by length, so that a short budget still compares
        for name in CONTESTANTS:
            points[name][length] = _point(name, length, points[name], ends - time.perf_counter())
    slopes = {name: {kind: _slope(found, kind) for kind in ("seconds", "mib")} for name, found in points.items()}
    return {
        "points": points,
        "slopes": slopes,
        "ratios": _ratios(points),
        "share_of_limit": None,
    }


def _point(name: str, length: int, before: dict[int, Any], left: float) -> dict[str, float] | str:
    """One measurement in a process of its own, or why there is none."""
    last = max(before, default=0)
    if last and isinstance(before[last], str):
        return before[last]  # longer is no easier
    expected = START + (before[last]["seconds"] * (length / last) ** 2 if last else 0.0)
    if expected > left:
        return "beyond the time budget"
    command = [sys.executable, "-m", "benchmarks.reformer", name, str(length)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(left, 1.0))
    except subprocess.TimeoutExpired:
        return "beyond the time budget"
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode == -9 or "alloc" in done.stderr or "MemoryError" in done.stderr:
        return "beyond the memory"
    raise RuntimeError(done.stderr)


def _slope(found: dict[int, Any], kind: str) -> float | None:
    """The least-squares slope of log(value) over log(length); None with fewer than two lengths."""
    reached = [(math.log(n), math.log(p[kind])) for n, p in found.items() if not isinstance(p, str) and n >= FROM]
    if len(reached) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(reached) for values in zip(*reached, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in reached)
    return above / sum((x - mean_x) ** 2 for x, _ in reached)


def _ratios(points: dict[str, dict[int, Any]]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for name in CONTESTANTS[1:]:
        both = [n for n in points[name] if not any(isinstance(points[one][n], str) for one in (name, "reformer"))]
        for kind in ("seconds", "mib") if both else ():
            n = max(both)
            ratios[f"{name} {kind} at {n}"] = points[name][n][kind] / points["reformer"][n][kind]
    return ratios


def measured(name: str, length: int) -> dict[str, float]:
    """Seconds and MiB of one forward and backward pass, in this process."""
    import torch

    step = contestant(name, length)
    step(WARM)
    _limit_memory()
    before = _peak()
    began = time.perf_counter()
    step(length)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "mib": max(_peak() - before, 1) / 2**20, "threads": torch.get_num_threads()}


def contestant(name: str, length: int) -> Callable[[int], None]:
    """A function that runs forward and backward over a random text of so many tokens."""
    import torch

    from amauta.models.spec import Reformer, Spec
    from amauta.models.transformer import Transformer

    shape: dict[str, Any] = {
        "vocabulary": VOCABULARY, "context": length, "width": WIDTH, "layers": LAYERS, "heads": HEADS,
        "positions": "learned", "norm": "layer", "activation": "relu", "gated": False, "bias": True, "qkv_bias": False,
    }  # fmt: skip
    if name == "reformer":
        shape |= {"tied": False, "reformer": Reformer(layers=("lsh",) * LAYERS)}
    model = Transformer.create(Spec(**shape), seed=0).train()
    if name == "matrix":
        from amauta.nn import attention

        attention.attend = lambda *given: attention.attend_by_definition(*given[:5])[0]  # all but dropout

    def step(tokens: int) -> None:
        ids = torch.randint(0, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(0))
        model(ids).square().mean().backward()
        model.zero_grad()

    return step


def _peak() -> int:
    """Bytes of memory that this process held at most: VmHWM on Linux, since ru_maxrss counts its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _limit_memory() -> None:
    """On Linux: an allocation beyond what is free fails here instead of stopping the whole machine."""
    memory = Path("/proc/meminfo")
    if memory.exists():
        lines = dict(line.split(":") for line in memory.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = held + max(free - MARGIN, 1 << 28)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("length", type=int)
    given = parser.parse_args()
    print(json.dumps(measured(given.name, given.length)))
