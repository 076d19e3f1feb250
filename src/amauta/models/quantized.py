"""The layers of few bits in a model: which they are, putting them in, and the same model in full."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn

from amauta.models.transformer import Transformer
from amauta.nn.quantized import Quantized


def few_bits(model: nn.Module) -> dict[str, Quantized]:
    """The layers and tables of few bits by their names; a shared one once."""
    return {name: part for name, part in model.named_modules() if isinstance(part, Quantized)}


def put_in(model: nn.Module, made: Mapping[str, nn.Module]) -> None:
    """Put each layer in the place of the one so named, wherever that stands: weights that were shared still are."""
    instead = {model.get_submodule(name): layer for name, layer in made.items()}
    for part in list(model.modules()):
        for name, child in part.named_children():
            if child in instead:
                setattr(part, name, instead[child])


def in_full(model: Transformer) -> Transformer:
    """A copy with every weight in full, in the model's own type; a new model in any case."""
    if not few_bits(model):
        return deepcopy(model)
    made = Transformer(model.spec)
    tensors = {name: value.detach().clone() for name, value in model.named_parameters()}
    tensors |= {f"{name}.weight": layer.weight for name, layer in few_bits(model).items()}
    made.load_state_dict(tensors, strict=False, assign=True)
    return made.to(model.device).train(model.training)


def bytes_of(model: nn.Module) -> int:
    """What the weights take in memory, codes and scales with them; a shared tensor once."""
    held: dict[int, torch.Tensor] = {}
    for part in model.modules():
        kept = part.buffers(recurse=False) if isinstance(part, Quantized) else ()
        held |= {tensor.data_ptr(): tensor for tensor in (*part.parameters(recurse=False), *kept)}
    return sum(tensor.nbytes for tensor in held.values())
