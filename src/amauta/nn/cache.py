"""A static key/value cache: S slots for each of B rows, written in place."""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor


class Cache:
    """Keys and values of every layer, (L, B, S, G, K).

    Row b's token at position p lives in slot p of row b, so rows of different lengths share one batch: a row's query at
    position p sees the slots 0..p of its own row and nothing else. What a padded prefill wrote beyond a row's end is
    overwritten before any query of that row can reach it. The caller advances ``lengths``.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        slots: int,
        kv_heads: int,
        head_width: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (layers, rows, slots, kv_heads, head_width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.rows = torch.arange(rows, device=device)[:, None]  # (B, 1)
        self.whole = True  # False: some rows of a larger one (``part``)
        # of an encoder-decoder: each layer's keys and values of the encoder's states, and which of those are real
        self.across: dict[int, tuple[Tensor, Tensor]] = {}
        self.across_mask: Tensor | None = None

    @property
    def slots(self) -> int:
        return self.keys.shape[2]

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Store (B, T, G, K) at each row's ``positions`` (B, T)."""
        self.keys[layer][self.rows, positions] = keys.to(self.keys.dtype)
        self.values[layer][self.rows, positions] = values.to(self.values.dtype)

    def read(self, layer: int, span: int) -> tuple[Tensor, Tensor]:
        """The first ``span`` slots, (B, span, G, K) each."""
        keys, values = self.keys[layer][:, :span], self.values[layer][:, :span]
        return (keys, values) if self.whole else (keys[self.rows[:, 0]], values[self.rows[:, 0]])

    def part(self, rows: Sequence[int]) -> "Cache":
        """A cache of these rows only, in the same memory; all of them in order are the cache itself.

        Reading one row costs nothing, reading several copies them. Its ``lengths`` are copies.
        """
        if list(rows) == list(range(len(self.lengths))):
            return self
        made = copy(self)
        if len(rows) == 1:
            made.keys, made.values = (held[:, rows[0] : rows[0] + 1] for held in (self.keys, self.values))
            made.rows = torch.zeros_like(self.rows[:1])
        else:
            made.rows, made.whole = torch.tensor(rows, device=self.rows.device)[:, None], False
        chosen = list(rows)
        made.lengths = self.lengths[chosen]
        made._keep_across(chosen)
        return made

    def copy(self, source: int, target: int, length: int) -> None:
        """The first ``length`` slots of row ``source`` into row ``target``."""
        for held in (self.keys, self.values):
            held[:, target, :length] = held[:, source, :length]

    def keep(self, places: list[int]) -> None:
        """Only these rows, in this order; one may come several times.

        Of as many rows as before only those that change are copied, as far as they are filled: a step of beam search
        moves few, and an answer's slots are mostly empty.
        """
        if len(places) == len(self.lengths):
            moved = [row for row, place in enumerate(places) if place != row]
            source, used = [places[row] for row in moved], int(self.lengths.max())
            for held in (self.keys, self.values):
                held[:, moved, :used] = held[:, source, :used]
        else:
            self.keys, self.values = self.keys[:, places], self.values[:, places]  # (L, B', S, G, K)
        self.lengths = self.lengths[places]
        self.rows = torch.arange(len(places), device=self.rows.device)[:, None]
        self._keep_across(places)

    def _keep_across(self, places: list[int]) -> None:
        self.across = {layer: (k[places], v[places]) for layer, (k, v) in self.across.items()}
        self.across_mask = None if self.across_mask is None else self.across_mask[places]
