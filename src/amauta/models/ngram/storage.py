"""The folder of an n-gram model: ``config.json``, ``ngrams.npz`` and the tokenizer's files."""

import dataclasses
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import ModelError
from amauta.models.ngram.estimate import Table
from amauta.models.ngram.framed import framed
from amauta.models.ngram.trie import Trie
from amauta.models.ngram.vocabulary import Vocabulary
from amauta.models.ngram_settings import Estimator
from amauta.runs import CONFIG, write_atomically, write_folder

MODEL_TYPE = "amauta-ngram"
NGRAMS = "ngrams.npz"


@dataclass(frozen=True)
class Stored:
    """What a model is made of; see ``model.NGram``."""

    trie: Trie
    tables: list[Table]
    estimator: Estimator
    tokenizer: Any
    source: str


def save(model: Stored, folder: Path) -> None:
    """Write the model folder: all of it aside first, then put in its place at once.

    An older n-gram model there is replaced; ModelError when anything else stands there.
    """
    check_place(folder)
    write_folder(folder, lambda made: _write(model, made))


def _write(model: Stored, made: Path) -> None:
    kind = fingerprint = None
    if model.tokenizer is not None:
        kind = "vocabulary" if isinstance(model.tokenizer, Vocabulary) else "tokenizer"
        fingerprint = model.tokenizer.fingerprint
        model.tokenizer.save(made)
    write_ngrams(made / NGRAMS, model)
    config = {
        "model_type": MODEL_TYPE,
        "order": model.trie.order,
        "vocab_size": model.trie.size,
        "bos_token_id": model.trie.begin,
        "source": model.source,
        "estimator": dataclasses.asdict(model.estimator),
        "discounts": [table.discounts for table in model.tables],
        "fallbacks": [level + 1 for level, table in enumerate(model.tables) if table.fallback],
        "tokenizer": kind,
        "tokenizer_fingerprint": fingerprint,
    }
    write_atomically(made / CONFIG, json.dumps(config, indent=2) + "\n")


def load(folder: Path) -> Stored:
    """What ``save`` wrote, equal bit for bit; ModelError when it is no such folder, torn, or of mixed parts."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["model_type"] != MODEL_TYPE:
            raise ModelError("ngram.other-model", folder=folder, type=config["model_type"], wanted=MODEL_TYPE)
        estimator = Estimator(**{name: _tuple(value) for name, value in config["estimator"].items()})
        size, begin, order = config["vocab_size"], config["bos_token_id"], config["order"]
        kind, fingerprint, source = config["tokenizer"], config["tokenizer_fingerprint"], config["source"]
        discounts, fallbacks = [tuple(one) for one in config["discounts"]], config["fallbacks"]
    except FileNotFoundError:
        raise ModelError("ngram.no-model", folder=folder) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("ngram.bad-folder", folder=folder, reason=repr(error)) from None
    trie, logs = read_ngrams(folder / NGRAMS, size=size, begin=begin, order=order)
    tables = [
        Table(log_p, log_gamma, discounts[level], level + 1 in fallbacks)
        for level, (log_p, log_gamma) in enumerate(logs)
    ]
    tokenizer = _load_tokenizer(folder, kind)
    if tokenizer is not None and (tokenizer.fingerprint != fingerprint or tokenizer.size != size):
        raise ModelError("ngram.other-tokenizer", folder=folder)
    return Stored(trie, tables, estimator, tokenizer, source)


def write_ngrams(path: Path, model: Stored) -> None:
    """The arrays as a numpy archive without pickled objects."""
    arrays: dict[str, Any] = {}
    for level, table in enumerate(model.tables):
        if level:
            arrays |= {f"tokens_{level + 1}": model.trie.tokens[level], f"starts_{level + 1}": model.trie.starts[level]}
        if model.trie.counts is not None:
            arrays[f"counts_{level + 1}"] = model.trie.counts[level]
        arrays |= {f"log_p_{level + 1}": table.log_p, f"log_gamma_{level + 1}": table.log_gamma}
    np.savez(path, allow_pickle=False, **arrays)


def read_ngrams(path: Path, *, size: int, begin: int, order: int) -> tuple[Trie, list[tuple[Any, Any]]]:
    """What ``write_ngrams`` wrote; ModelError when an array is missing, torn or of a shape that cannot be."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        tokens = [np.arange(size, dtype=np.int32)] + [arrays[f"tokens_{n}"] for n in range(2, order + 1)]
        starts = [np.array([0, size], np.int32)] + [arrays[f"starts_{n}"] for n in range(2, order + 1)]
        logs = [(arrays[f"log_p_{n}"], arrays[f"log_gamma_{n}"]) for n in range(1, order + 1)]
        counts = [arrays[f"counts_{n}"] for n in range(1, order + 1)] if not order or "counts_1" in arrays else None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError("ngram.bad-folder", folder=path.parent, reason=error) from None
    for level in range(order):
        nodes, below = len(tokens[level]), len(tokens[level - 1]) if level else 1
        right = len(starts[level]) == below + 1 and starts[level][0] == 0 and starts[level][-1] == nodes
        right = right and bool((np.diff(starts[level]) >= 0).all())
        right = right and (not nodes or (tokens[level].min() >= 0 and tokens[level].max() < size))
        right = right and logs[level][0].shape == (nodes,) and logs[level][1].shape == (below,)
        if not right or (counts is not None and len(counts[level]) != nodes):
            raise ModelError("ngram.bad-folder", folder=path.parent, reason=f"{path.name}: order {level + 1}")
    trie = Trie(tokens[:order], starts[:order], counts, size=size, begin=begin)
    return trie, logs


def check_place(folder: Path) -> None:
    """ModelError when ``folder`` holds something else than an n-gram model: saving would remove it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        mine = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    if not mine:
        raise ModelError("ngram.folder-taken", folder=folder)


def _load_tokenizer(folder: Path, kind: str | None) -> Any:
    if kind is None:
        return None
    if kind == "vocabulary":
        return Vocabulary.load(folder)
    from amauta.tokenize.files import load_tokenizer  # only a model that stands on a tokenizer needs the library

    return framed(load_tokenizer(folder))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
