"""Pairs of texts for the objectives on sentences: did the second follow the first (Devlin et al. 2019, arXiv
1810.04805, section 3.1), do the two stand in order (Lan et al. 2019, arXiv 1909.11942, section 3.1)?

A unit is a run of whole sentences of one document; what becomes of it in an epoch is decided by the generator passed.
"""

from typing import Literal

import numpy as np

from amauta.base.errors import DataError
from amauta.data.store import TokenStore
from amauta.tokenize.roles import Roles

EDGES = 3  # [CLS] a [SEP] b [SEP]


class Pairs:
    """Runs of at most ``length - 3`` tokens, cut after a sentence where one ends; a sentence that is longer is cut
    anywhere. Documents of a single token cannot be parted: ``too_short`` counts them.

    Raises DataError: nothing to part, or with ``kind`` "next" fewer than two documents.
    """

    def __init__(self, store: TokenStore, length: int, roles: Roles, kind: Literal["next", "order"]) -> None:
        self.store, self.kind = store, kind
        tokens = np.asarray(store.tokens)
        self.stops = np.flatnonzero(roles.sentence_ends(tokens)) + 1  # one beyond each sentence
        most = length - EDGES
        if most < 3:
            raise DataError("data.no-room-for-pairs", length=length, least=EDGES + 3)
        found: list[tuple[int, int, int]] = []
        self.too_short = 0
        for document in range(len(store)):
            begin, stop = int(store.starts[document]), int(store.starts[document + 1])
            self.too_short += stop - begin == 1
            while stop - begin >= 2:
                cut = self._cut(begin, stop, most)
                found.append((document, begin, cut))
                begin = cut
        runs = np.array(found, dtype=np.int64).reshape(-1, 3)
        self.document, self.begin, self.end = runs.T
        if len(runs) == 0 or (kind == "next" and len(np.unique(self.document)) < 2):
            raise DataError("data.no-pairs", documents=len(store), runs=len(runs))
        self.lengths = self.end - self.begin + EDGES

    def _cut(self, begin: int, stop: int, most: int) -> int:
        """Where a run that begins at ``begin`` ends; it leaves no single token behind."""
        limit = min(begin + most, stop)
        if limit == stop:
            return stop
        at = int(np.searchsorted(self.stops, limit, side="right")) - 1
        cut = int(self.stops[at]) if at >= 0 and self.stops[at] >= begin + 2 else limit
        return cut - 1 if stop - cut == 1 else cut  # with three tokens or more there is room for that

    def pair(self, unit: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """First text, second text, and 0 (the second is what followed the first) or 1."""
        tokens = self.store.tokens
        begin, end = int(self.begin[unit]), int(self.end[unit])
        inside = self.stops[np.searchsorted(self.stops, begin + 1) : np.searchsorted(self.stops, end)]
        middle = int(rng.choice(inside)) if len(inside) else int(rng.integers(begin + 1, end))
        first, second = tokens[begin:middle], tokens[middle:end]
        if rng.random() < 0.5:
            return first, second, 0
        if self.kind == "order":
            return second, first, 1
        return first, self._other(unit, end - middle, rng), 1

    def _other(self, unit: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """About ``size`` tokens of another document, from the beginning of a run on."""
        while self.document[other := int(rng.integers(len(self.begin)))] == self.document[unit]:
            pass
        begin, end = int(self.begin[other]), int(self.store.starts[self.document[other] + 1])
        starts = self.stops[np.searchsorted(self.stops, begin + 1) : np.searchsorted(self.stops, int(self.end[other]))]
        at = int(rng.choice(np.append(starts, begin)))
        return self.store.tokens[at : min(at + size, end)]
