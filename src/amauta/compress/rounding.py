"""Rounding to few bits: which numbers a group of weights may become, and the nearest of them for each.

| kind | symmetric | affine |
|---|---|---|
| int8 | ``s = max|w| / 127``, -127 … 127 | ``s = (max - min) / 255``, 0 … 255 with a zero |
| int4 | ``s = w* / -8`` of the largest ``|w*|``; -8 … 7 | ``s = (max - min) / 15``, 0 … 15 with a zero |
| nf4 | ``s = max|w|``, 16 quantiles of a normal distribution | |

An affine range always holds 0, which is then exact. As in GGUF's Q4_0, the sign of a symmetric int4 scale turns the
grid so that its longer side meets the largest weight. Scales are rounded to f16 first, and the codes are the nearest
for the scale as it is kept (Q4_0 and Q8_0 choose them before).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from amauta.base.errors import ModelError
from amauta.nn.codes import BITS, NF4, Kind, expanded, halved, pack
from amauta.nn.quantized import Doubled, Quantized, QuantizedEmbedding


@dataclass(frozen=True)
class Form:
    """How a matrix is held: its kind, the weights of a row that share a scale (``group``; None: the whole row),
    whether each group has a zero of its own, whether all rows have one scale, and whether the scales have 8 bits."""

    kind: Kind
    group: int | None = None
    affine: bool = False
    tensor: bool = False
    double: bool = False

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << BITS[self.kind]) - 1


class Grid(NamedTuple):
    """What the codes of each group stand for: (O, groups) each; ``zeros`` (numbers, not bytes) of affine ones."""

    scales: Tensor
    zeros: Tensor | None = None
    doubled: Doubled | None = None


def grid(
    weight: Tensor,
    form: Form,
    *,
    ratio: Tensor | float = 1.0,
    dtype: torch.dtype = torch.float16,
    checked: bool = True,
) -> Grid:
    """The grid for a matrix (O, I): its groups' ranges, times ``ratio`` (a number, or (O, groups)), what is outside
    being clipped. ``dtype``: what the scales are rounded to. ModelError where one is beyond f16, if
    that is ``checked``."""
    groups = grouped(weight.float(), form)  # (O, groups, g)
    low, high = groups.amin(-1), groups.amax(-1)  # (O, groups)
    if form.tensor:
        low, high = low.amin().expand_as(low), high.amax().expand_as(high)
    low, high = low.clamp(max=0) * ratio, high.clamp(min=0) * ratio
    if form.affine:
        scales = _kept((high - low) / form.top, dtype, checked)
        zeros = (-low / nonzero(scales)).round().clamp(0, form.top)
        return Grid(scales.to(dtype), zeros)
    largest = torch.maximum(high, -low)
    if form.double:
        doubled = Doubled(*halved(largest))
        return Grid(expanded(*doubled).view_as(largest), doubled=doubled)
    if form.kind == "int4":
        largest = torch.where(high > -low, high, low) / -8
    elif form.kind == "int8":
        largest = largest / 127
    return Grid(_kept(largest, dtype, checked).to(dtype))


def encode(weight: Tensor, held: Grid, form: Form) -> Tensor:
    """The nearest codes, (O, I) uint8, one a byte. Half-way numbers go to the even one."""
    scales = held.scales.float()[..., None]
    numbers = grouped(weight.float(), form) / nonzero(scales)  # (O, groups, g)
    if form.kind == "nf4":
        table = torch.tensor(NF4, device=weight.device)
        return torch.bucketize(numbers, (table[1:] + table[:-1]) / 2).reshape(weight.shape).to(torch.uint8)
    zeros = middle(form) if held.zeros is None else held.zeros[..., None]
    least = 1 if form.kind == "int8" and held.zeros is None else 0
    return (numbers.round() + zeros).clamp(least, form.top).reshape(weight.shape).to(torch.uint8)


def decode(codes: Tensor, held: Grid, form: Form) -> Tensor:
    """What codes (O, I), one a byte, stand for: (O, I) in f32."""
    if form.kind == "nf4":
        numbers = torch.tensor(NF4, device=codes.device)[codes.long()]
    else:
        numbers = codes.float()
    groups = grouped(numbers, form)
    if form.kind != "nf4":
        groups = groups - (middle(form) if held.zeros is None else held.zeros[..., None])
    return (groups * held.scales.float()[..., None]).reshape(codes.shape)


def rounded(weight: Tensor, form: Form, held: Grid | None = None) -> Tensor:
    """The matrix that a matrix becomes: (O, I) in f32."""
    held = held or grid(weight, form)
    return decode(encode(weight, held, form), held, form)


def layer_of(layer: nn.Module, codes: Tensor, held: Grid, form: Form, *, inputs: int | None = None,
             threshold: float = float("inf")) -> Quantized:  # fmt: skip
    """A layer of few bits with these codes (O, I), one a byte, in place of a linear layer or a table."""
    weight: Tensor = layer.weight  # type: ignore[assignment]  # nn.Module hides the type
    bias: Tensor | None = getattr(layer, "bias", None)
    return (QuantizedEmbedding if isinstance(layer, nn.Embedding) else Quantized)(
        pack(codes) if BITS[form.kind] == 4 else codes,
        held.scales,
        None if held.zeros is None else held.zeros.to(torch.uint8),
        kind=form.kind,
        bias=None if bias is None else bias.detach(),
        dtype=weight.dtype,
        inputs=inputs,
        threshold=threshold,
        doubled=held.doubled,
    )


def grouped(weight: Tensor, form: Form) -> Tensor:
    """(O, I) -> (O, groups, g), a view."""
    return weight.reshape(weight.shape[0], -1, form.group or weight.shape[1])


def middle(form: Form) -> int:
    """The code of 0 where there is no zero."""
    return (form.top + 1) // 2


def _kept(scales: Tensor, dtype: torch.dtype, checked: bool) -> Tensor:
    """Rounded to ``dtype``, in f32. ModelError where a scale does not fit it."""
    found = scales.to(dtype).float()
    if checked and not bool(found.isfinite().all()):
        raise ModelError("compress.beyond-f16", largest=float(scales.abs().max()))
    return found


def nonzero(scales: Tensor) -> Tensor:
    """Scales to divide by."""
    return torch.where(scales == 0, 1.0, scales)
