"""A static key/value cache: S slots for each of B rows, written in place."""

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
        return self.keys[layer][:, :span], self.values[layer][:, :span]

    def keep(self, places: list[int]) -> None:
        """Only these rows, in this order."""
        self.keys, self.values = self.keys[:, places], self.values[:, places]  # (L, B', S, G, K)
        self.lengths, self.rows = self.lengths[places], self.rows[: len(places)]
        self.across = {layer: (k[places], v[places]) for layer, (k, v) in self.across.items()}
        self.across_mask = None if self.across_mask is None else self.across_mask[places]
