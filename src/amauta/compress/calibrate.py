"""The tokens that a model is watched on while it is compressed: chosen from documents, or written by the model itself.

What was taken is recorded by content: the files' SHA-256 and that of the ids.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ConfigError, DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.compress.settings import Calibration
from amauta.data.read import expand, read
from amauta.data.records import text_of
from amauta.metrics import console
from amauta.models.transformer import Transformer
from amauta.runs import digest
from amauta.tokenize.either import AnyTokenizer, documents

OF_TEXT, OF_ITS_OWN = 128, 32  # rows where nothing is said


def calibration(
    model: Transformer, tokenizer: AnyTokenizer | None, settings: Calibration
) -> tuple[list[Tensor], dict[str, Any]]:
    """The rows of ids, (T,) each, and what is recorded of them: {"from", "rows", "length", "tokens", "sha256"}.

    Raises DataError: the documents have fewer tokens than were asked for; ConfigError: no documents for a model that
    cannot write any itself, or documents without a tokenizer.
    """
    length = min(settings.length, model.spec.context if model.spec.limit is None else model.spec.limit)
    if settings.text:
        if tokenizer is None:
            raise ConfigError("compress.no-tokenizer")
        rows, source = _of_text(tokenizer, settings, length), _files(settings.text)
    else:
        begin = None if tokenizer is None else tokenizer.begin if tokenizer.begin is not None else tokenizer.end
        if begin is None or not model.writes or model.encoder is not None or not model.caches:
            raise ConfigError("compress.needs-text", kind=model.spec.kind)
        console.print(say("compress.writes-itself"), markup=False, soft_wrap=True)
        rows = list(written(model, begin, settings.rows or OF_ITS_OWN, length, settings.seed))
        source = "itself"
    held = np.concatenate([row.numpy() for row in rows]).astype(np.int64)
    facts = {"from": source, "rows": len(rows), "length": length, "tokens": len(held)}
    return rows, {**facts, "sha256": hashlib.sha256(held.tobytes()).hexdigest()}


def _of_text(tokenizer: AnyTokenizer, settings: Calibration, length: int) -> list[Tensor]:
    """Rows of ``length`` ids, cut from all documents one after another; which of them, the seed says."""
    texts = [text for _, text in read(settings.text).each(text_of)]
    ids = np.concatenate([np.asarray(one, dtype=np.int64) for one in documents(tokenizer, texts)])
    wanted, whole = settings.rows or OF_TEXT, len(ids) // length
    if whole < wanted:
        raise DataError("compress.short-text", tokens=len(ids), wanted=wanted * length, rows=wanted, length=length,
                        whole=whole)  # fmt: skip
    order = np.random.default_rng(derive(settings.seed, "calibration")).permutation(whole)[:wanted]
    return [torch.from_numpy(ids[at * length : (at + 1) * length]) for at in sorted(order.tolist())]


def _files(patterns: tuple[str, ...]) -> dict[str, str]:
    return {str(file): digest(file) for file in expand(patterns)}


@torch.inference_mode()
def written(model: Transformer, begin: int, rows: int, length: int, seed: int) -> Tensor:
    """What a decoder writes at temperature 1 after ``begin``, its end being no reason to stop: (rows, length)."""
    generator, was_training = torch.Generator().manual_seed(derive(seed, "calibration")), model.training
    model.eval()
    cache = model.new_cache(rows, length)
    ids = torch.full((rows, length), begin)
    for at in range(length - 1):
        places = torch.full((rows, 1), at, device=model.device)
        states = model(ids[:, at : at + 1].to(model.device), positions=places, cache=cache)[:, -1]
        chances = model.logits(states).float().softmax(-1).cpu()
        ids[:, at + 1] = torch.multinomial(chances, 1, generator=generator)[:, 0]
        cache.lengths += 1
    model.train(was_training)
    return ids
