"""Writing an adapter's folder: its tensors and settings, in peft's layout where peft has the kind; the tokenizer where
it knows new tokens; and which weights it was made for."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialise
from torch import Tensor

from amauta.adapt.tokens import NewRows
from amauta.config import to_dict
from amauta.hub import Found
from amauta.models.adapters.attach import added
from amauta.models.adapters.parts import parts
from amauta.models.adapters.reading import OWN
from amauta.models.exchange import peft
from amauta.models.exchange.opening import spec_of, weight_files
from amauta.models.transformer import Transformer
from amauta.runs import ADAPTER_CONFIG, ADAPTER_OWN, ADAPTER_WEIGHTS, digest, write_atomically
from amauta.tokenize.either import AnyTokenizer

RUNNING = ("context", "family", "vocabulary")  # fields of the spec that are not the adapter's to say


def write(
    model: Transformer, tokenizer: AnyTokenizer | None, base: Found, folder: Path, *, name: str = "default"
) -> dict[str, Any]:
    """Write the adapter ``name`` of a model whose plain weights are those of ``base`` into ``folder``.

    Returns {"adapter": its kinds, "numbers": how many it holds, "bytes", "layout": "peft" or "amauta"}.
    """
    found = peft.written(model, name)
    config, tensors = _own(model, name) if found is None else found
    config = {"base_model_name_or_path": _for_peft(base), **config}
    rest = _rest(model, base, folder, name, config)
    folder.mkdir(parents=True, exist_ok=True)
    if any(isinstance(part, NewRows) for _, part in parts(model, name)) and tokenizer is not None:
        tokenizer.save(folder, max_length=model.spec.limit, segments=model.spec.segments > 1)
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(folder / ADAPTER_WEIGHTS, serialise(whole, metadata={"format": "pt"}))
    write_atomically(folder / ADAPTER_OWN, json.dumps(rest, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")
    return {
        "adapter": list(model.adapters[name].settings.adapter),
        "numbers": sum(value.numel() for value in whole.values()),
        "bytes": (folder / ADAPTER_WEIGHTS).stat().st_size,
        "layout": "amauta" if found is None else "peft",
    }


def _own(model: Transformer, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return {"peft_type": OWN, "task_type": None, "inference_mode": True}, added(model, name)


def _rest(model: Transformer, base: Found, folder: Path, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """What peft has no place for."""
    one = model.adapters[name]
    weights = [{"file": file.name, "sha256": digest(file)} for file in weight_files(base)]
    beside = os.path.relpath(base.path.resolve(), folder.resolve()) if base.source in ("path", "run") else None
    of = {"name": base.name, "source": base.source, "beside": beside, "weights": weights}
    found: dict[str, Any] = {"base": of, "settings": to_dict(one.settings), "spec": _differences(model, base)}
    rows = [part for _, part in parts(model, name) if isinstance(part, NewRows)]
    if rows:
        found |= {"vocabulary": model.spec.vocabulary, "first": rows[0].first}
    if config["peft_type"] == OWN:
        found["also"] = list(one.held)
    return found


def _differences(model: Transformer, base: Found) -> dict[str, Any]:
    """Fields of the model's spec that the base has otherwise: another output, for one."""
    before, after = (json.loads(json.dumps(dataclasses.asdict(spec))) for spec in (spec_of(base), model.spec))
    return {key: value for key, value in after.items() if key not in RUNNING and value != before[key]}


def _for_peft(base: Found) -> str:
    """The base as peft's own reader looks for it: a folder by its path, anything else by its name."""
    return str(base.path.resolve()) if base.kind == "folder" and base.source in ("path", "run") else base.name
