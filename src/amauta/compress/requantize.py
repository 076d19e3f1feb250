"""A layer of few bits rounded anew, for weights that changed: the same kind and groups, each weight to the nearest."""

import torch
from torch import Tensor

from amauta.compress.rounding import Form, encode, grid
from amauta.nn.codes import BITS, pack
from amauta.nn.quantized import Quantized


def requantized(layer: Quantized, weight: Tensor, bias: Tensor | None) -> Quantized:
    """A layer like ``layer`` that holds ``weight`` (out, in), rounded to nearest, and ``bias``."""
    whole = layer.group == layer.in_features
    form = Form(layer.kind, None if whole else layer.group, layer.zeros is not None, double=layer.doubled is not None)
    weight = weight.detach().float()
    held = grid(weight, form)
    codes = encode(weight, held, form)
    with torch.no_grad():
        made = type(layer)(
            pack(codes) if BITS[form.kind] == 4 else codes,
            held.scales,
            None if held.zeros is None else held.zeros.to(torch.uint8),
            kind=form.kind,
            bias=None if bias is None else bias.detach().clone(),
            dtype=layer.dtype,
            inputs=layer.inputs,
            threshold=layer.threshold,
            doubled=held.doubled,
        )
    return made
