"""Batches of what the student itself writes, for its teacher to judge (Agarwal et al. 2023, arXiv 2306.13649,
algorithm 1): a stream for the one loop."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.batches import Batch, Listed, PackedBatches, Piece, collate
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer
from amauta.train.distill.openings import Opening, order, write
from amauta.train.distill.settings import Distill


class StudentWrites:
    """Batches without end: at a share of them the student, as it is by then, goes on from the next openings; the others
    are those of ``given``. Nothing is learnt through what was sampled.

    Its state is the number of the batch. What was drawn depends on it and on the weights alone, so a run that goes on
    from a checkpoint draws what it would have drawn.
    """

    def __init__(
        self,
        settings: Distill,
        student: Transformer,
        tokenizer: AnyTokenizer,
        openings: Sequence[Opening],
        *,
        rows: int,
        length: int,
        given: PackedBatches | None = None,
        named: Callable[[int], str] | None = None,
    ) -> None:
        self.settings, self.student, self.tokenizer, self.openings = settings, student, tokenizer, openings
        self.rows, self.length, self.given, self.named = rows, length, given, named
        self.number = 0
        self.written = 0  # tokens

    def __next__(self) -> Batch:
        self.number += 1
        if self.given is not None and self._is_given(self.number - 1):
            return next(self.given)
        return self._batch(self.number - 1)

    def _seed(self, number: int) -> int:
        return derive(self.settings.loop.seed, "student", number)

    def _is_given(self, number: int) -> bool:
        return bool(np.random.default_rng(self._seed(number)).random() >= self.settings.writing.share)

    def _batch(self, number: int) -> Batch:
        first = number * self.rows
        count, loop = len(self.openings), self.settings.loop
        some = [self.openings[order(count, first + i, loop.seed)] for i in range(self.rows)]
        found = write(self.student, self.tokenizer, some, self.settings.writing, self._seed(number) % 2**31)
        units: list[tuple[Piece]] = []
        for one, new in zip(some, found, strict=True):
            ids = np.array([*one.ids, *new.ids], dtype=np.int64)[: self.length + 1]
            loss = np.arange(1, len(ids)) >= len(one.ids)
            self.written += int(loss.sum())
            units.append((Piece(ids, loss),))
        batch = collate(Listed(units), [[i] for i in range(self.rows)], self.length)
        batch.units = [[-1 - order(count, first + i, loop.seed)] for i in range(self.rows)]
        return batch

    def name(self, unit: int) -> str:
        """Where a unit of a batch comes from: an opening (they count down from -1) or a given text."""
        return self.openings[-1 - unit].place if unit < 0 or self.named is None else self.named(unit)

    def seek(self, batches: int) -> None:
        """Stand where ``batches`` batches have been taken from the beginning."""
        self.number = batches
        if self.given is not None:
            self.given.seek(sum(self._is_given(number) for number in range(batches)))

    def state(self) -> dict[str, Any]:
        given = None if self.given is None else self.given.state()
        return {"number": self.number, "written": self.written, "openings": len(self.openings), "given": given}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that ``state`` gave. DataError when the texts are not what they were then."""
        if state["openings"] != len(self.openings):
            raise DataError("data.changed-since", then=state["openings"], now=len(self.openings))
        self.number, self.written = state["number"], state["written"]
        if self.given is not None:
            self.given.restore(state["given"])
