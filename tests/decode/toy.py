"""A model that can be worked by hand: the next token depends on the last one alone, by a table."""

from types import SimpleNamespace

import torch
from torch import Tensor

from amauta.nn.cache import Cache


class Markov(torch.nn.Module):
    """``logits = table[last id]``; hidden states are one-hot; the cache holds nothing but the lengths."""

    def __init__(self, table: Tensor, context: int = 64) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table.float())
        self.spec = SimpleNamespace(context=context, vocabulary=table.shape[1])
        self.passes: list[tuple[int, ...]] = []  # the shapes that were fed

    def new_cache(self, rows: int, slots: int) -> Cache:
        return Cache(1, rows, slots, 1, 1)

    def forward(self, ids: Tensor, *, positions: Tensor | None = None, cache: object = None) -> Tensor:
        self.passes.append(tuple(ids.shape))
        return torch.nn.functional.one_hot(ids, self.table.shape[0]).float()

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.table


def word_bytes(id: int) -> bytes:
    """Token 0 is 'a', 1 is 'b' …"""
    return bytes([97 + id])
