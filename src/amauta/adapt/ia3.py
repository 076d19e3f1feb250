"""IA3 (Liu et al. 2022, arXiv 2205.05638, eq. 2): a learned number for each key, each value and each number inside the
feed-forward layer."""

import torch
from torch import Tensor, nn

from amauta.adapt.around import Around, Rows


class IA3(Around):
    """``l ⊙ (W x + b)`` in ``rows`` of what a layer gives, or ``W (l ⊙ x) + b`` of all that it reads (``reads``).

    Every number of l is first 1. Activations after the feed-forward layer's first half are what its second half reads.
    """

    kind = "ia3"

    def __init__(
        self, linear: nn.Module, *, reads: bool = False, rows: Rows | None = None, name: str = "default"
    ) -> None:
        super().__init__(linear, name)
        self.reads = reads
        self.rows: Rows = rows or ((0, self.in_features if reads else self.out_features),)
        self.l = nn.Parameter(torch.ones(sum(stop - start for start, stop in self.rows), device=self.weight.device))

    def gains(self) -> Tensor:
        """l, 1 in rows that are not adapted: (in,) or (out,)."""
        whole = torch.ones(self.in_features if self.reads else self.out_features, device=self.l.device)
        pieces, at = [], 0
        for (start, stop), piece in zip(
            self.rows, self.l.split([stop - start for start, stop in self.rows]), strict=True
        ):
            pieces += [whole[at:start], piece.float()]
            at = stop
        return torch.cat([*pieces, whole[at:]])

    def changed(self, x: Tensor) -> Tensor:
        if self.reads:
            return self.linear(self.where_on(x * self.gains().type_as(x), x))
        y = self.linear(x)
        return self.where_on(y * self.gains().type_as(y), y)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gains, weight = self.gains(), weight.float()
        if self.reads:
            return weight * gains, bias
        return weight * gains[:, None], None if bias is None else bias.float() * gains
