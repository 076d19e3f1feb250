"""From token sequences to batches of fixed shape: cut, packed into rows, shuffled by seed and epoch.

A *piece* is a run of tokens whose every next token may be predicted; a *unit* is what must stand together in a row
(one piece for a text or a dialogue, two for a preference pair). A row holds several units; tokens of different pieces
cannot see each other, positions restart in each, and no first token is ever predicted from another document.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data.pack import best_fit
from amauta.data.store import TokenStore
from amauta.losses.token import IGNORE

WINDOW = 8192  # units that are packed together


class Piece(NamedTuple):
    """n+1 tokens, of which n are read and n predicted; ``loss`` (n,) says which predictions count (None: all)."""

    ids: np.ndarray
    loss: np.ndarray | None = None


class Units(Protocol):
    """What can be packed: how many slots each unit takes, and the unit itself."""

    lengths: np.ndarray  # (N,)

    def __getitem__(self, index: int) -> Sequence[Piece]: ...


class Listed:
    """Units held in memory."""

    def __init__(self, units: Sequence[Sequence[Piece]]) -> None:
        self.units = units
        self.lengths = np.array([sum(len(piece.ids) - 1 for piece in unit) for unit in units], dtype=np.int64)

    def __getitem__(self, index: int) -> Sequence[Piece]:
        return self.units[index]


class Stored:
    """The documents of a token store, each cut into pieces of at most ``length`` slots.

    Neighbouring pieces share one token, so that every token but a document's first is predicted exactly once.
    """

    def __init__(self, store: TokenStore, length: int) -> None:
        self.store = store
        slots = np.maximum(np.diff(store.starts) - 1, 0)
        counts = -(-slots // length)  # pieces of each document
        document = np.repeat(np.arange(len(slots)), counts)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.document = document
        self.begin = store.starts[:-1][document] + nth * length
        self.lengths = np.minimum(length, slots[document] - nth * length)

    def __getitem__(self, index: int) -> Sequence[Piece]:
        begin = int(self.begin[index])
        return (Piece(self.store.tokens[begin : begin + int(self.lengths[index]) + 1]),)


@dataclass
class Batch:
    """Rows of packed pieces, (B, T) each. Free slots at a row's end belong to document 0 and carry no loss.

    What stands below ``units`` is there for the objectives that need it (``corrupt.py``).
    """

    ids: Tensor
    targets: Tensor  # IGNORE where nothing is predicted
    positions: Tensor  # restart in each piece
    documents: Tensor  # 1, 2, … in each row; 0 is free
    units: list[list[int]]  # the units of each row, by index
    segments: Tensor | None = None  # (B, T), 0 and 1: the texts of a pair
    decoder_ids: Tensor | None = None  # (B, T') of an encoder-decoder; the targets are then theirs
    real: Tensor | None = None  # (B, T), False on padding of an encoder's input; None: there is none
    prefix: Tensor | None = None  # (B,): so many first tokens are seen by all
    firsts: Tensor | None = None  # (P,): where each pair of texts begins, counted through all rows
    pairs: Tensor | None = None  # (P,): 0, or 1 where the second text is not what followed the first
    chances: Tensor | None = None  # (B, T) in [0, 1): by which a generator's replacements are drawn
    totals: Counter[str] | None = None  # ``counts`` over all micro-batches of the step, set by the loop

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        moved = {name: x.to(device, non_blocking=True) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **moved)

    def supervised(self) -> int:
        """Tokens that carry a loss."""
        return int((self.targets != IGNORE).sum())

    def counts(self) -> Counter[str]:
        """What an objective with several means divides by: ``targets``, ``tokens`` read or written, ``pairs``."""
        targets = self.supervised()
        tokens = int((self.documents > 0).sum()) + (0 if self.decoder_ids is None else targets)
        return Counter(targets=targets, tokens=tokens, pairs=0 if self.pairs is None else len(self.pairs))


Collate = Callable[[Any, Sequence[Sequence[int]], int, Sequence[int]], Batch]


def collate(units: Units, rows: Sequence[Sequence[int]], length: int, epochs: Sequence[int] = ()) -> Batch:
    """The batch whose row r holds the units ``rows[r]``, one after another.

    ``epochs`` tells the epoch of each row to those that make another batch every time; here it changes nothing.
    """
    shape = (len(rows), length)
    ids, positions, documents = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    targets = np.full(shape, IGNORE, dtype=np.int64)
    for r, row in enumerate(rows):
        at, number = 0, 0
        for index in row:
            for piece in units[index]:
                n, number = len(piece.ids) - 1, number + 1
                span = slice(at, at + n)
                ids[r, span] = piece.ids[:-1]
                wanted = piece.ids[1:].astype(np.int64)
                targets[r, span] = wanted if piece.loss is None else np.where(piece.loss, wanted, IGNORE)
                positions[r, span] = np.arange(n)
                documents[r, span] = number
                at += n
    tensors = (torch.from_numpy(x) for x in (ids, targets, positions, documents))
    return Batch(*tensors, units=[list(row) for row in rows])


class PackedBatches:
    """Batches without end (or for ``epochs``), in an order that is a function of seed and epoch alone.

    Its whole state is (epoch, row), so a resumed stream goes on with the very batch that would have come, and any
    batch of the past can be made again.
    """

    def __init__(
        self,
        units: Units,
        *,
        rows: int,
        length: int,
        seed: int = 0,
        epochs: int | None = None,
        shuffle: bool = True,
        collate: Collate = collate,
    ) -> None:
        self.units, self.rows, self.length, self.seed = units, rows, length, seed
        self.collate = collate
        self.epochs, self.shuffle = epochs, shuffle
        self.epoch, self.row = 0, 0
        self._plan: tuple[int, list[list[int]]] | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """The rows of one epoch: every unit exactly once."""
        if self._plan is None or self._plan[0] != epoch:
            order = np.arange(len(self.units.lengths))
            generator = np.random.default_rng(derive(self.seed, "epoch", epoch))
            if self.shuffle:
                generator.shuffle(order)
            rows: list[list[int]] = []
            for start in range(0, len(order), WINDOW):
                window = order[start : start + WINDOW]
                packed = best_fit(self.units.lengths[window], self.length)
                rows.extend([int(window[i]) for i in row] for row in packed)
            if self.shuffle:
                rows = [rows[i] for i in generator.permutation(len(rows))]
            self._plan = (epoch, rows)
        return self._plan[1]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        taken: list[list[int]] = []
        of: list[int] = []  # the epoch of each row
        while len(taken) < self.rows:
            if self.epochs is not None and self.epoch >= self.epochs:
                break
            plan = self.plan(self.epoch)
            new = plan[self.row : self.row + self.rows - len(taken)]
            taken.extend(new)
            of.extend([self.epoch] * len(new))
            self.row += len(new)
            if self.row >= len(plan):
                self.epoch, self.row = self.epoch + 1, 0
        if not taken:
            raise StopIteration
        # a last batch of an epoch may be short: empty rows keep the shape, so that compiled code serves it too
        free = self.rows - len(taken)
        return self.collate(self.units, taken + [[]] * free, self.length, of + [0] * free)

    def seek(self, batches: int) -> None:
        """Stand where ``batches`` batches have been taken from the beginning."""
        self.epoch, self.row = 0, batches * self.rows
        while self.row >= len(self.plan(self.epoch)):
            self.row -= len(self.plan(self.epoch))
            self.epoch += 1

    def state(self) -> dict[str, Any]:
        """What must be kept to go on from here."""
        return {"epoch": self.epoch, "row": self.row, "data": self.fingerprint}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is packed: the number of units and the length of each."""
        return hashlib.blake2b(self.units.lengths.astype("<i8").tobytes(), digest_size=16).hexdigest()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that ``state`` gave. DataError when the data is not what it was then."""
        if state["data"] != self.fingerprint:
            raise DataError("data.changed-since", then=state["data"], now=self.fingerprint)
        self.epoch, self.row = state["epoch"], state["row"]
