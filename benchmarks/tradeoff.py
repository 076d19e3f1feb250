"""What each scheme of compression costs SmolLM2-135M-Instruct and what it saves: size, KL and perplexity on prose, two
tasks, tokens/s, and the memory of a process that opens it, beside what the formula says.

Perplexity is that of English prose which no scheme saw; schemes that watch the model are shown other prose. The tasks
are BLiMP (is the good sentence of a pair the likelier one?) and ARC-Easy (is the right answer the likeliest, by the
mean log-prob of its tokens?), without examples. ``--out FOLDER`` keeps every scheme when it is measured, and the same
call goes on. ``python -m benchmarks.pages.compression`` makes the page. Needs AMAUTA_DATA and the known model smollm2.
"""

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amauta.compress.prune.run import prune
from amauta.compress.prune.settings import Prune
from amauta.compress.run import quantize
from amauta.compress.settings import Calibration, Rounding
from amauta.device import pick
from amauta.grades import wilson
from amauta.language_model import LanguageModel, load
from amauta.models.contract.figures import figures
from amauta.models.contract.probes import answers, record
from amauta.models.exchange.folder import write_model
from amauta.models.quantized import bytes_of, in_full
from amauta.models.transformer import Transformer
from amauta.score import sequence_logprobs
from amauta.yardstick.adapters.peak import peak_of
from benchmarks._kept import Kept
from benchmarks._peers import alternating
from benchmarks._tasks import SKIPPED, data, records

MODEL = "smollm2"
CALIBRATION, PROSE = "corpora/wikitext2.valid.txt", "corpora/gutenberg/en_sherlock_holmes.txt"
ROWS, LENGTH = 128, 512  # of what schemes are shown
WINDOWS = 32  # of 256 tokens, whose perplexity is taken
PAIRS, QUESTIONS = 4, 100  # of each paradigm of BLiMP, and of ARC-Easy
TOKENS, ROUNDS = 48, 3
BITS = {"f32": 32, "bf16": 16}
ROUNDED: dict[str, Rounding] = {
    "int8": Rounding(scheme="int8"),
    "LLM.int8()": Rounding(scheme="int8", outliers=6.0),
    "smoothquant": Rounding(scheme="smoothquant"),
    "int4": Rounding(scheme="int4"),
    "int4, affine": Rounding(scheme="int4", affine=True),
    "nf4": Rounding(scheme="nf4"),
    "nf4, double": Rounding(scheme="nf4", double=True),
    "awq": Rounding(scheme="awq"),
    "gptq": Rounding(scheme="gptq"),
}
# Weights of the same form that are found in no time: how they were chosen changes nothing in how fast they are.
ALIKE = {"awq": ROUNDED["int4, affine"], "gptq": ROUNDED["int4, affine"],
         "smoothquant": Rounding(scheme="int8", outliers=1e9)}  # fmt: skip
PRUNED: dict[str, dict[str, Any]] = {
    "magnitude 50 %": {"scheme": "magnitude", "ratio": 0.5},
    "wanda 50 %": {"scheme": "wanda", "ratio": 0.5},
    "sparsegpt 50 %": {"scheme": "sparsegpt", "ratio": 0.5},
}


def run(out: Path | None = None) -> dict[str, Any]:
    """``out``: a folder that keeps the parts."""
    held = data()
    if held is None:
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(out or Path(folder))
        whole = load(MODEL, dtype="f32")
        found: dict[str, Any] = {}
        for name in ("f32", "bf16", *ROUNDED, *PRUNED):
            file, asked = re.sub(r"\W+", "-", name), {"name": name, "how": told(name), **SIZES}
            found[name] = kept(file, asked, partial(quality, name, whole, held))
            if name not in PRUNED:  # weights that are only zeros gain nothing
                found[name] |= kept(f"{file}.speed", asked, partial(speed, name, whole, held))
        return {
            "model": MODEL,
            **SIZES,
            "tokens": TOKENS,
            "cores": torch.get_num_threads(),
            "schemes": found,
            "ratios": {f"{name} over bf16": one["speed"] for name, one in found.items() if "speed" in one},
            "share_of_limit": None,
            "seconds": kept.seconds,
        }


SIZES = {"calibration": [CALIBRATION, ROWS, LENGTH], "prose": [PROSE, WINDOWS], "pairs": 67 * PAIRS,
         "questions": QUESTIONS}  # fmt: skip


def told(name: str) -> dict[str, Any]:
    """What a scheme is, so that another is not taken for it."""
    return asdict(ROUNDED[name]) if name in ROUNDED else PRUNED.get(name, {})


def quality(name: str, whole: LanguageModel, held: Path) -> dict[str, Any]:
    """What it costs, and its size."""
    began = time.perf_counter()
    model, facts = made(name, whole, held)
    seconds = time.perf_counter() - began
    probes = record(whole.model, whole.tokenizer).rows
    found: dict[str, Any] = figures(answers(whole.model, probes), answers(model, probes))
    full = in_full(model).float()
    found |= {"prose": perplexity(full, whole, held), "blimp": blimp(full, whole, held), "arc": arc(full, whole, held)}
    return found | {"bytes": bytes_of(model), "formula": formula(name, whole.model), "facts": facts, "made_in": seconds}


def made(name: str, whole: LanguageModel, held: Path) -> tuple[Transformer, dict[str, Any]]:
    """The compressed model, and what the scheme says of itself."""
    if name in ROUNDED:
        return rounded(ROUNDED[name], whole, held)
    if name in PRUNED:
        settings = Prune(model=MODEL, out=Path(), calibration=shown(held), **PRUNED[name])
        return prune(whole.model, whole.tokenizer, settings, autocast=pick("cpu", "auto").autocast)
    plain = in_full(whole.model)
    return (plain.to(torch.bfloat16) if name == "bf16" else plain).eval(), {}


def rounded(how: Rounding, whole: LanguageModel, held: Path) -> tuple[Transformer, dict[str, Any]]:
    return quantize(whole.model, whole.tokenizer, how, shown(held), autocast=pick("cpu", "auto").autocast)


def shown(held: Path) -> Calibration:
    """What schemes are shown that watch the model."""
    return Calibration(text=(str(held / CALIBRATION),), rows=ROWS, length=LENGTH)


def formula(name: str, model: Transformer) -> int:
    """Bytes by parameters times bits over 8 (features row 134): what is said, without scales and tables."""
    bits = BITS.get(name, 32)
    if name in ROUNDED:
        bits = 8 if ROUNDED[name].scheme in ("int8", "smoothquant") else 4
    return sum(weight.numel() for weight in model.parameters()) * bits // 8


def logprobs(model: Transformer, rows: Sequence[Sequence[int]], loss: Sequence[Sequence[bool]] | None = None) -> Any:
    return sequence_logprobs(model, rows, loss=loss, rows=8, autocast=pick("cpu", "auto").autocast)


def perplexity(model: Transformer, whole: LanguageModel, held: Path) -> float:
    """Of windows that stand apart in the prose, each from its own first token."""
    ids = whole.tokenizer.encode((held / PROSE).read_text(encoding="utf-8"))
    step = len(ids) // WINDOWS
    windows = [ids[at : at + 256] for at in range(0, step * WINDOWS, step)]
    return math.exp(-float(logprobs(model, windows).sum()) / sum(len(window) - 1 for window in windows))


def blimp(model: Transformer, whole: LanguageModel, held: Path) -> list[float]:
    """[share, low, high]: pairs whose good sentence is the likelier one (Warstadt et al. 2020, arXiv 1912.00582)."""
    by_paradigm: dict[str, list[dict[str, Any]]] = {}
    for row in records(held / "tasks" / "blimp_100.jsonl"):
        by_paradigm.setdefault(row["uid"], []).append(row)
    pairs = [pair for rows in by_paradigm.values() for pair in rows[:PAIRS]]
    begin = [] if whole.tokenizer.begin is None else [whole.tokenizer.begin]
    sums = logprobs(
        model, [[*begin, *whole.tokenizer.encode(pair[side])] for pair in pairs for side in ("good", "bad")]
    )
    return share([bool(good > bad) for good, bad in zip(sums[::2], sums[1::2], strict=True)])


def arc(model: Transformer, whole: LanguageModel, held: Path) -> list[float]:
    """[share, low, high]: questions whose right answer is the likeliest (Clark et al. 2018, arXiv 1803.05457)."""
    rows, loss, right, counts = list[list[int]](), list[list[bool]](), list[int](), list[int]()
    for row in records(held / "tasks" / "arc-easy_train.jsonl"):
        parts = re.split(r"\s*Answer\d: ", row["instruction"].split("\n\nAnswer format")[0])
        question, choices = parts[0].partition("question: ")[2], parts[1:]
        for choice in choices:
            head = whole.tokenizer.encode(f"Question: {question}\nAnswer:")
            tail = whole.tokenizer.encode(f" {choice}")
            rows.append([*head, *tail])
            loss.append([*[False] * (len(head) - 1), *[True] * len(tail)])
        counts.append(len(choices))
        right.append(int(row["answer"].removeprefix("answer")) - 1)
        if len(right) == QUESTIONS:
            break
    means = [float(total) / sum(kept) for total, kept in zip(logprobs(model, rows, loss), loss, strict=True)]
    hits, at = list[bool](), 0
    for count, answer in zip(counts, right, strict=True):
        own = means[at : at + count]
        hits.append(own.index(max(own)) == answer)
        at += count
    return share(hits)


def share(hits: Sequence[bool]) -> list[float]:
    return [sum(hits) / len(hits), *wilson(sum(hits), len(hits))]


def speed(name: str, whole: LanguageModel, held: Path) -> dict[str, Any]:
    """Tokens/s of one text at a time, the same over bf16 in the same minutes, and the peak of memory."""
    model, _ = rounded(ALIKE[name], whole, held) if name in ALIKE else made(name, whole, held)
    prompt = torch.randint(5, 1500, (16,), generator=torch.Generator().manual_seed(0)).tolist()
    sides = {"bf16": LanguageModel(in_full(whole.model).to(torch.bfloat16).eval(), whole.tokenizer),
             name: LanguageModel(model, whole.tokenizer)}  # fmt: skip

    def write(side: LanguageModel) -> None:
        side.generate([prompt], max_tokens=TOKENS, min_tokens=TOKENS, temperature=0)

    seconds = alternating({one: partial(write, side) for one, side in sides.items()}, ROUNDS)
    ratio = statistics.median(a / b for a, b in zip(seconds["bf16"], seconds[name], strict=True))
    each = TOKENS / statistics.median(seconds[name])
    return {"tokens_per_second": each, "speed": ratio, "peak": peak(model, whole)}


def peak(model: Transformer, whole: LanguageModel) -> int:
    """Bytes that a process comes to hold when it opens the folder and writes some tokens, beyond what it held."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(model, whole.tokenizer, Path(folder))
        dtype = "bf16" if model.dtype == torch.bfloat16 else "f32"
        words = [sys.executable, "-m", "benchmarks.tradeoff", folder, dtype]
        return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def opened(folder: str, dtype: str) -> int:
    """In a process of its own: the peak of opening and writing, in bytes."""

    def work() -> None:
        load(folder, dtype=dtype).generate([list(range(20, 36))], max_tokens=16, temperature=0)  # type: ignore[arg-type]

    return peak_of(work, torch.device("cpu"))[1] or 0


if __name__ == "__main__":
    print(opened(*sys.argv[1:]))
