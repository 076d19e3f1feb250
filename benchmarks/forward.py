"""Encoders reading 32 texts of mixed length: ours, in groups of like length, against transformers and
sentence-transformers, which pad a batch to its longest. Tokens/s of real tokens, the same weights and dtype.

BERT-base has random weights; the sentence encoder is all-MiniLM-L6-v2 (``amauta models add minilm``), tokenizing
included. Rounds alternate; a ratio is taken within each round.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from amauta.base.errors import AmautaError
from amauta.hub import find_model
from amauta.language_model import LanguageModel, load
from amauta.models import exchange
from amauta.models.sizes import named
from amauta.models.transformer import Transformer

ROWS, ROUNDS, GOAL = 32, 7, 1.5
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SENTENCES = (
    "The cat sat on the mat and looked at the rain.",
    "A model that reads short texts and long ones wastes most of its work on padding when they share a batch.",
    "Yes.",
    "In the morning the two brothers carried the wool to the market, where an old woman who had known their mother "
    "asked them what they wanted for it, and laughed at the answer until everyone around them had turned to look.",
    "Prices fell by three per cent in March, the statistics office said, after five months of steady increases.",
)


def run() -> dict[str, Any]:
    found = {}
    for dtype in DTYPES:
        found[f"bert-base {dtype}"] = bert(dtype)
        try:
            found[f"minilm {dtype}"] = minilm(dtype)
        except (AmautaError, ImportError) as error:
            found[f"minilm {dtype}"] = {"left out": str(error)}
    return {
        "contests": found,
        "ratios": {name: one["ratio"] for name, one in found.items() if "ratio" in one},
        "goal": GOAL,
        "share_of_limit": None,
    }


def bert(dtype: str) -> dict[str, Any]:
    import transformers

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 129, (ROWS,), generator=generator).tolist()
    rows = [torch.randint(1000, 30_000, (n,), generator=generator).tolist() for n in lengths]
    with tempfile.TemporaryDirectory() as folder:
        exchange.save(Transformer.create(named("bert-base"), seed=0), Path(folder))
        ours = LanguageModel(exchange.load(Path(folder), dtype=DTYPES[dtype]), None)
        theirs = transformers.AutoModel.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    ids = torch.tensor([row + [0] * (max(lengths) - len(row)) for row in rows])
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])

    @torch.inference_mode()
    def peer() -> None:
        theirs(ids, attention_mask=mask)

    return contest(lambda: ours.embed(rows, batch=ROWS), peer, sum(lengths))


def minilm(dtype: str) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    ours = load("minilm", dtype="f32" if dtype == "f32" else "bf16")
    theirs = SentenceTransformer(str(find_model("minilm").path), device="cpu", model_kwargs={"dtype": DTYPES[dtype]})
    texts = [SENTENCES[i * 7 % len(SENTENCES)] + " " + SENTENCES[i % 3] for i in range(ROWS)]
    tokens = sum(len(ours.tokenizer.around(text)[0]) for text in texts)

    def peer() -> None:
        theirs.encode(texts, batch_size=ROWS, convert_to_tensor=True, show_progress_bar=False)

    return contest(lambda: ours.embed(texts, batch=ROWS), peer, tokens)


def contest(ours: Callable[[], object], theirs: Callable[[], object], tokens: int) -> dict[str, Any]:
    """Tokens/s of both, and the ratio, by rounds that alternate."""
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for work in (ours, theirs):
        work()
    for _ in range(ROUNDS):
        for name, work in (("ours", ours), ("theirs", theirs)):
            began = time.perf_counter()
            work()
            speeds[name].append(tokens / (time.perf_counter() - began))
    return {
        "tokens": tokens,
        **{name: statistics.median(found) for name, found in speeds.items()},
        "ratio": statistics.median(a / b for a, b in zip(speeds["ours"], speeds["theirs"], strict=True)),
    }
