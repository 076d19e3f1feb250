"""Quantisation-aware training: every step computes with the weights as they will be kept, in few bits (Jacob et al.
2018, arXiv 1712.05877, section 3).

The weights that are trained stay in full and keep their names, so optimisers, checkpoints and masks see nothing of it.
A gradient passes the rounding straight through where a weight lies within its grid and is 0 outside (Bengio, Léonard
and Courville 2013, arXiv 1308.3432). Grids follow the weights at every step; the paper averages the ranges it has seen,
and rounds activations too, which stay in full here. Tables over the vocabulary stay in full as well.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.compress.forms import check, form_of, targets
from amauta.compress.rounding import Form, encode, grid, grouped, layer_of, middle, nonzero
from amauta.compress.settings import Rounding
from amauta.decode.native.step import AGREES
from amauta.models.quantized import put_in
from amauta.models.transformer import Transformer

Few = Literal["int8", "int4"]


class Aware(nn.Linear):
    """A linear layer that computes with its weights rounded; they are those of the layer that it stands for."""

    def __init__(self, linear: nn.Linear, form: Form) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.form = linear.in_features, linear.out_features, form
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return F.linear(input, as_kept(self.weight, self.form), self.bias)


def as_kept(weight: Tensor, form: Form) -> Tensor:
    """The weights that ``weight`` (O, I) would be kept as, with the gradient of the weights within the grid's ends."""
    held = grid(weight.detach(), form, checked=False)
    zeros = middle(form) if held.zeros is None else held.zeros[..., None]
    least = 1 if form.kind == "int8" and held.zeros is None else 0
    found = fake_rounded(grouped(weight, form), held.scales.float()[..., None], zeros, least, form.top)
    return found.reshape(weight.shape).type_as(weight)


def fake_rounded(x: Tensor, scale: Tensor, zero: Tensor | float, least: int, most: int) -> Tensor:
    """x on the grid ``scale · (q - zero)``, q from ``least`` to ``most``; ``scale`` and ``zero`` broadcast to x and get
    no gradient."""
    return _Through.apply(x, scale, zero, least, most)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor | float, least: int, most: int) -> Tensor:
        q = (x / nonzero(scale)).round() + zero
        ctx.save_for_backward((q >= least) & (q <= most))
        return (q.clamp(least, most) - zero) * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (within,) = ctx.saved_tensors
        return grad * within, None, None, None, None


def make_aware(trained: nn.Module, kind: Few | None) -> None:
    """Let the linear layers that are trained compute as they will be kept; None changes nothing.

    ModelError for a model whose widths the form does not divide, that has few bits already, or that has adapters.
    """
    for model in (part for part in list(trained.modules()) if isinstance(part, Transformer)) if kind else ():
        assert kind is not None
        settings = Rounding(kind)
        check(model, settings)
        found = {name: layer for name, layer in targets(model, settings).items() if layer.weight.requires_grad}
        form = form_of(settings, {layer.in_features for layer in found.values()})
        put_in(model, {name: Aware(layer, form) for name, layer in found.items() if not isinstance(layer, Aware)})
        vars(model).pop(AGREES, None)


@torch.no_grad()
def keep_aware(model: Transformer) -> dict[str, Any]:
    """Hold the layers that were trained so in few bits from now on; {"qat", "layers"} of them, {} where there are none.

    What the model computes stays the same.
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, Aware)}
    made: dict[str, nn.Module] = {}
    for name, layer in found.items():
        held = grid(layer.weight, layer.form)
        made[name] = layer_of(layer, encode(layer.weight, held, layer.form), held, layer.form)
    put_in(model, made)
    return {"qat": next(iter(found.values())).form.kind, "layers": len(found)} if found else {}
