"""Models of few bits in folders: their codes as they are, so that what is read back is the same bit for bit.

config.json is that of the model's family with ``"quantization_config": {"quant_method": "amauta", …}``: no other
library computes our layers, and this name keeps them from trying. It holds the spec and the kind of each layer; the
tensors stand in model.safetensors under our own names. Scales that were quantised themselves stay in 8 bits there and
are made anew when the folder is read.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ModelError
from amauta.models.spec import Spec, spec_of

if TYPE_CHECKING:  # what a config says is read without torch
    import torch
    from torch import Tensor, nn

    from amauta.models.exchange.weights import Weights
    from amauta.models.transformer import Transformer
    from amauta.nn.quantized import Quantized

QUANTIZED = "quantization_config"
METHOD = "amauta"
_PARTS = ("codes", "scales", "zeros", "scales_codes", "scales_steps", "scales_mean")


def said_in(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a config.json says of layers of few bits; None where there are none. ModelError for another's method."""
    said = config.get(QUANTIZED)
    if said is None:
        return None
    if not isinstance(said, dict) or said.get("quant_method") != METHOD:
        method = said.get("quant_method") if isinstance(said, dict) else said
        raise ModelError("compress.other-method", method=method)
    return said


def spec_in(config: Mapping[str, Any]) -> Spec | None:
    """The spec of a model of few bits; None for any other."""
    said = said_in(config)
    return None if said is None else spec_of(said["spec"])


def entry(model: "Transformer") -> dict[str, Any]:
    """What config.json says of the model's layers of few bits; {} where it has none."""
    from amauta.models.quantized import few_bits

    layers = few_bits(model)
    if not layers:
        return {}
    said = {"quant_method": METHOD, "layers": {name: _form(layer) for name, layer in layers.items()}}
    return {QUANTIZED: said | {"spec": asdict(model.spec)}}


def tensors_of(model: "Transformer") -> "dict[str, Tensor]":
    """All tensors of the folder, under our names."""
    from amauta.models.quantized import few_bits

    found = {name: value.detach() for name, value in model.named_parameters()}
    for name, layer in few_bits(model).items():
        held = {part: getattr(layer, part) for part in _PARTS if getattr(layer, part) is not None}
        if layer.doubled is not None:
            del held["scales"]
        found |= {f"{name}.{part}": tensor for part, tensor in held.items()}
    return found


def read(said: Mapping[str, Any], weights: "Weights", dtype: "torch.dtype") -> "tuple[Transformer, dict[str, Tensor]]":
    """The model of a folder with its layers of few bits, and all other tensors, which are to be put into it.

    ``dtype``: what the layers make their weights in. Raises ModelError: tensors of a layer that are missing, or of
    another shape than the spec and its kind say.
    """
    from amauta.models.quantized import put_in
    from amauta.models.transformer import Transformer

    model = Transformer(spec_of(said["spec"]))
    names, layers = set(weights.names), {}
    for name, form in said["layers"].items():
        parts = {part: weights.read(f"{name}.{part}") for part in _PARTS if f"{name}.{part}" in names}
        names -= {f"{name}.{part}" for part in parts}
        bias = weights.read(f"{name}.bias") if f"{name}.bias" in names else None
        try:
            layers[name] = _layer(parts, _long(form), bias, model.get_submodule(name), dtype)
        except (AttributeError, KeyError, TypeError, AssertionError, RuntimeError) as error:
            raise ModelError("compress.damaged", folder=weights.folder, name=name, reason=error) from None
    put_in(model, layers)
    return model, {name: weights.read(name) for name in sorted(names)}


def _form(layer: "Quantized") -> str | dict[str, Any]:
    """The kind; with it, where there is more to say, what becomes of the layer's inputs."""
    if layer.inputs is None:
        return layer.kind
    threshold = {} if layer.threshold == inf else {"threshold": layer.threshold}
    return {"kind": layer.kind, "inputs": layer.inputs} | threshold


def _long(form: str | dict[str, Any]) -> dict[str, Any]:
    return {"kind": form} if isinstance(form, str) else form


def _layer(
    parts: "Mapping[str, Tensor]", form: Mapping[str, Any], bias: "Tensor | None", place: "nn.Module",
    dtype: "torch.dtype",
) -> "Quantized":  # fmt: skip
    from torch import nn

    from amauta.nn.codes import expanded
    from amauta.nn.quantized import Doubled, Quantized, QuantizedEmbedding

    codes, scales = parts["codes"], parts.get("scales")
    doubled = None
    if scales is None:
        doubled = Doubled(*(parts[f"scales_{name}"] for name in Doubled._fields))
        scales = expanded(*doubled).view(len(codes), -1)
    table = isinstance(place, nn.Embedding)
    made = (QuantizedEmbedding if table else Quantized)(
        codes, scales, parts.get("zeros"), bias=bias, dtype=dtype, doubled=doubled, **form
    )
    wanted = tuple(place.weight.shape)  # type: ignore[union-attr]  # a linear layer or a table
    if (made.out_features, made.in_features) != wanted or made.group * scales.shape[1] != wanted[1]:
        raise RuntimeError(f"{(made.out_features, made.in_features)} ≠ {wanted}")
    return made
