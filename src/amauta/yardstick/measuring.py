"""What a system pays for held-out text, and which of two texts it prefers.

Not every family has the same thing to give, so each figure has its own name and is given only where it is exact:

- ``bits_per_byte``: of whole documents, their ends included: the n-gram model and the decoder.
- ``continuation``: bits per byte of the second half of a document's tokens when the first half is known: the same two,
  and the encoder-decoder, which reads the first half in its encoder and writes the second. That it can it owes to the
  end of its training, where it learns to go on from a prefix (Lester, Al-Rfou and Constant 2021, arXiv 2104.08691):
  restoring spans alone defines no probability of a text. The end of the document is not counted.
- ``pseudo``: the encoder's pseudo-log-likelihood in bits per byte (Salazar et al. 2020, arXiv 1910.14659). Every token
  is guessed from both sides, so that it is no probability of the text and compares with none of the others.

A minimal pair is preferred by the log-probability of each whole text; by the encoder's pseudo-log-likelihood; by the
encoder-decoder's log-probability of what follows the tokens that both begin with, which decides as the whole would.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amauta.bits import measure
from amauta.data.buckets import Laid, batch_of
from amauta.data.read import read
from amauta.data.records import text_of
from amauta.device import Device
from amauta.evaluate.ngram import measured
from amauta.hub import find_model
from amauta.models.exchange.opening import read_weights
from amauta.models.ngram import NGram
from amauta.models.transformer import Transformer
from amauta.score import pseudo_logprobs, sequence_logprobs
from amauta.tokenize.either import scored
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.finetune.steps import written_logprobs
from amauta.train.loop import share_totals
from amauta.yardstick.ground import Ground, Pair
from amauta.yardstick.settings import Yardstick

ROWS = 32  # computed at a time
Half = tuple[list[int], list[int]]


class Neural:
    """A pretrained model of any family as it is measured."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, device: Device) -> None:
        self.model, self.tokenizer, self.device, self.kind = model.eval(), tokenizer, device, model.spec.kind

    def documents(self, texts: Sequence[tuple[str, float | None]], pseudo: int) -> dict[str, float]:
        """Bits per byte of whole documents, or what an encoder has instead, of the first ``pseudo`` of them."""
        if self.kind == "decoder":
            return _kept(measure(self.sums, [(*scored(self.tokenizer, text), exact) for text, exact in texts]))
        if self.kind == "encoder":
            some = [text for text, _ in texts[:pseudo]]
            bits = -float(self.pseudo(some).sum()) / math.log(2)
            return {"pseudo": bits / sum(len(text.encode()) for text in some)}
        return {}

    def sums(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        return sequence_logprobs(self.model, sequences, rows=ROWS, autocast=self.device.autocast).tolist()

    def pseudo(self, texts: Sequence[str]) -> np.ndarray:
        """Pseudo-log-likelihood of each text (nats), as much of it as fits a row."""
        longest = self.model.spec.context
        rows = [self.tokenizer.around(text, longest=longest)[0] for text in texts]
        (mask,) = (id for id, name in self.tokenizer.names.items() if name == "[MASK]")
        return pseudo_logprobs(self.model, rows, mask, special=self.tokenizer.special, rows=2 * ROWS,
                               autocast=self.device.autocast)  # fmt: skip

    def halves(self, halves: Sequence[Half]) -> np.ndarray | None:
        """Log-probability of each second half given the first (nats), (N,); None for an encoder."""
        if self.kind == "encoder":
            return None
        if self.kind == "encoder-decoder":
            return self.written(halves)
        begin = self.tokenizer.begin
        wanted = [[False] * len(first) + [True] * len(second) for first, second in halves]
        return sequence_logprobs(self.model, [[begin, *first, *second] for first, second in halves], loss=wanted,
                                 rows=ROWS, autocast=self.device.autocast)  # fmt: skip

    @torch.inference_mode()
    def written(self, halves: Sequence[Half]) -> np.ndarray:
        """Log-probability of writing the second part after reading the first (nats), (N,)."""
        found = np.zeros(len(halves))
        order = sorted(range(len(halves)), key=lambda n: len(halves[n][1]))
        for at in range(0, len(order), ROWS):
            part = order[at : at + ROWS]
            reads = [[*halves[n][0], self.tokenizer.end] for n in part]
            laid = [Laid([row], [[0] * len(row)], written=halves[n][1]) for row, n in zip(reads, part, strict=True)]
            batch: Any = batch_of(laid, start=self.model.spec.decoder_start)
            share_totals([batch])
            with self.device.context():
                found[part] = written_logprobs(self.model, batch.to(self.device.device), self.device)
        return found

    def preferred(self, pairs: Sequence[Pair]) -> float:
        """The share of pairs whose better text is the likelier one; equal is wrong."""
        if self.kind == "encoder":
            values = self.pseudo([text for pair in pairs for text in pair]).reshape(-1, 2)
        elif self.kind == "decoder":
            rows = [self.tokenizer.document(text) for pair in pairs for text in pair]
            values = np.array(self.sums(rows)).reshape(-1, 2)
        else:
            values = self.written([half for pair in pairs for half in parted(self.tokenizer, pair)]).reshape(-1, 2)
        return float((values[:, 0] > values[:, 1]).mean())


class Counted:
    """An n-gram model as it is measured."""

    def __init__(self, model: NGram) -> None:
        self.model, self.tokenizer = model, model.tokenizer

    def documents(self, texts: Sequence[tuple[str, float | None]], pseudo: int) -> dict[str, float]:
        return _kept(measured(self.model, texts))

    def halves(self, halves: Sequence[Half]) -> np.ndarray:
        begin = self.tokenizer.begin
        return np.array([self.model.score([begin, *first, *second])[-len(second) :].sum() for first, second in halves])

    def preferred(self, pairs: Sequence[Pair]) -> float:
        rows = [self.tokenizer.document(text) for pair in pairs for text in pair]
        values = self.model.score_many(rows).reshape(-1, 2)
        return float((values[:, 0] > values[:, 1]).mean())


def opened(folder: Path, ground: Ground, device: Device) -> Neural:
    """A pretrained model, ready to be measured."""
    tokenizer = ground.opened()
    return Neural(read_weights(find_model(str(folder)), tokenizer, device=device.device), tokenizer, device)


def figures(system: Neural | Counted, settings: Yardstick, ground: Ground) -> dict[str, Any]:
    """All that is measured of one system without training it further."""
    rows = [(text, row.value.get("logprob")) for row, text in read([str(ground.heldout)]).each(text_of)]
    found: dict[str, Any] = system.documents(rows, settings.pseudo)
    halves, size = halved(ground.opened(), [text for text, _ in rows], settings.length)
    sums = system.halves(halves)
    if sums is not None:
        found["continuation"] = -float(sums.sum()) / math.log(2) / size
    found["probes"] = {name: system.preferred(ground.pairs(name)) for name in ground.facts()["probes"]}
    return found


def halved(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> tuple[list[Half], int]:
    """The first ``longest`` tokens of each text in two halves, and the bytes of all second halves together; texts of
    fewer than four tokens are left out."""
    halves: list[Half] = []
    for text in texts:
        ids = tokenizer.encode(text)[:longest]
        if len(ids) >= 4:
            halves.append((ids[: len(ids) // 2], ids[len(ids) // 2 :]))
    return halves, sum(len(tokenizer.token_bytes(id)) for _, second in halves for id in second)


def parted(tokenizer: Tokenizer, pair: Pair) -> tuple[Half, Half]:
    """Both texts of a pair, each parted where they begin to differ; at least one token is left to be written."""
    one, other = (tokenizer.encode(text) for text in pair)
    most = min(len(one), len(other)) - 1
    at = next((i for i in range(most) if one[i] != other[i]), most)
    return (one[:at], one[at:]), (other[:at], other[at:])


def _kept(found: dict[str, Any]) -> dict[str, float]:
    names = ("bits_per_byte", "entropy_bits_per_byte")
    return {name: found[name] for name in names if found.get(name) is not None}
