"""Model folders in the layouts of Hugging Face, one file a family; weights are read from safetensors only.

A family file offers

    to_config(spec) -> dict | None     its config.json, or None when the family cannot express the spec
    to_spec(config) -> Spec            ModelError for an option that we do not compute: never a silently different model
    to_theirs(spec, tensors) -> dict   our tensors under their names
    to_ours(spec, tensors) -> dict     and back
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean
from amauta.models.transformer import Transformer
from amauta.runs import write_atomically

FAMILIES = ("llama", "qwen3", "gpt2", "native")  # saving takes the first that can express the spec
WEIGHTS = "model.safetensors"


def family(model_type: str) -> ModuleType:
    """The file of the family that calls itself ``model_type`` in config.json."""
    modules = {module.MODEL_TYPE: module for module in map(_module, FAMILIES)}
    if model_type not in modules:
        raise ModelError("exchange.unknown-type", model_type=model_type, hint=did_you_mean(model_type, modules))
    return modules[model_type]


def save(model: Transformer, folder: Path, *, special: Mapping[str, Any] | None = None) -> None:
    """Write config.json, generation_config.json and model.safetensors; ``special`` holds bos/eos/pad token ids."""
    from safetensors.torch import save as serialise

    spec = model.spec
    module, config = next((m, c) for m in map(_module, FAMILIES) if (c := m.to_config(spec)) is not None)
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    config |= {"model_type": module.MODEL_TYPE, "dtype": dtype, "torch_dtype": dtype, **(special or {})}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    theirs = {name: value.contiguous() for name, value in module.to_theirs(spec, tensors).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, serialise(theirs, metadata={"format": "pt"}))
    write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")
    if special:
        write_atomically(folder / "generation_config.json", json.dumps(dict(special), indent=2) + "\n")


def load(folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """The model of a folder, in evaluation mode. Raises ModelError: a missing file, an unknown type or option."""
    config = read_config(folder)
    module = family(config.get("model_type", ""))
    spec = module.to_spec(config)
    ours = module.to_ours(spec, _read_weights(folder))
    model = Transformer(spec)
    wanted = model.state_dict()
    faults = [name for name in wanted.keys() | ours.keys() if name not in ours or name not in wanted]
    faults += [name for name in wanted if name in ours and wanted[name].shape != ours[name].shape]
    if faults:
        raise ModelError("exchange.weights-disagree", folder=folder, names=", ".join(sorted(faults)[:8]))
    model.load_state_dict({name: value.to(dtype) for name, value in ours.items()}, assign=True)
    return model.to(device).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; ModelError when it is missing or malformed."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("exchange.no-config", folder=folder, reason=error) from None


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        pickled = [file.name for file in folder.glob("*.bin")] + [file.name for file in folder.glob("*.pt*")]
        if pickled:
            raise ModelError("exchange.pickled", folder=folder, files=", ".join(pickled))
        raise ModelError("exchange.no-weights", folder=folder)
    try:
        return {name: value for file in files for name, value in load_file(file).items()}
    except SafetensorError as error:
        raise ModelError("exchange.damaged", folder=folder, reason=error) from None
