"""Heads, layers and feed-forward neurons really taken out: a model of a smaller spec with the weights that stay.

All layers keep as many heads and neurons: that is what the layouts of model folders can say. Which ones, each layer
decides for itself (all together where relative positions give a head its own bias in every layer).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

Places = Mapping[str, Sequence[int]]  # by the name of a module, what stays of it


def without_heads(model: Transformer, queries: Places, groups: Places) -> Transformer:
    """The model with some query heads and some key/value heads in each attention.

    By the name of the attention ("decoder.blocks.0.attention", "….cross") the numbers of those that stay, ascending;
    every one as many. A cross-attention has a key/value head for each query head and needs no ``groups``.
    """
    spec = model.spec
    heads, shared = len(next(iter(queries.values()))), len(next(iter(groups.values())))
    smaller = replace(spec, heads=heads, kv_heads=None if heads == shared else shared, head_width=spec.head)

    def cut(name: str, value: Tensor) -> Tensor:
        owner, _, part = name.rpartition(".")
        attention, _, matrix = owner.rpartition(".")
        if part == "weight" and matrix == "relative":
            return value[:, list(queries.get(f"{attention}.blocks.0.attention") or next(iter(queries.values())))]
        if attention not in queries or matrix in ("q_norm", "k_norm"):
            return value
        q = _wide(queries[attention], spec.head)
        if matrix == "out":
            return value[:, q] if part == "weight" else value
        return value[_rows(matrix, q, _wide(groups.get(attention, ()), spec.head), spec)]

    return _cut(model, smaller, cut)


def _rows(matrix: str, q: list[int], kv: list[int], spec: Spec) -> list[int]:
    """The rows of a packed matrix that stay: q|k|v of an attention, q and k|v of a cross-attention."""
    first, second = spec.heads * spec.head, spec.groups * spec.head
    if matrix == "q":
        return q
    if matrix == "kv":
        return q + [first + row for row in q]
    return q + [first + row for row in kv] + [first + second + row for row in kv]


def without_neurons(model: Transformer, neurons: Places) -> Transformer:
    """The model with some neurons of each feed-forward layer, by its name ("encoder.blocks.0.feedforward")."""
    spec = model.spec
    smaller = replace(spec, feedforward=len(next(iter(neurons.values()))))

    def cut(name: str, value: Tensor) -> Tensor:
        owner, _, part = name.rpartition(".")
        feedforward, _, matrix = owner.rpartition(".")
        if feedforward not in neurons:
            return value
        stays = list(neurons[feedforward])
        if matrix == "down":
            return value[:, stays] if part == "weight" else value
        return value[stays + [spec.inner + row for row in stays] if spec.gated else stays]

    return _cut(model, smaller, cut)


def with_layers(model: Transformer, layers: Mapping[str, Sequence[int]], **changes: object) -> Transformer:
    """The model with the layers of each stack that are named, in their order; ``changes`` of the spec that need no
    other weights than it has."""
    spec = model.spec
    counts = {name: len(numbers) for name, numbers in layers.items()}
    fewer = {"layers": counts.get("encoder", counts.get("decoder"))}
    if spec.kind == "encoder-decoder":
        fewer["decoder_layers"] = None if counts["encoder"] == counts["decoder"] else counts["decoder"]
    smaller = replace(spec, **fewer, **changes)  # type: ignore[arg-type]  # the fields of a spec
    made = Transformer(smaller)
    held = dict(model.named_parameters())
    _put(made, {name: held[_before(name, layers)] for name, _ in made.named_parameters()}, model)
    return made


def _before(name: str, layers: Mapping[str, Sequence[int]]) -> str:
    """What a tensor of the smaller model is called in the model that it comes from."""
    stack, _, rest = name.partition(".blocks.")
    if not rest or stack not in layers:
        return name
    number, _, part = rest.partition(".")
    return f"{stack}.blocks.{layers[stack][int(number)]}.{part}"


def _cut(model: Transformer, spec: Spec, cut: Callable[[str, Tensor], Tensor]) -> Transformer:
    made = Transformer(spec)
    _put(made, {name: cut(name, value) for name, value in model.named_parameters()}, model)
    return made


@torch.no_grad()
def _put(made: Transformer, values: Mapping[str, Tensor], model: Transformer) -> None:
    """Fill a new model, on the device and in the dtype of the old one."""
    made.to(model.device, model.embedding.weight.dtype).train(model.training)
    for name, parameter in made.named_parameters():
        assert parameter.shape == values[name].shape, f"{name}: {parameter.shape}, not {values[name].shape}"
        parameter.copy_(values[name])


def _wide(heads: Sequence[int], width: int) -> list[int]:
    """The rows of whole heads."""
    return [head * width + row for head in heads for row in range(width)]
