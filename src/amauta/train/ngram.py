"""From text to an n-gram model: ids, counts, probabilities."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import ConfigError, DataError
from amauta.data.blobs import Blobs
from amauta.models.exchange.opening import tokenizer_called
from amauta.models.ngram import NGram
from amauta.models.ngram.framed import framed
from amauta.models.ngram.room import Growing, memory_of_machine
from amauta.models.ngram.vocabulary import Learner
from amauta.models.ngram_settings import TrainNgram

BLOCK = 1 << 20  # ids changed at a time
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)B?", re.IGNORECASE)
_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Trained:
    """A model, and what was met on the way to it."""

    model: NGram
    documents: int
    tokens: int  # predicted ones: the ends counted, the beginnings not
    empty: int  # documents without a word
    marks: int  # words that read like a mark and were left out
    skipped: int  # malformed rows


def train_ngram(settings: TrainNgram) -> Trained:
    """Train on the files of the settings. Raises ConfigError, DataError, ModelError."""
    memory = memory_of_machine() if settings.memory is None else memory_of(settings.memory)
    by_line = settings.document == "line" or (settings.document == "auto" and settings.tokenizer is None)
    texts = Blobs(settings.text, by_line=by_line, may_skip=settings.may_skip)
    folder = settings.out.parent if settings.out else None
    growing = Growing(memory and memory // 8, folder if folder and folder.is_dir() else None)
    learner: Learner | None = None
    if settings.tokenizer is None:
        learner = Learner(settings.unit, open=not settings.closed, skip_marks=settings.marks == "skip")
        for blob in texts:
            growing.append(learner.add(blob))
        tokenizer, new = learner.finish()
        stream = growing.whole()
        for start in range(0, len(stream), BLOCK):
            stream[start : start + BLOCK] = new[stream[start : start + BLOCK]]
    else:
        tokenizer = framed(tokenizer_called(settings.tokenizer))
        for ids in _tokenized(tokenizer, texts):
            growing.append(ids)
        stream = growing.whole()
    if not len(stream):
        raise DataError("ngram.nothing-to-count")
    stream, empty = _without_empty(stream, tokenizer.begin, skip=settings.empty == "skip")
    model = NGram.of_stream(
        stream, size=tokenizer.size, begin=tokenizer.begin, order=settings.order, estimator=settings.estimator,
        tokenizer=tokenizer, memory=memory, folder=growing.folder,
    )  # fmt: skip
    documents = int(np.count_nonzero(stream == tokenizer.begin))
    marks = learner.skipped if learner else 0
    return Trained(model, documents, len(stream) - documents, empty, marks, texts.skipped)


def memory_of(text: str) -> int:
    """``500M`` or ``2G`` in bytes (1024 to a K); ConfigError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise ConfigError("ngram.bad-memory", given=text)
    return max(1, int(float(found[1]) * _FACTOR[found[2].upper()]))


def _tokenized(tokenizer: Any, texts: Iterable[bytes]) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
    for blob in texts:
        rows = tokenizer.encode_many(blob.decode().split("\0")[:-1])
        yield np.array([id for row in rows for id in (tokenizer.begin, *row, tokenizer.end)], np.int32)


def _without_empty(stream: Any, begin: int, *, skip: bool) -> tuple[Any, int]:
    """The stream, with ``skip`` without the documents ``[begin, end]``, and how many of these it had."""
    begins = np.append(np.flatnonzero(stream == begin), len(stream))
    empty = begins[:-1][np.diff(begins) == 2]
    if skip and len(empty):
        stream = np.delete(stream, np.concatenate([empty, empty + 1]))
    return stream, len(empty)


def check_targets(out: Path | None, arpa: Path | None) -> None:
    """ConfigError when there is nowhere to write to, ModelError when another thing stands there: before any work."""
    from amauta.models.ngram.storage import check_place

    if out is None and arpa is None:
        raise ConfigError("ngram.nowhere")
    if out is not None:
        check_place(out)
