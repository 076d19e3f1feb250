"""Masked-LM tokens/s of a 12M encoder, against transformers' BertForMaskedLM with its collator and AdamW.

Both train the same shape, without dropout, on the same documents, of real lengths (``documents``) and of full rows
(``rows``), in f32 and under bf16 autocast; making the batches is part of the step. The peer pads each batch to its
longest document; ours packs documents, computes logits at the masked places alone and is compiled, as
``amauta pretrain --as roberta`` runs it. Tokens are real ones, padding is not counted. Rounds alternate, and a ratio is
taken within each round.

``span_corruption`` is the share of a T5 step of that size that making its batch from a packed stream takes.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from typing import Any

import numpy as np
import torch

from amauta.data.batches import PackedBatches
from amauta.data.objective import Objective
from amauta.data.store import TokenStore
from amauta.device import Device, matmul_peak, pick
from amauta.models.count import parameters
from amauta.models.spec import Shape
from amauta.models.transformer import Transformer
from amauta.optim.groups import Optimizers
from amauta.optim.settings import Optim
from amauta.tokenize.special import FOR
from amauta.tokenize.train import train_bpe
from amauta.train.loop import share_totals
from amauta.train.manners import Manner, preset, spec_as
from amauta.train.material import corrupted, laid_out, text_store

VOCABULARY, ROWS, LENGTH = 4096, 16, 256
ROUNDS, STEPS = 5, 2
OPTIM = Optim(optimizer="adamw", lr=1e-3)


class Plain:
    """The least of a tokenizer that an objective asks for: ids, of which the first hundred and eight are special."""

    def __init__(self) -> None:
        made = train_bpe(["a b"] * 9, 400, allow_smaller=True, reserve=[*FOR["t5"], *FOR["bert"]])
        self.inner, self.names, self.special = made, made.names, made.special
        self.begin, self.end, self.pad, self.edges = made.begin, made.end, made.pad, made.edges
        self.size, self.fingerprint = VOCABULARY, ""

    def token_bytes(self, id: int) -> bytes:
        return b"" if id in self.special else b" a"


def run() -> dict[str, Any]:
    native = pick("cpu", "auto")
    kinds = {"f32": pick("cpu", "f32")} | ({"bf16": native} if native.autocast else {})
    tokenizer: Any = Plain()
    texts = {"rows": full_rows(), "documents": documents()}
    speeds: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    shares: dict[str, float] = {}
    size = 0
    for kind, device in kinds.items():
        ours = Ours("roberta", tokenizer, device)
        theirs = peer(tokenizer, device)
        size = parameters(ours.spec)
        for name, each in texts.items():
            stream = ours.stream(text_store(each, [0] * len(each), tokenizer))
            contestants = {"amauta": partial(ours.step, stream), "transformers": theirs(each)}
            found = alternate(contestants)
            speeds |= {f"{who} {name} {kind}": speed for who, speed in found.items()}
            ratios[f"{name} {kind}"] = statistics.median(map(truediv, *found.values()))
            peak = matmul_peak("cpu", device.autocast or torch.float32)
            shares[f"{name} {kind}"] = statistics.median(found["amauta"]) * ours.flops_per_token / peak
    return {
        "parameters": size,
        "tokens_per_second": {name: statistics.median(found) for name, found in speeds.items()},
        "ratios": ratios,
        "share_of_limit": shares,
        "span_corruption": span_corruption(tokenizer, native),
        "threads": torch.get_num_threads(),
    }


def full_rows(count: int = 256) -> list[np.ndarray]:
    return [ids_of(LENGTH - 2, seed) for seed in range(count)]


def documents(count: int = 512) -> list[np.ndarray]:
    """Documents whose lengths spread as those of short prose do: half of them below 90 tokens, the longest a row."""
    lengths = np.random.default_rng(0).lognormal(np.log(90), 0.7, count).clip(16, LENGTH - 2).astype(int)
    return [ids_of(int(length), seed) for seed, length in enumerate(lengths)]


def ids_of(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(400, VOCABULARY, length)


def shaped(manner: Manner, tokenizer: Any) -> tuple[Any, Objective]:
    values = preset(manner, "mini")
    shape = Shape(**values["shape"] | {"dropout": 0.0, "context": LENGTH})
    objective = Objective(**values["objective"])
    spec = spec_as(manner, "mini", shape, objective, vocabulary=VOCABULARY, pad=tokenizer.pad, end=tokenizer.end)
    return spec, objective


class Ours:
    """Our model with its step, as the loop makes it."""

    def __init__(self, manner: Manner, tokenizer: Any, device: Device) -> None:
        self.spec, self.objective = shaped(manner, tokenizer)
        self.tokenizer, self.device = tokenizer, device
        model = Transformer.create(self.spec, seed=0)
        made = corrupted(
            self.objective, model, tokenizer, text_store([ids_of(4 * LENGTH, 0)], [0], tokenizer), None,
            length=LENGTH, rows=ROWS, seed=0, device=device, compiled=True,
        )  # fmt: skip
        self.make, self.flops_per_token = made.step, made.flops_per_token
        self.optimizers = Optimizers(model, OPTIM, splits=model.packed_rows())
        self.compiled = model.compiled()

    def stream(self, store: TokenStore) -> PackedBatches:
        laid = laid_out(self.objective, store, self.tokenizer, self.spec, LENGTH, 0)
        return PackedBatches(laid.units, rows=ROWS, length=LENGTH, collate=laid.collate)

    def step(self, stream: PackedBatches) -> int:
        """One step; the number of tokens in it."""
        batch = next(stream)
        totals = share_totals([batch])
        with self.device.context():
            total, n, _ = self.make(self.compiled, batch)
        total.backward()
        torch._foreach_mul_([p.grad for p in self.optimizers.parameters if p.grad is not None], 1 / n)
        torch.nn.utils.clip_grad_norm_(self.optimizers.parameters, 1.0)
        self.optimizers.step(1.0)
        return totals["tokens"]


def peer(tokenizer: Any, device: Device) -> Callable[[list[np.ndarray]], Callable[[], int]]:
    """The loop that a user writes over transformers: documents to the step that trains on them."""
    import transformers

    spec, _ = shaped("roberta", tokenizer)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=spec.width, num_hidden_layers=spec.layers, num_attention_heads=spec.heads,
        intermediate_size=spec.inner, max_position_embeddings=LENGTH, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pad_token_id=tokenizer.pad,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.inner.inner, pad_token="<|pad|>", mask_token="[MASK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
    collate = transformers.DataCollatorForLanguageModeling(theirs, mlm_probability=0.15)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    first, last = tokenizer.edges

    def on(texts: list[np.ndarray]) -> Callable[[], int]:
        rows = [{"input_ids": [first, *ids.tolist(), last]} for ids in texts]
        generator = np.random.default_rng(0)

        def one() -> int:
            batch = collate([rows[i] for i in generator.permutation(len(rows))[:ROWS]])
            with torch.autocast("cpu", dtype=device.autocast or torch.bfloat16, enabled=device.autocast is not None):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return int(batch["attention_mask"].sum())

        return one

    return on


def alternate(contestants: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Tokens/s of each in every round."""
    for step in contestants.values():  # compile, allocate, warm the caches
        step()
        step()
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, step in contestants.items():
            began = time.perf_counter()
            tokens = sum(step() for _ in range(STEPS))
            found[name].append(tokens / (time.perf_counter() - began))
    return found


def span_corruption(tokenizer: Any, device: Device) -> dict[str, float]:
    """Milliseconds of a batch of a packed stream and of the step that it feeds, and the first's share of both."""
    ours = Ours("t5.1.1", tokenizer, device)
    stream = ours.stream(text_store([ids_of(200_000, 0)], [0], tokenizer))

    def seconds(work: Callable[[], Any], count: int) -> float:
        work()
        work()
        times: list[float] = []
        for _ in range(count):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    batch, whole = seconds(lambda: next(stream), 20), seconds(partial(ours.step, stream), 5)
    return {"batch_ms": batch * 1e3, "step_ms": whole * 1e3, "data_wait": batch / whole}
