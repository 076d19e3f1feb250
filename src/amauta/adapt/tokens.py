"""Rows of a table that belong to an adapter: those of tokens that were added to the vocabulary."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NewRows(nn.Module):
    """An embedding, or an output's table, (V, D), whose rows ``first`` to ``first + N`` are trained; it may grow by
    them. From outside it is the table itself, of max(V, first + N) rows.

    While it is off, these rows have the values that they began with.
    """

    start: Tensor

    def __init__(self, table: nn.Module, first: int, rows: Tensor, name: str = "default") -> None:
        super().__init__()
        self.within, self.first, self.name = table, first, name
        self.on = True
        self.rows = nn.Parameter(rows.detach().clone())  # (N, D)
        self.register_buffer("start", rows.detach().clone(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """(V', D), put together anew at every call."""
        return self._between(self.within.weight, self._now(), dim=0)  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.within, "bias", None)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(self.within, "dtype", None) or self.within.weight.dtype  # type: ignore[union-attr, return-value]

    def forward(self, ids: Tensor) -> Tensor:  # (...) -> (..., D)
        """The rows of ``ids``."""
        found = self.within(ids.clamp(max=rows_of(self.within) - 1))
        at = ids - self.first
        mine = (at >= 0) & (at < len(self.rows))
        own = F.embedding(at.clamp(0, len(self.rows) - 1), self._now().type_as(found))
        return torch.where(mine[..., None], own, found)

    def product(self, states: Tensor) -> Tensor:  # (..., D) -> (..., V')
        """``states · tableᵀ``."""
        inner = getattr(self.within, "product", None)
        found = inner(states) if inner else states @ self.within.weight.type_as(states).T  # type: ignore[union-attr]
        return self._between(found, states @ self._now().type_as(states).T, dim=-1)

    def _now(self) -> Tensor:
        return self.rows if self.on else self.start

    @property
    def num_embeddings(self) -> int:
        return max(rows_of(self.within), self.first + len(self.rows))

    def _between(self, table: Tensor, own: Tensor, dim: int) -> Tensor:
        """The table with its rows ``first`` to ``first + N`` replaced by ``own``, or these behind it."""
        stop = self.first + len(self.rows)
        before, after = table.narrow(dim, 0, self.first), max(0, table.shape[dim] - stop)
        pieces = [before, own.type_as(table)]
        return torch.cat([*pieces, table.narrow(dim, stop, after)] if after else pieces, dim)


def rows_of(table: nn.Module) -> int:
    """V of an embedding or of an output's table."""
    return getattr(table, "num_embeddings", None) or table.out_features  # type: ignore[return-value]
