"""Low-rank adapters of linear layers: LoRA (Hu et al. 2021, arXiv 2106.09685, eq. 3), scaled by the rank's root if
wanted (rsLoRA; Kalajdzievski 2023, arXiv 2312.03732), and DoRA (Liu et al. 2024, arXiv 2402.09353, eqs. 5 and 6).

Of a matrix that holds several one above another (q|k|v) any of them can be adapted, each by an A and a B of its own.
Products run in the type of the activations; the adapter's own numbers stay f32.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.adapt.around import Around, Rows, effective


class LoRA(Around):
    """``W x + s B A x`` with s = α/R, or α/√R: A (R, in), B (out, R) for each of ``rows``.

    ``a`` holds the As one above another (N·R, in), ``b`` the Bs (rows, R). A is drawn uniformly from ±1/√in, as the
    authors' code draws it, and B is 0: at first nothing changes. Dropout acts on what the branch reads, nowhere else.
    """

    kind = "lora"

    def __init__(
        self,
        linear: nn.Module,
        *,
        rank: int,
        alpha: float,
        rslora: bool = False,
        dropout: float = 0.0,
        rows: Rows | None = None,  # all, where left out
        name: str = "default",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(linear, name)
        self.rows: Rows = rows or ((0, self.out_features),)
        self.rank, self.alpha, self.rslora, self.dropout = rank, alpha, rslora, dropout
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        bound = self.in_features**-0.5
        a = torch.empty(len(self.rows) * rank, self.in_features, device="cpu").uniform_(
            -bound, bound, generator=generator
        )
        self.a = nn.Parameter(a.to(self.weight.device))
        self.b = nn.Parameter(torch.zeros(sum(self.heights), rank, device=self.weight.device))

    @property
    def heights(self) -> list[int]:
        return [stop - start for start, stop in self.rows]

    def changed(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.where_on(y + self._branch(x).type_as(y), y)

    def _branch(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        """``s B A x``, 0 in rows that are not adapted."""
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        low = F.linear(x, self.a.type_as(x)) * self.scale  # (..., N·R)
        parts = zip(low.split(self.rank, dim=-1), self.b.type_as(x).split(self.heights), strict=True)
        return self._in_place([F.linear(part, b) for part, b in parts], dim=-1)

    def _in_place(self, pieces: list[Tensor], dim: int) -> Tensor:
        """Pieces for each of ``rows`` put where these stand along ``dim``, with 0 between."""
        held, at = [], 0
        for (start, stop), piece in zip(self.rows, pieces, strict=True):
            if start > at:
                held.append(_zeros(piece, dim, start - at))
            held.append(piece)
            at = stop
        if at < self.out_features:
            held.append(_zeros(pieces[0], dim, self.out_features - at))
        return held[0] if len(held) == 1 else torch.cat(held, dim)

    def delta(self) -> Tensor:
        """``s B A``: (out, in), f32."""
        parts = zip(self.b.float().split(self.heights), self.a.float().split(self.rank), strict=True)
        return self._in_place([b @ a * self.scale for b, a in parts], dim=0)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight.float() + self.delta(), bias


class DoRA(LoRA):
    """``m (W + s B A) / ‖W + s B A‖``, a norm for each row of the matrix, m first ``‖W‖``: at first nothing changes.

    The norm is a constant in the backward pass (section 4.3 of the paper). Dropout again acts on the branch alone,
    where the paper has none. Rows that are not adapted stay as they are.
    """

    kind = "dora"

    def __init__(self, linear: nn.Module, **knobs) -> None:
        super().__init__(linear, **knobs)
        with torch.no_grad():
            self.m = nn.Parameter(self._of_rows(self._within()[0].float().norm(dim=1)))

    def _within(self) -> tuple[Tensor, Tensor | None]:
        """The weight and bias that are adapted, with the change of adapters within."""
        return effective(self.linear, self.on)

    def _of_rows(self, x: Tensor) -> Tensor:
        """The adapted rows of a vector (out,)."""
        return torch.cat([x[start:stop] for start, stop in self.rows])

    def _gain(self, weight: Tensor) -> Tensor:
        """``m / ‖W + s B A‖`` of every row, 1 in those that are not adapted: (out,)."""
        with torch.no_grad():
            norm = self._of_rows((weight + self.delta()).norm(dim=1))
        return 1.0 + self._in_place(list((self.m / norm - 1.0).split(self.heights)), dim=0)

    def changed(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        weight, bias = self._within()
        gain = self._gain(weight.float()).type_as(y)
        product = y if bias is None else y - bias.type_as(y)
        changed = gain * (product + self._branch(x).type_as(y))
        return self.where_on(changed if bias is None else changed + bias.type_as(y), y)

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self._gain(weight.float())[:, None] * (weight.float() + self.delta()), bias


def _zeros(like: Tensor, dim: int, size: int) -> Tensor:
    shape = list(like.shape)
    shape[dim] = size
    return like.new_zeros(shape)
