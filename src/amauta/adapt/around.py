"""Something around a linear layer: what all adapters of that sort have in common."""

import torch
from torch import Tensor, nn

from amauta.base.errors import ModelError

Rows = tuple[tuple[int, int], ...]  # (from, to) of the rows of a matrix that holds several: q|k|v, gate|up


class Around(nn.Module):
    """A layer with something around it; from outside it is the layer itself: its weight, bias and widths are those
    of the layer within.

    ``linear`` is that layer: an ``nn.Linear``, one of few bits, or another Around (several adapters in one model).
    ``name`` is the adapter that it belongs to. ``on``: True, False, or (B,) of 0 and 1, one for each row of a batch.
    A kind says what it does in ``changed`` and, where its change can be written into the weights, in ``folded``.
    """

    kind = ""  # of adapt/settings.py

    def __init__(self, linear: nn.Module, name: str = "default") -> None:
        super().__init__()
        self.linear = linear
        self.name = name
        self.on: bool | Tensor = True
        self._before: tuple[Tensor, Tensor | None] | None = None  # weight and bias before they were merged into

    @property
    def weight(self) -> Tensor:
        return self.linear.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.linear.bias  # type: ignore[return-value]

    @property
    def in_features(self) -> int:
        return self.linear.in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        return self.linear.out_features  # type: ignore[return-value]

    @property
    def merged(self) -> bool:
        return self._before is not None

    def forward(self, x: Tensor) -> Tensor:  # (B, ..., in) -> (B, ..., out)
        return self.linear(x) if self.on is False or self.merged else self.changed(x)

    def changed(self, x: Tensor) -> Tensor:
        """What the layer gives with the adapter: (B, ..., in) -> (B, ..., out)."""
        raise NotImplementedError

    def folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A weight (out, in) and a bias (out,) with the adapter's change in them. ModelError where it has no such
        form."""
        raise ModelError("adapters.cannot-merge", kind=self.kind, name=self.name)

    @property
    def folds(self) -> bool:
        """Whether the change can be written into the weights."""
        return type(self).folded is not Around.folded

    def where_on(self, changed: Tensor, plain: Tensor) -> Tensor:
        """``changed`` in the rows of the batch where the adapter is on, else ``plain``."""
        if not isinstance(self.on, Tensor):
            return changed
        return torch.where(self.on.bool().view(-1, *(1,) * (changed.dim() - 1)), changed, plain)

    def merge(self) -> None:
        """Write the change into the layer within, after those of adapters that stand between.

        The weights as they were are kept beside, so that ``unmerge`` is exact. ModelError for a kind that has no such
        form, for an adapter that is on for some rows only, and for a layer of few bits: rounding could undo the change.
        """
        if isinstance(self.linear, Around):
            self.linear.merge()
        if self.merged or self.on is False:
            return
        base = innermost(self)
        if not isinstance(base, nn.Linear):
            raise ModelError("adapters.few-bits", name=self.name, bits=getattr(base, "kind", "?"))
        with torch.no_grad():
            before = base.weight.data, None if base.bias is None else base.bias.data
            put(base, *effective(self))
            self._before = before

    def unmerge(self) -> None:
        """Give the layer within its weights back, bit for bit, and do so with adapters between."""
        if self._before is not None:
            put(innermost(self), *self._before)
            self._before = None
        if isinstance(self.linear, Around):
            self.linear.unmerge()


def innermost(layer: nn.Module) -> nn.Module:
    """The layer itself, without what stands around it."""
    while isinstance(layer, Around):
        layer = layer.linear
    return layer


def effective(layer: nn.Module, rows: bool | Tensor = True) -> tuple[Tensor, Tensor | None]:
    """The weight (out, in) and bias (out,) of one plain layer that does what ``layer`` does with all that stands
    around it, new tensors where anything does; for these ``rows`` of a batch (as ``on``). ModelError where there is no
    such layer."""
    if not isinstance(layer, Around):
        return layer.weight, layer.bias  # type: ignore[return-value]
    weight, bias = effective(layer.linear, rows)
    if layer.on is False or layer.merged:
        return weight, bias
    if isinstance(layer.on, Tensor):
        if isinstance(rows, Tensor) and not (layer.on.bool() & rows.bool()).any():
            return weight, bias
        raise ModelError("adapters.some-rows", name=layer.name)
    return layer.folded(weight, bias)


def put(linear: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Make these the weights of a plain layer, whose parameters stay the same objects, in their own type."""
    assert isinstance(linear, nn.Linear)
    linear.weight.data = weight.to(linear.weight.dtype)
    if bias is not None:
        linear.bias.data = bias.to(linear.bias.dtype)
