"""What an n-gram model pays for texts: log-probability, perplexity, cross-entropy, bits per byte."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import DataError, ModelError
from amauta.base.messages import say
from amauta.bits import measure
from amauta.data.blobs import TEXT
from amauta.data.read import read
from amauta.data.records import text_of
from amauta.metrics import console
from amauta.models.exchange.opening import tokenizer_called
from amauta.models.ngram import MODEL_TYPE, NGram
from amauta.models.ngram.framed import framed
from amauta.models.ngram.storage import CONFIG
from amauta.models.ngram.vocabulary import Vocabulary
from amauta.models.ngram_settings import Unit

Text = tuple[str, float | None]  # a document, and its exact log-probability (nats) where it is known
BYTES = ("bits_per_byte", "entropy_bits_per_byte", "excess", "bytes")


def open_ngram(path: Path, tokenizer: str | None = None, unit: Unit = "word") -> NGram:
    """The model in a folder or an ARPA file (with what its words are); ModelError for one that cannot read text."""
    if path.is_file() or path.suffix == ".arpa" or path.name.endswith(".arpa.gz"):
        from amauta.models.ngram.arpa_read import read_arpa

        return read_arpa(path, tokenizer=framed(tokenizer_called(tokenizer)) if tokenizer else None, unit=unit)
    model = NGram.load(path)
    if tokenizer is not None:
        raise ModelError("ngram.has-tokenizer", folder=path)
    if model.tokenizer is None:
        raise ModelError("ngram.only-ids", folder=path)
    return model


def ngram_called(name: str | Path) -> NGram | None:
    """The n-gram model in a folder or an ARPA file; None where ``name`` is something else."""
    path = Path(name).expanduser()
    if path.is_file() and path.name.endswith((".arpa", ".arpa.gz")):
        return open_ngram(path)
    try:
        kind = json.loads((path / CONFIG).read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return open_ngram(path) if kind == MODEL_TYPE else None


def texts_of(patterns: Sequence[Path], *, by_line: bool, empty: str = "count", may_skip: int = 0) -> list[Text]:
    """Every document of files. ``by_line``: lines of text files; those without a word are counted or, with ``empty``
    "skip", left out, and a note on stderr says how many.
    """
    reader = read(patterns, may_skip=may_skip)
    found: list[Text] = []
    bare = 0
    for row, text in reader.each(text_of):
        if by_line and set(TEXT) & set(row.file.suffixes):
            lines = text.removesuffix("\n").split("\n")
            kept = [line for line in lines if line.strip()]
            bare += len(lines) - len(kept)
            found += [(line, None) for line in (kept if empty == "skip" else lines)]
        else:
            exact = row.value.get("logprob")
            if exact is not None and (isinstance(exact, bool) or not isinstance(exact, int | float) or exact > 0):
                raise DataError("ngram.bad-logprob", file=row.file, line=row.line, value=exact)
            found.append((text, exact))
    if reader.skipped:
        console.print(say("ngram.skipped", count=reader.skipped), markup=False)
    note_empty(bare, empty)
    return found


def note_empty(count: int, empty: str) -> None:
    """Say what was done with lines without a word, if there were any."""
    if count:
        text = say("ngram.empty-skipped", count=count) if empty == "skip" else say("ngram.empty-counted", count=count)
        console.print(text, markup=False)


def measured(model: NGram, texts: Sequence[Text]) -> dict[str, Any]:
    """What ``bits.measure`` measures, with log10_prob and the cross-entropy in bits and nats a token.

    What the unit of the model cannot say is left out and named on stderr: bits per byte where words do not code the
    whole text. A model of scores that are no probabilities has none of these: its figures are None, with the reason.
    """
    tokenizer = model.tokenizer
    rows = _documents(tokenizer, [text for text, _ in texts])
    if not model.estimator.normal:
        total = float(model.score_many(rows).sum()) / math.log(10)
        tokens = sum(len(ids) - 1 for ids in rows)
        return {"log10_score": total, "log10_prob": None, "perplexity": None, "bits_per_token": None, "tokens": tokens,
                "documents": len(rows), "reason": say("ngram.scores-only")}  # fmt: skip
    sizes = [len(text.encode()) for text, _ in texts]
    exact = [value for _, value in texts]
    found = measure(model.score_many, [*zip(rows, sizes, exact, strict=True)])
    found["log10_prob"] = -found["bits_per_token"] * found["tokens"] * math.log10(2)
    found["nats_per_token"] = found["bits_per_token"] * math.log(2)
    found["counted"] = say("ngram.what-counts")
    unknown = getattr(tokenizer, "unknown", None)
    by_word = getattr(tokenizer, "unit", None) == "word"
    if unknown is None and not by_word:
        return found
    number = 0 if unknown is None else sum(int(np.count_nonzero(np.asarray(ids) == unknown)) for ids in rows)
    if number:
        known = _known_perplexity(model, rows, unknown)
        found |= {"unknown_tokens": number, "perplexity_without_unknown": known}
        reason = say("ngram.unknown-loses-text", count=number)
    elif by_word:
        reason = say("ngram.words-lose-spaces")
    else:
        return {**found, "unknown_tokens": 0}
    for name in BYTES:
        found.pop(name, None)
    console.print(say("ngram.exact-text-lost", reason=reason), markup=False)
    return {"unknown_tokens": number, **found}


def _documents(tokenizer: Any, texts: list[str]) -> list[Any]:
    if isinstance(tokenizer, Vocabulary):
        return list(tokenizer.documents(texts))
    return [[tokenizer.begin, *ids, tokenizer.end] for ids in tokenizer.encode_many(texts)]


def _known_perplexity(model: NGram, rows: list[Any], unknown: int | None) -> float:
    """Perplexity over the predicted tokens that the vocabulary knows; the others still stand in histories."""
    stream = np.concatenate([np.asarray(ids) for ids in rows])
    values = model.score_stream(stream)[(stream != unknown) & (stream != model.begin)]
    return float(np.exp(-values.mean()))
