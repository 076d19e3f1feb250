"""The n-gram language model: count, smooth, score, sample.

It obeys the same contract as every language model of the package: ``score(ids)`` and ``next_logprobs(prefix)``. A
document reads ``[begin, …, end]``. ``begin`` is context only and never predicted, ``end`` is predicted like any other
id, and nothing before a ``begin`` is seen by what stands after it. A history at the start of a document is shorter
than the order: one ``begin`` stands there, not order-1 of them (the ARPA manner).

Whatever the smoothing, a model is a trie and two numbers a node: log p(w|h) of an n-gram, and the log gamma of a
history, which weighs what the shorter history says of all that did not follow it. So a model that was read from an
ARPA file is used like one that was trained.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amauta.base.errors import DataError, ModelError
from amauta.models.ngram import storage
from amauta.models.ngram.counting import check_begins, count, join
from amauta.models.ngram.distinct import Ints
from amauta.models.ngram.estimate import Table, estimate
from amauta.models.ngram.kneser_ney import Floats
from amauta.models.ngram.room import Room
from amauta.models.ngram.trie import Trie
from amauta.models.ngram_settings import Estimator

MODEL_TYPE = storage.MODEL_TYPE
BLOCK = 1 << 16  # tokens scored at a time; what is computed of them fits a processor's cache


class NGram:
    """An n-gram model over the ids 0 … size-1.

    ``tokenizer`` (a Tokenizer, a Vocabulary or None) is only carried along: it is saved with the model. A model that
    was read from an ARPA file has no counts (``trie.counts`` is None) and says so by ``source``, "arpa" instead of
    "counts".
    """

    def __init__(
        self, trie: Trie, tables: list[Table], estimator: Estimator, tokenizer: Any = None, source: str = "counts"
    ) -> None:
        self.trie, self.tables, self.estimator, self.tokenizer, self.source = trie, tables, estimator, tokenizer, source
        self.size, self.begin, self.order = trie.size, trie.begin, trie.order

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

        Raises DataError: nothing to count, a document without its ``begin``, an order beyond the longest document;
        ModelError: an id out of range.
        """
        stream, starts = join(documents)
        if len(stream) and not 0 <= int(stream.min()) <= int(stream.max()) < size:
            Trie([], [], None, size=size, begin=begin).check(stream)
        check_begins(stream, starts, begin)
        return cls.of_stream(stream, size=size, begin=begin, order=order, estimator=estimator, tokenizer=tokenizer)

    @classmethod
    def of_stream(
        cls,
        stream: Ints,
        *,
        size: int,
        begin: int,
        order: int,
        estimator: Estimator | None = None,
        tokenizer: Any = None,
        memory: int | None = None,
        folder: Path | None = None,
    ) -> "NGram":
        """As ``train`` for documents laid end to end, (T,). Above ``memory`` bytes counts are sorted on disk, in
        nameless files in ``folder`` (the system's temporary folder when not given); the model is the same.
        """
        if order and not (stream != begin).any():
            raise DataError("ngram.nothing-to-count")
        room = Room(len(stream), memory, folder)
        trie, suffixes = count(stream, size=size, begin=begin, order=order, room=room)
        estimator = estimator or Estimator()
        trie, tables = estimate(trie, suffixes, estimator, room)
        return cls(trie, tables, estimator, tokenizer)

    @property
    def bytes(self) -> int:
        """Memory of the model: trie, probabilities and what finds n-grams fast, if that was built."""
        return self.trie.bytes + sum(table.log_p.nbytes + table.log_gamma.nbytes for table in self.tables)

    @property
    def fallbacks(self) -> list[int]:
        """The orders whose Kneser-Ney discounts could not be computed from the corpus."""
        return [level + 1 for level, table in enumerate(self.tables) if table.fallback]

    def score(self, ids: Sequence[int]) -> Floats:
        """Log-probabilities in nats of ids[1:], each given the ids before it in its document: (T,) -> (T-1,).

        A ``begin`` inside is never predicted: its log-probability is -inf, and what follows it starts anew.
        """
        return self.score_stream(np.asarray(ids))[1:]

    def score_many(self, documents: Iterable[Sequence[int]]) -> Floats:
        """The sum of ``score`` for each document, in nats, (documents,): all of them in one pass."""
        stream, starts = join(documents)
        if not len(starts):
            return np.zeros(0)
        values = self.score_stream(stream, starts)
        values[starts] = 0.0  # the first id of a document is context
        return np.add.reduceat(values, starts)

    def score_stream(self, stream: Ints, starts: Ints | None = None) -> Floats:
        """Log-probability of every id of a stream after its history, (T,); ``starts``: where documents begin besides
        at each ``begin``. The first id is scored without a history.
        """
        self.trie.check(stream)
        self.trie.prepare(len(stream))
        fresh = stream == self.begin
        fresh[:1] = True
        if starts is not None:
            fresh[starts] = True
        values = np.empty(len(stream))
        for start in range(0, len(stream), BLOCK):
            first = max(0, start - max(0, self.order - 1))  # what stands before the block is looked up again
            part = slice(first, start + BLOCK)
            values[start : start + BLOCK] = self._score(stream[part], fresh[part])[start - first :]
        values[stream == self.begin] = -np.inf
        return values

    def _score(self, ids: Ints, fresh: Ints) -> Floats:
        """``score_stream`` of one block; ``fresh``: where documents begin, (T,)."""
        place = np.arange(len(ids))
        depth = place - np.maximum.accumulate(np.where(fresh, place, 0))  # ids of the same document before this one
        value = np.full(len(ids), -np.log(self.size - 1))
        if not self.order or not len(ids):
            return value
        uniform = value[0]
        value = self.tables[0].log_p[ids]
        node = ids
        unseen = self.estimator.log_unseen
        for level, table in enumerate(self.tables[1:], start=1):
            deep = np.flatnonzero(depth >= level)
            history = node[deep - 1]
            if unseen:
                value[deep[history < 0]] += unseen
            met = deep[history >= 0]
            history = history[history >= 0]
            found = self.trie.find(level, history, ids[met])
            base = value[met] if self.estimator.chain else uniform
            under = base + table.log_gamma[history]
            value[met] = np.where(found >= 0, table.log_p[found], under) if len(table.log_p) else under
            if not self.estimator.chain:
                value[deep[node[deep - 1] < 0]] = uniform
            node = np.full(len(ids), -1, np.int64)
            node[met] = found
        return value

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
                known.append(below + self.estimator.log_unseen)
                continue
            values = below + table.log_gamma[history]
            nodes = self.trie.successors(level, history)
            values[self.trie.tokens[level][nodes]] = table.log_p[nodes]
            known.append(values)
        return known

    def histories(self, prefix: Sequence[int]) -> list[int]:
        """The node of the last 0, 1, 2, … ids of ``prefix`` (one a level, up to order-1 ids); -1 where never seen."""
        recent = np.asarray(prefix, dtype=np.int64)[max(0, len(prefix) - max(self.order - 1, 0)) :]
        self.trie.check(recent)
        begins = np.flatnonzero(recent == self.begin)
        ids = recent[begins[-1] :].tolist() if len(begins) else recent.tolist()
        found = [0]
        for length in range(1, min(len(ids), self.order - 1) + 1):
            node = 0
            for level, token in enumerate(ids[len(ids) - length :]):
                node = self.trie.one(level, node, token)
            found.append(node)
        return found

    def successor_counts(self, level: int, history: int) -> Ints:
        """How often each id stood after the history node (of ``histories``), (V,); zeros for -1.

        ModelError for a model that was read from an ARPA file, which holds no counts.
        """
        if self.trie.counts is None:
            raise ModelError("ngram.no-counts")
        found = np.zeros(self.size, np.int64)
        if history >= 0:
            nodes = self.trie.successors(level, history)
            found[self.trie.tokens[level][nodes]] = self.trie.counts[level][nodes]
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
        met = [table.log_p[self.trie.at_start(level)] for level, table in enumerate(self.tables)][1:]
        met += [table.log_p for table in self.tables[-1:]]
        return bool(met) and all(not log_p[np.isfinite(log_p)].any() for log_p in met)

    def save(self, folder: Path) -> None:
        """Write the model folder, its tokenizer with it: all of it aside first, then put in its place at once.

        An older n-gram model there is replaced; ModelError when anything else stands there.
        """
        storage.save(storage.Stored(self.trie, self.tables, self.estimator, self.tokenizer, self.source), folder)

    @classmethod
    def load(cls, folder: Path) -> "NGram":
        """What ``save`` wrote, equal bit for bit; ModelError when it is no such folder, torn, or of mixed parts."""
        found = storage.load(folder)
        return cls(found.trie, found.tables, found.estimator, found.tokenizer, found.source)
