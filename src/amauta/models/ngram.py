"""The n-gram language model: count, smooth, score, sample.

It obeys the same contract as every language model of the package: ``score(ids)`` and ``next_logprobs(prefix)``. A
document reads ``[begin, …, end]``. ``begin`` is context only and never predicted, ``end`` is predicted like any other
id, and nothing before a ``begin`` is seen by what stands after it. A history at the start of a document is shorter
than the order: one ``begin`` stands there, not order-1 of them (the ARPA manner).
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import DataError, ModelError
from amauta.models.ngram_counts import Counts, Ints, check_ids, count, join, read_counts, write_counts
from amauta.models.ngram_estimate import Floats, estimate
from amauta.models.ngram_settings import Estimator
from amauta.models.ngram_vocabulary import Vocabulary
from amauta.runs import aside, raise_if_full, replace_folder, write_atomically

MODEL_TYPE = "amauta-ngram"
CONFIG, COUNTS = "config.json", "counts.npz"


class NGram:
    """An n-gram model over the ids 0 … size-1.

    ``tokenizer`` (a Tokenizer, a Vocabulary or None) is only carried along: it is saved with the model.
    """

    def __init__(self, counts: Counts, estimator: Estimator, tokenizer: Any = None) -> None:
        self.counts, self.estimator, self.tokenizer = counts, estimator, tokenizer
        self.size, self.begin, self.order = counts.size, counts.begin, counts.order
        self.tables = estimate(counts, estimator)

    @classmethod
    def train(
        cls,
        documents: Iterable[Sequence[int]],
        *,
        size: int,
        begin: int,
        order: int,
        estimator: Estimator | None = None,
        tokenizer: Any = None,
    ) -> "NGram":
        """Count the n-grams of documents ``[begin, …, end]`` and smooth them. Order 0 is the uniform model.

        Raises DataError: nothing to count, a document without its ``begin``; ModelError: an id out of range.
        """
        counts = count(documents, size=size, begin=begin, order=order)
        if order and not counts.counts[0].any():
            raise DataError("ngram.nothing-to-count")
        return cls(counts, estimator or Estimator(), tokenizer)

    def score(self, ids: Sequence[int]) -> Floats:
        """Log-probabilities in nats of ids[1:], each given the ids before it in its document: (T,) -> (T-1,).

        A ``begin`` inside is never predicted: its log-probability is -inf, and what follows it starts anew.
        """
        if not len(ids):
            return np.zeros(0)
        return self._score(*join([ids]))[1:]

    def score_many(self, documents: Iterable[Sequence[int]]) -> Floats:
        """The sum of ``score`` for each document, in nats, (documents,): all of them in one pass."""
        stream, starts = join(documents)
        if not len(starts):
            return np.zeros(0)
        values = self._score(stream, starts)
        values[starts] = 0.0  # the first id of a document is context
        return np.add.reduceat(values, starts)

    def next_logprobs(self, prefix: Sequence[int]) -> Floats:
        """Log-probabilities in nats of every id as the next one after ``prefix``, (V,); ``begin`` has -inf."""
        return self.by_order(prefix)[-1]

    def by_order(self, prefix: Sequence[int]) -> list[Floats]:
        """The next id's log-probabilities by order 0, 1, …, each (V,): the last is ``next_logprobs``.

        A short prefix has fewer orders than the model: the history can be no longer than the prefix.
        """
        uniform = np.full(self.size, -np.log(self.size - 1))
        uniform[self.begin] = -np.inf
        known = [uniform]
        for level, (table, history) in enumerate(zip(self.tables, self.histories(prefix), strict=False)):
            below = known[-1] if self.estimator.chain else uniform
            if history < 0:
                known.append(below)
                continue
            values = below + table.log_gamma[history]
            nodes = self.counts.successors(level, history)
            values[self.counts.keys[level][nodes] - history * self.size] = table.log_p[nodes]
            known.append(values)
        return known

    def histories(self, prefix: Sequence[int]) -> list[int]:
        """The node of the last 0, 1, 2, … ids of ``prefix`` (one a level, up to order-1 ids); -1 where never seen."""
        recent = np.asarray(prefix, dtype=np.int64)[max(0, len(prefix) - max(self.order - 1, 0)) :]
        check_ids(recent, self.size)
        begins = np.flatnonzero(recent == self.begin)
        recent = recent[begins[-1] :] if len(begins) else recent
        found = [0]
        for length in range(1, min(len(recent), self.order - 1) + 1):
            node = np.zeros(1, np.int64)
            for level, token in enumerate(recent[len(recent) - length :]):
                node = self.counts.find(level, node, np.array([token]))
            found.append(int(node[0]))
        return found

    def successor_counts(self, level: int, history: int) -> Ints:
        """How often each id stood after the history node (of ``histories``), (V,); zeros for -1."""
        found = np.zeros(self.size, np.int64)
        if history >= 0:
            nodes = self.counts.successors(level, history)
            found[self.counts.keys[level][nodes] - history * self.size] = self.counts.counts[level][nodes]
        return found

    def generate(
        self, prefix: Sequence[int], *, tokens: int, end: int, temperature: float, generator: np.random.Generator
    ) -> list[int]:
        """Up to ``tokens`` ids after ``prefix``, the first ``end`` included; temperature 0 takes the likeliest id."""
        ids = list(prefix)
        while len(ids) < len(prefix) + tokens and (len(ids) == len(prefix) or ids[-1] != end):
            log_p = self.next_logprobs(ids)
            if temperature == 0:
                ids.append(int(np.argmax(log_p)))
                continue
            mass = np.cumsum(np.exp((log_p - log_p.max()) / temperature))
            ids.append(int(np.searchsorted(mass, generator.random() * mass[-1], side="right")))
        return ids[len(prefix) :]

    @property
    def deterministic(self) -> bool:
        """Whether every history that can be met has one successor only: such a model has perplexity 1 on its corpus."""
        starts = self.counts.at_start()
        met = [table.log_p[start] for table, start in zip(self.tables, starts, strict=True)][1:]
        met += [table.log_p for table in self.tables[-1:]]
        return bool(met) and all(not log_p[np.isfinite(log_p)].any() for log_p in met)

    def save(self, folder: Path) -> None:
        """Write the model folder, its tokenizer with it: all of it aside first, then put in its place at once.

        An older n-gram model there is replaced; ModelError when anything else stands there.
        """
        _check_place(folder)
        made = aside(folder)
        made.mkdir(parents=True)
        try:
            self._write(made)
            replace_folder(made, folder)
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            raise_if_full(error, folder)
            raise

    def _write(self, made: Path) -> None:
        kind = fingerprint = None
        if self.tokenizer is not None:
            kind = "vocabulary" if isinstance(self.tokenizer, Vocabulary) else "tokenizer"
            fingerprint = self.tokenizer.fingerprint
            self.tokenizer.save(made)
        write_counts(made / COUNTS, self.counts)
        config = {
            "model_type": MODEL_TYPE,
            "order": self.order,
            "vocab_size": self.size,
            "bos_token_id": self.begin,
            "estimator": dataclasses.asdict(self.estimator),
            "tokenizer": kind,
            "tokenizer_fingerprint": fingerprint,
        }
        write_atomically(made / CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "NGram":
        """What ``save`` wrote, equal bit for bit; ModelError when it is no such folder, torn, or of mixed parts."""
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if config["model_type"] != MODEL_TYPE:
                raise ModelError("ngram.other-model", folder=folder, type=config["model_type"], wanted=MODEL_TYPE)
            estimator = Estimator(**config["estimator"])
            shape = {"size": config["vocab_size"], "begin": config["bos_token_id"], "order": config["order"]}
            kind, fingerprint = config["tokenizer"], config["tokenizer_fingerprint"]
        except FileNotFoundError:
            raise ModelError("ngram.no-model", folder=folder) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError("ngram.bad-folder", folder=folder, reason=repr(error)) from None
        counts = read_counts(folder / COUNTS, **shape)
        tokenizer = _load_tokenizer(folder, kind)
        if tokenizer is not None and (tokenizer.fingerprint != fingerprint or tokenizer.size != counts.size):
            raise ModelError("ngram.other-tokenizer", folder=folder)
        return cls(counts, estimator, tokenizer)

    def _score(self, stream: Ints, starts: Ints) -> Floats:
        """Log-probability of every id of a stream after its history, (T,); ``starts``: where documents begin."""
        check_ids(stream, self.size)
        place = np.arange(len(stream))
        fresh = stream == self.begin
        fresh[starts] = True
        depth = place - np.maximum.accumulate(np.where(fresh, place, 0))  # ids of the same document before this one
        node = np.zeros(len(stream), np.int64)
        uniform = np.full(len(stream), -np.log(self.size - 1))
        log_p = uniform
        for level, table in enumerate(self.tables):
            history = np.roll(node, 1) if level else node  # wrong where depth < level, and not used there
            node = self.counts.find(level, history, stream)
            below = log_p if self.estimator.chain else uniform
            value = _pick(table.log_p, node, below + _pick(table.log_gamma, history, 0.0))
            log_p = np.where(depth >= level, value, log_p)
        return np.where(stream == self.begin, -np.inf, log_p)


def _pick(values: Floats, nodes: Ints, otherwise: Floats | float) -> Floats | float:
    """The values of nodes, (T,); ``otherwise`` where a node is -1."""
    return np.where(nodes >= 0, values[nodes], otherwise) if len(values) else otherwise


def _check_place(folder: Path) -> None:
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
    from amauta.tokenize.tokenizer import Tokenizer  # only a model that stands on a tokenizer needs the library

    return Tokenizer.load(folder)
