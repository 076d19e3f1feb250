"""Model folders in the layouts of Hugging Face, one file a family; weights are read from safetensors only.

A family file offers

    MODEL_TYPE                         as config.json spells it; ALIASES are further spellings of the same layout
    to_config(spec) -> dict | None     its config.json, or None when the family cannot express the spec
    to_spec(config, names) -> Spec     ModelError for an option that we do not compute: never a silently different model
    layout(spec) -> Layout             their names for our tensors
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean
from amauta.models.exchange import layout, quantized, sentence
from amauta.models.exchange.weights import SINGLE, Weights
from amauta.models.ngram import MODEL_TYPE as NGRAM
from amauta.models.spec import Spec
from amauta.runs import CONFIG, GENERATION, write_atomically

if TYPE_CHECKING:  # what a config says is read without torch
    import torch
    from torch import Tensor

    from amauta.models.transformer import Transformer

FAMILIES = (  # saving takes a spec's own family, else the first that can express it
    "llama", "qwen3", "mistral", "qwen2", "gemma3", "gpt2", "openai_gpt", "t5", "bart", "bert",
    "distilbert", "roberta", "electra", "albert", "reformer", "native",
)  # fmt: skip


def family(model_type: str) -> ModuleType:
    """The file of the family that calls itself ``model_type`` in config.json."""
    if model_type == NGRAM:
        raise ModelError("exchange.an-ngram")
    modules = {spelt: module for module in map(_module, FAMILIES) for spelt in _spellings(module)}
    if model_type not in modules:
        raise ModelError("exchange.unknown-type", model_type=model_type, hint=did_you_mean(model_type, modules))
    return modules[model_type]


def save(model: "Transformer", folder: Path, *, special: Mapping[str, Any] | None = None) -> None:
    """Write config.json, generation_config.json and model.safetensors; ``special`` holds bos/eos/pad token ids."""
    from safetensors.torch import save as serialise

    if model.adapters:
        raise ModelError("adapters.not-plain", names=", ".join(model.adapters))
    spec = model.spec
    module, config = _written_as(spec)
    dtype, few = str(model.dtype).removeprefix("torch."), quantized.entry(model)
    config = {"model_type": module.MODEL_TYPE, "dtype": dtype, "torch_dtype": dtype, **(special or {}), **config, **few}
    tensors = {name: value.cpu() for name, value in quantized.tensors_of(model).items()}  # a shared one once
    names = None if few else module.layout(spec)
    theirs = tensors if names is None else layout.to_theirs(names, tensors, bare=not spec.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.contiguous() for name, value in theirs.items()}
    write_atomically(folder / SINGLE, serialise(whole, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if names is not None:
        sentence.write(spec, tensors, folder)
    if special:
        start = {} if spec.decoder_start is None else {"decoder_start_token_id": spec.decoder_start}
        write_atomically(folder / GENERATION, json.dumps(start | dict(special), indent=2) + "\n")


def load(folder: Path, *, device: "torch.device | str" = "cpu", dtype: "torch.dtype | None" = None) -> "Transformer":
    """The model of a folder, in evaluation mode, its weights in ``dtype`` (f32 when left out).

    Raises ModelError: a missing file, an unknown type or option, tensors that are missing, of another shape or not of
    this model, each named.
    """
    import torch

    from amauta.models.transformer import Transformer

    within = sentence.encoder_folder(folder)
    config = read_config(within)
    module = family(config.get("model_type", ""))
    with Weights(within) as weights:
        if (said := quantized.said_in(config)) is not None:
            model, ours = quantized.read(said, weights, dtype or torch.float32)
        else:
            spec = sentence.overlay(folder, _spec(module, config, weights.names))
            model = Transformer(spec)
            ours = _ours(module, spec, weights, model) | sentence.tensors(folder)
    put(model, ours, dtype or torch.float32, folder)
    return model.to(device).eval()


def put(model: "Transformer", tensors: "Mapping[str, Tensor]", dtype: "torch.dtype", where: Path) -> None:
    """Make ``tensors`` the model's weights, in ``dtype``; ModelError names those that are missing, left over or of
    another shape."""
    wanted = dict(model.named_parameters())
    faults = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    if faults or extra:
        raise ModelError("exchange.weights-disagree", folder=where, missing=_some(faults), extra=_some(extra))
    shapes = [
        f"{name} {tuple(tensors[name].shape)} ≠ {tuple(parameter.shape)}"
        for name, parameter in wanted.items()
        if tensors[name].shape != parameter.shape
    ]
    if shapes:
        raise ModelError("exchange.other-shapes", folder=where, shapes="; ".join(shapes[:SHOWN]))
    model.load_state_dict({name: tensors[name].to(dtype) for name in wanted}, strict=False, assign=True)


SHOWN = 8  # names in an error


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; ModelError when it is missing or malformed."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{type(config).__name__} at the top")
        return config
    except (OSError, ValueError) as error:
        raise ModelError("exchange.no-config", folder=folder, reason=error) from None


def read_spec(config: Mapping[str, Any]) -> Spec:
    """The spec that a config.json describes, without its weights."""
    return _spec(family(config.get("model_type", "")), config)


def spec_in(folder: Path) -> Spec:
    """The spec of a folder by its config.json and the names of its tensors; their numbers are not read."""
    within = sentence.encoder_folder(folder)
    config = read_config(within)
    with Weights(within) as weights:
        return sentence.overlay(folder, _spec(family(config.get("model_type", "")), config, weights.names))


def _spec(module: ModuleType, config: Mapping[str, Any], names: Collection[str] = ()) -> Spec:
    try:
        if (few := quantized.spec_in(config)) is not None:
            return few
        return dataclasses.replace(module.to_spec(dict(config), names), family=module.MODEL_TYPE)
    except KeyError as error:
        raise ModelError("exchange.no-option", name=error.args[0]) from None


def _ours(module: ModuleType, spec: Spec, weights: Weights, model: "Transformer") -> "dict[str, Tensor]":
    """Our tensors from a folder's."""
    names = module.layout(spec)
    if names is None:
        return {name: weights.read(name) for name in weights.names}
    wanted = {name: value.shape for name, value in model.named_parameters()}
    found = layout.to_ours(names, weights.names, weights.read, wanted=wanted)
    if found.missing or found.extra:
        raise ModelError(
            "exchange.weights-disagree", folder=weights.folder, missing=_some(found.missing), extra=_some(found.extra)
        )
    if found.unequal and spec.outputs:
        raise ModelError("exchange.tied-but-other", folder=weights.folder, names=_some(found.unequal))
    return found.tensors


def written_as(spec: Spec) -> str:
    """The model type that a model of this spec is saved as."""
    return _written_as(spec)[0].MODEL_TYPE


def _written_as(spec: Spec) -> tuple[ModuleType, dict[str, Any]]:
    """The family that a model is saved in, and its config."""
    modules = sorted(map(_module, FAMILIES), key=lambda module: module.MODEL_TYPE != spec.family)
    return next((module, config) for module in modules if (config := module.to_config(spec)) is not None)


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return (shown or "-") + (f" … ({len(names)})" if len(names) > SHOWN else "")


def _spellings(module: ModuleType) -> tuple[str, ...]:
    return (module.MODEL_TYPE, *getattr(module, "ALIASES", ()))


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
