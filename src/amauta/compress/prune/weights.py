"""Single weights set to zero: every linear layer of the stacks, its shape as it was."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.compress.prune.scores import by_matrix, by_pattern, by_row, read_pattern, together, wanda
from amauta.compress.prune.settings import Prune
from amauta.compress.prune.sparsegpt import sparsegpt
from amauta.compress.statistics import Inputs, each_layer
from amauta.metrics import progress
from amauta.models.pruned import linears
from amauta.models.transformer import Transformer


@torch.no_grad()
def set_to_zero(
    model: Transformer, rows: Sequence[Tensor], settings: Prune, *, autocast: torch.dtype | None = None
) -> dict[str, Any]:
    """Prune the model where it stands; ``rows`` of ids are what it is calibrated with. What came of it: {"sparsity",
    "zeros", "sparsest", "sparsest_layer"}, of the weights that could go.

    ``autocast``: the type of the matrix products while the model is watched; its statistics are in f32 in any case.
    Wanda and SparseGPT go layer by layer: each is measured on what the pruned ones before it give. ModelError where
    there are no such weights, the pattern does not fit them, or a layer would be left with nothing.
    """
    found, pattern = linears(model), read_pattern(settings.pattern)
    if not found:
        raise ModelError("prune.nothing")
    for name, linear in found.items():
        if pattern is not None and linear.in_features % pattern[1]:
            raise ModelError("prune.pattern-does-not-divide", layer=name, inputs=linear.in_features, m=pattern[1])
    if settings.scheme == "magnitude":
        _by_size(found, settings, pattern)
    else:
        kind, on = model.device.type, autocast is not None
        with progress(say("prune.watching"), len(found)) as bar, torch.autocast(kind, dtype=autocast, enabled=on):
            for layer in each_layer(model, rows, products=settings.scheme == "sparsegpt"):
                with torch.autocast(kind, enabled=False):
                    for name, linear in layer.linears.items():
                        _by_inputs(name, linear, layer.inputs[name], settings, pattern)
                        bar.advance(1)
    return _facts(found)


def _by_size(found: dict[str, nn.Linear], settings: Prune, pattern: tuple[int, int] | None) -> None:
    """Magnitude: in each matrix, in all of them together, or by the pattern."""
    scores = {name: linear.weight.abs() for name, linear in found.items()}
    if pattern is not None:
        masks = {name: by_pattern(one, pattern) for name, one in scores.items()}
    elif settings.across == "model":
        masks = together(scores, settings.ratio)
    else:
        masks = {name: by_matrix(one, settings.ratio) for name, one in scores.items()}
    for name, linear in found.items():
        _put(name, linear, linear.weight * masks[name], settings)


def _by_inputs(name: str, linear: nn.Linear, inputs: Inputs, settings: Prune, pattern: tuple[int, int] | None) -> None:
    """Wanda or SparseGPT: one layer, by what it reads."""
    if settings.scheme == "wanda":
        scores = wanda(linear.weight.float(), inputs.norms)
        mask = by_pattern(scores, pattern) if pattern is not None else by_row(scores, settings.ratio)
        after = linear.weight * mask
    else:
        given = {"ratio": settings.ratio, "pattern": pattern, "damping": settings.damping}
        after = sparsegpt(linear.weight, inputs.hessian(), **given)
    _put(name, linear, after, settings)


def _put(name: str, linear: nn.Linear, weight: Tensor, settings: Prune) -> None:
    """Make it the layer's weights, unless nothing is left of them."""
    if not bool(weight.any()):
        raise ModelError("prune.empties", layer=name, ratio=settings.ratio, weights=linear.weight.numel())
    linear.weight.copy_(weight)


def _facts(found: dict[str, nn.Linear]) -> dict[str, Any]:
    zeros = {name: int((linear.weight == 0).sum()) for name, linear in found.items()}
    shares = {name: zeros[name] / linear.weight.numel() for name, linear in found.items()}
    sparsest = max(shares, key=lambda name: shares[name])
    whole = sum(linear.weight.numel() for linear in found.values())
    return {
        "sparsity": sum(zeros.values()) / whole,
        "zeros": sum(zeros.values()),
        "sparsest": shares[sparsest],
        "sparsest_layer": sparsest,
    }
