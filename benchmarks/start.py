"""Cold starts: ``amauta --help``, and ``amauta generate`` of a demo-sized model to its first token."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from amauta.models import exchange
from amauta.models.sizes import named
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe

GOALS = {"help": 0.5, "first_token": 3.0}  # seconds
RUNS = 5


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_bpe(["a small text to make a tokenizer of"], 264, allow_smaller=True)
        tokenizer.save(Path(folder))
        exchange.save(Transformer.create(named("demo", vocabulary=2048), seed=0), Path(folder))
        generate = ["generate", "--model", folder, "--prompt", "a small", "--max-tokens", "1", "--temperature", "0"]
        commands = {"help": ["--help"], "first_token": generate}
        seconds = {name: statistics.median(timed(flags) for _ in range(RUNS)) for name, flags in commands.items()}
    return {"seconds": seconds, "ratios": {name: GOALS[name] / value for name, value in seconds.items()},
            "share_of_limit": None}  # fmt: skip


def timed(flags: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "amauta", *flags], check=True, capture_output=True)
    return time.perf_counter() - began
