"""A static key/value cache: S slots for each of B rows, written in place."""

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor


class Cache:
    """Keys and values of every layer, (L, B, S, G, K).

    Row b's token at position p lives in slot p of row b, so rows of different lengths share one batch: a row's query at
    position p sees the slots 0..p of its own row and nothing else. What a padded prefill wrote beyond a row's end is
    overwritten before any query of that row can reach it. The caller advances ``lengths``.

    With ``dtype`` int8 each key and value of each head has a scale of its own, ``max|x| / 127`` over its K numbers
    (f32), and is read in f32.
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
        # of int8: the scales of keys and of values, (L, B, S, G, 1)
        small = [torch.zeros((*shape[:-1], 1), device=device) for _ in range(2)] if dtype == torch.int8 else None
        self.key_scales, self.value_scales = small or (None, None)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.rows = torch.arange(rows, device=device)[:, None]  # (B, 1)
        self.whole = True  # False: some rows of a larger one (``part``)
        # of an encoder-decoder: each layer's keys and values of the encoder's states, and which of those are real
        self.across: dict[int, tuple[Tensor, Tensor]] = {}
        self.across_mask: Tensor | None = None

    @property
    def slots(self) -> int:
        return self.keys.shape[2]

    @property
    def held(self) -> list[Tensor]:
        """All that has slots, (L, B, S, …) each."""
        return [one for one in (self.keys, self.values, self.key_scales, self.value_scales) if one is not None]

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Store (B, T, G, K) at each row's ``positions`` (B, T)."""
        for x, kept, scales in ((keys, self.keys, self.key_scales), (values, self.values, self.value_scales)):
            if scales is not None:
                x, scales[layer][self.rows, positions] = _rounded(x)
            kept[layer][self.rows, positions] = x.to(kept.dtype)

    def read(self, layer: int, span: int) -> tuple[Tensor, Tensor]:
        """The first ``span`` slots, (B, span, G, K) each."""
        keys, values = (
            self._whole(kept, layer, span) if scales is None else
            self._whole(kept, layer, span) * self._whole(scales, layer, span)
            for kept, scales in ((self.keys, self.key_scales), (self.values, self.value_scales))
        )  # fmt: skip
        return keys, values

    def _whole(self, held: Tensor, layer: int, span: int) -> Tensor:
        found = held[layer][:, :span]
        return found if self.whole else found[self.rows[:, 0]]

    def part(self, rows: Sequence[int]) -> "Cache":
        """A cache of these rows only, in the same memory; all of them in order are the cache itself.

        Reading one row costs nothing, reading several copies them. Its ``lengths`` are copies.
        """
        if list(rows) == list(range(len(self.lengths))):
            return self
        made = copy(self)
        if len(rows) == 1:
            made._take(lambda held: held[:, rows[0] : rows[0] + 1])
            made.rows = torch.zeros_like(self.rows[:1])
        else:
            made.rows, made.whole = torch.tensor(rows, device=self.rows.device)[:, None], False
        chosen = list(rows)
        made.lengths = self.lengths[chosen]
        made._keep_across(chosen)
        return made

    def copy(self, source: int, target: int, length: int) -> None:
        """The first ``length`` slots of row ``source`` into row ``target``."""
        for held in self.held:
            held[:, target, :length] = held[:, source, :length]

    def keep(self, places: list[int]) -> None:
        """Only these rows, in this order; one may come several times.

        Of as many rows as before only those that change are copied, as far as they are filled: a step of beam search
        moves few, and an answer's slots are mostly empty.
        """
        if len(places) == len(self.lengths):
            moved = [row for row, place in enumerate(places) if place != row]
            source, used = [places[row] for row in moved], int(self.lengths.max())
            for held in self.held:
                held[:, moved, :used] = held[:, source, :used]
        else:
            self._take(lambda held: held[:, places])  # (L, B', S, …)
        self.lengths = self.lengths[places]
        self.rows = torch.arange(len(places), device=self.rows.device)[:, None]
        self._keep_across(places)

    def _take(self, of: Callable[[Tensor], Tensor]) -> None:
        """Go on with a part of all that has slots."""
        self.keys, self.values = of(self.keys), of(self.values)
        if self.key_scales is not None and self.value_scales is not None:
            self.key_scales, self.value_scales = of(self.key_scales), of(self.value_scales)

    def _keep_across(self, places: list[int]) -> None:
        self.across = {layer: (k[places], v[places]) for layer, (k, v) in self.across.items()}
        self.across_mask = None if self.across_mask is None else self.across_mask[places]


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """(…, K) -> the nearest whole numbers from -127 to 127 of their scales, and those, (…, 1) in f32."""
    scales = x.detach().abs().amax(-1, keepdim=True).float() / 127
    return (x.float() / scales.clamp(min=torch.finfo(torch.float32).tiny)).round(), scales
