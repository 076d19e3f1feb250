"""Adapters written into the weights: in the model itself, or in a plain copy of it.

Low-rank adapters and IA3 can be, and whatever are weights of the model anyway; a bottleneck or a prefix cannot.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from amauta.adapt.around import Around, effective, innermost, put
from amauta.adapt.prefix import Ahead
from amauta.adapt.tokens import NewRows
from amauta.base.errors import ModelError
from amauta.models.adapters.parts import WITHIN, parts, replace
from amauta.models.transformer import Transformer
from amauta.nn.linear import Embedding, Linear
from amauta.nn.quantized import Quantized

# (a layer of few bits, its new weight and bias) -> a layer like it with these
Requantize = Callable[[Quantized, Tensor, Tensor | None], nn.Module]


def merge(model: Transformer) -> None:
    """Write what stands around the model's layers into them; ``unmerge`` undoes it bit for bit.

    ModelError, before anything is changed: a kind that has no such form, layers of few bits, an adapter that is on for
    some rows only.
    """
    why = why_not(model)
    if why is not None:
        raise why
    for _, layer in _outermost(model):
        if isinstance(layer, Around):
            layer.merge()


def unmerge(model: Transformer) -> None:
    """Undo ``merge``."""
    for _, layer in _outermost(model):
        if isinstance(layer, Around):
            layer.unmerge()


@contextmanager
def as_plain(model: Transformer) -> Iterator[None]:
    """Where they can be, the adapters stand in the weights meanwhile, so that the model computes as a plain one does;
    afterwards they and the weights are as before, bit for bit."""
    plain = why_not(model) is None and not any(isinstance(part, NewRows) for part in model.modules())
    if plain:
        merge(model)
    try:
        yield
    finally:
        if plain:
            unmerge(model)


def merged(model: Transformer, *, requantize: Requantize | None = None) -> Transformer:
    """A plain copy of the model as it is now, adapters that are off left out. It shares no memory with the model.

    ModelError as ``merge``; layers of few bits are taken where ``requantize`` makes them anew.
    """
    why = why_not(model, few_bits=requantize is not None)
    if why is not None:
        raise why
    return flattened(copy.deepcopy(model), requantize=requantize)


@torch.no_grad()
def flattened(model: Transformer, *, requantize: Requantize | None = None) -> Transformer:
    """The model itself with plain layers in place of adapted ones, all its weights trainable, and no adapters."""
    for path, part in _outermost(model):
        if isinstance(part, NewRows):
            replace(model, path, lambda table: _table(table, requantize))  # type: ignore[arg-type]
        else:
            replace(model, path, lambda layer: _layer(layer, requantize))  # type: ignore[arg-type]
    model.adapters.clear()
    return model.requires_grad_(True)


def why_not(model: Transformer, *, few_bits: bool = False) -> ModelError | None:
    """What keeps the adapters of a model from being written into its weights; None: they can be.

    ``few_bits``: layers of few bits are no obstacle.
    """
    for _, part in parts(model):
        if part.on is False and not isinstance(part, NewRows):
            continue
        if isinstance(part.on, Tensor):
            return ModelError("adapters.some-rows", name=part.name)
        if isinstance(part, Ahead) or (isinstance(part, Around) and not part.folds):
            return ModelError("adapters.cannot-merge", kind=part.kind, name=part.name)
        inner = part.within if isinstance(part, NewRows) else innermost(part)
        if isinstance(inner, Quantized) and not few_bits:
            return ModelError("adapters.few-bits", name=part.name, bits=inner.kind)
    return None


def _outermost(model: Transformer) -> list[tuple[str, Around | NewRows]]:
    """What stands around layers and in nothing else, with its place."""
    return [
        (path, part)
        for path, part in model.named_modules()
        if isinstance(part, Around | NewRows) and path.rpartition(".")[2] not in WITHIN
    ]


def _layer(around: Around, requantize: Requantize | None) -> nn.Module:
    """The layer within, with the change of all that is on."""
    inner, off = innermost(around), all(one.on is False for one in _chain(around))
    if off or not isinstance(inner, Quantized):
        if not off:
            put(inner, *effective(around))
        return inner
    assert requantize is not None
    return requantize(inner, *effective(around))


def _table(rows: NewRows, requantize: Requantize | None) -> nn.Module:
    """A plain table of all rows."""
    inner, weight, bias = rows.within, rows.weight, rows.bias
    if isinstance(inner, Quantized):
        assert requantize is not None
        return requantize(inner, weight, bias)
    made = (
        Embedding(*weight.shape)
        if isinstance(inner, nn.Embedding)
        else Linear(weight.shape[1], len(weight), bias=False)
    )
    made.weight = nn.Parameter(weight)
    return made


def _chain(around: nn.Module) -> Iterator[Around]:
    while isinstance(around, Around):
        yield around
        around = around.linear
