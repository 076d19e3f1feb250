"""An adapter's folder: its base, what it changes of the base's spec, and putting it on a model.

``adapter_config.json`` is peft's; ``adapter.json`` says what peft has no place for: the base's name, source and the
SHA-256 of its weight files, fields of the spec that differ, and the settings. Folders of peft's have only the former.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from amauta.adapt.settings import BEFORE, Adapters
from amauta.base.errors import ModelError
from amauta.config import build
from amauta.hub import Found, find_model
from amauta.models.adapters.attach import attach, put_added
from amauta.models.adapters.parts import base_weights
from amauta.models.adapters.tokens import put_rows
from amauta.models.exchange import peft_read
from amauta.models.reshape import reshaped
from amauta.models.spec import Spec, spec_of
from amauta.models.transformer import Transformer
from amauta.runs import ADAPTER_CONFIG, ADAPTER_OWN, ADAPTER_WEIGHTS, digest

OWN = "AMAUTA"  # the peft_type of adapters that peft has not
PICKLED = "adapter_model.bin"


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json; ModelError where it is missing or damaged."""
    return _read(folder / ADAPTER_CONFIG)


def read_own(folder: Path) -> dict[str, Any]:
    """adapter.json; {} where there is none."""
    path = folder / ADAPTER_OWN
    return _read(path) if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} at the top")
        return found
    except (OSError, ValueError) as error:
        raise ModelError("exchange.damaged", file=path, reason=error) from None


def base_of(folder: Path) -> Found:
    """The model that the adapter in ``folder`` was made for: where it stood as seen from the folder, else under its
    name. ModelError where neither is there."""
    base = read_own(folder).get("base", {})
    beside, name = base.get("beside"), base.get("name") or read_config(folder).get("base_model_name_or_path")
    if beside and os.path.exists(folder / beside):
        return find_model(os.path.normpath(folder / beside))
    if not name:
        raise ModelError("adapters.no-base-named", folder=folder)
    try:
        return find_model(name)
    except ModelError as error:
        raise ModelError("adapters.no-base", folder=folder, name=name, reason=error) from None


def check_base(folder: Path, base: Found, files: Sequence[Path]) -> None:
    """ModelError where the adapter in ``folder`` was made for other weights than those of ``base``, in ``files``; both
    fingerprints are named. A folder of peft's names none: there only shapes and names can tell."""
    made_for = read_own(folder).get("base", {})
    wanted = [one["sha256"] for one in made_for.get("weights", [])]
    if not wanted:
        return
    found = [digest(file) for file in files]
    if sorted(found) != sorted(wanted):
        raise ModelError("adapters.other-base", folder=folder, base=base.name, found=_short(found),
                         wanted=_short(wanted), name=made_for.get("name"))  # fmt: skip


def spec_over(spec: Spec, folder: Path) -> Spec:
    """The spec of the base with the adapter's changes: another output, more entries of the vocabulary, less context."""
    own = read_own(folder)
    grown = {"vocabulary": own["vocabulary"]} if "vocabulary" in own else {}
    left = {} if spec.limit is None else {"context": spec.context - _ahead(read_config(folder), own)}
    return _changed(spec, own.get("spec", {}) | grown | left)


def put_on(model: Transformer, folder: Path, *, name: str = "default") -> Transformer:
    """The model with the adapter of a folder on it, switched on; another object where its outputs change.

    ModelError: a damaged file, pickled weights, what ``peft_read.put`` refuses, tensors that do not fit.
    """
    config, own, tensors = read_config(folder), read_own(folder), _tensors(folder)
    model = _with_outputs(model, _changed(model.spec, own.get("spec", {})))
    if config.get("peft_type") != OWN:
        peft_read.put(model, config, tensors, name=name)
        return model
    settings = build(Adapters, own.get("settings", {}), where=str(folder / ADAPTER_OWN))
    settings = dataclasses.replace(settings, adapter_hidden=None)  # what it gave is kept, not what made it
    if "first" in own:
        put_rows(model, own["first"], lambda path, _: tensors[f"{path}.new.rows"], name=name)
    attach(model, settings, seed=0, name=name, also=tuple(own.get("also", ())))
    put_added(model, tensors, name)
    return model


def _ahead(config: Mapping[str, Any], own: Mapping[str, Any]) -> int:
    """Positions of the context that stand ahead of a text."""
    if config.get("peft_type") in ("PREFIX_TUNING", "PROMPT_TUNING"):
        return int(config["num_virtual_tokens"])
    settings = own.get("settings", {})
    return settings["adapter_length"] if set(settings.get("adapter", ())) & set(BEFORE) else 0


def _changed(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    if not changes:
        return spec
    table = json.loads(json.dumps(dataclasses.asdict(spec)))
    return dataclasses.replace(spec_of(table | dict(changes)), family=spec.family)


def _with_outputs(model: Transformer, spec: Spec) -> Transformer:
    """The model with that spec: made anew where it has other weights."""
    if spec == model.spec:
        return model
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in Transformer(spec).named_parameters()}
    if {name: value.shape for name, value in base_weights(model).items()} == wanted:
        model.spec = spec
        return model
    return reshaped(model, spec, seed=0)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / ADAPTER_WEIGHTS
    if not path.is_file() and (folder / PICKLED).is_file():
        raise ModelError("adapters.pickled", file=folder / PICKLED)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError("exchange.damaged", file=path, reason=error) from None


def _short(digests: Sequence[str]) -> str:
    return ", ".join(one[:12] for one in digests)
