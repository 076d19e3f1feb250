"""A model's weights in another spec: another head, more entries of the vocabulary."""

import dataclasses
from copy import deepcopy
from typing import Any

import torch

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.exchange.native import MODEL_TYPE as NATIVE
from amauta.models.quantized import few_bits, put_in
from amauta.models.spec import Output, Spec
from amauta.models.transformer import Transformer
from amauta.nn.quantized import Quantized

KEEPS_POOLER = ("bert", "albert")  # families whose classifier reads the pooler that was pretrained with the encoder
POOLERS = ("tanh", "gelu", "relu")


def with_head(
    spec: Spec, outputs: tuple[Output, ...], *, labels: int = 2, names: tuple[str, ...] = (), **changes: Any
) -> Spec:
    """The spec with other ``outputs``, as its own family builds the one that comes last in them.

    A classifier reads an encoder's first state through a dense layer (BERT, RoBERTa: tanh; ELECTRA: GELU; DistilBERT:
    ReLU), a decoder's last state by a matrix alone, an encoder-decoder's last decoder state through a dense layer and
    tanh; ``span`` needs no pooler. A sentence encoder is one no more.
    """
    plain = {"outputs": outputs, "sentence": None, "pooler": "none"} | changes
    if "classifier" not in outputs:
        return dataclasses.replace(spec, **plain)
    plain |= {"labels": labels, "label_names": names, "output_bias": False}
    if spec.kind == "decoder":
        return dataclasses.replace(spec, **plain, pooling="last", classifier_bias=False)
    plain |= {"pooling": "first" if spec.kind == "encoder" else "last", "classifier_bias": True, "output_scale": 1.0}
    tried = [dataclasses.replace(spec, **plain | {"pooler": pooler}) for pooler in POOLERS]
    written = [exchange.written_as(one) for one in tried]
    own = [one for one, family in zip(tried, written, strict=True) if family == spec.family]
    known = [one for one, family in zip(tried, written, strict=True) if family != NATIVE]
    return (own or known or tried)[0]


def reshaped(model: Transformer, spec: Spec, seed: int, *, fresh: int = 0) -> Transformer:
    """A model of ``spec`` with all the weights that ``model`` has of it; what it lacks is drawn from ``seed``.

    A classifier is kept only where its classes are the same; a pooler with it, or where the family pretrains it.
    Tables with more entries keep the old ones; the ``fresh`` last entries of the new vocabulary are drawn anew even
    where the old table had room for them. Layers of few bits stay so, but for tables that get new entries: those are
    held in full. ModelError for a model with adapters on it.
    """
    if model.adapters:
        raise ModelError("adapters.no-new-output", names=", ".join(model.adapters))
    made = Transformer.create(spec, seed)
    held, few = dict(model.named_parameters()), _kept_small(model, made, fresh)
    held |= {f"{name}.weight": layer.weight for name, layer in few_bits(model).items() if name not in few}
    old, classes = model.spec, (spec.labels, spec.label_names)
    same = "classifier" in old.outputs and (old.labels, old.label_names) == classes
    other = () if same else ("outputs.classifier.",)
    if old.pooler != spec.pooler or not (same or exchange.written_as(spec) in KEEPS_POOLER):
        other += ("outputs.pooler.",)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name not in held or name.startswith(other):
                continue
            value = held[name]
            kept = min(len(value), len(parameter) - (fresh if name in TABLES else 0))
            parameter[:kept] = value[:kept]
    put_in(made, {name: deepcopy(layer) for name, layer in few.items() if not name.startswith(other)})
    return made.to(model.device, model.dtype)


def _kept_small(model: Transformer, made: Transformer, fresh: int) -> dict[str, Quantized]:
    """The layers of few bits that the new model has too, with as many rows and none of them new."""
    sizes = {name: tuple(value.shape) for name, value in made.named_parameters()}
    return {
        name: layer for name, layer in few_bits(model).items()
        if sizes.get(f"{name}.weight") == (layer.out_features, layer.in_features)
        and not (fresh and f"{name}.weight" in TABLES)
    }  # fmt: skip


TABLES = ("embedding.weight", "outputs.language.table.weight", "outputs.language.bias")
