"""Checkpoints: named tensors and a JSON state, whole or not there at all; nothing is ever pickled."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from amauta.base.errors import RunError
from amauta.runs import Run, aside, raise_if_full, replace_folder

STATE = "state.json"


def save(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write ``{group}.safetensors`` for each group and ``state.json``, aside, then rename the folder into place.

    Raises RunError when the disk is full; a checkpoint that stood before is untouched and nothing is left beside it.
    """
    from safetensors.torch import save as serialise

    folder.parent.mkdir(parents=True, exist_ok=True)
    made = aside(folder)
    try:
        made.mkdir()
        for name, tensors in groups.items():
            data = serialise(_apart({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
            (made / f"{name}.safetensors").write_bytes(data)
        (made / STATE).write_text(json.dumps(dict(state), indent=1), encoding="utf-8")
        replace_folder(made, folder)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        raise_if_full(error, folder)
        raise


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which none shares its memory with another: a file holds weights that a model has twice twice."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen and tensor.numel() else tensor
        seen.add(tensor.data_ptr())
    return found


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What ``save`` wrote. Raises RunError when a file is missing or cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        groups = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError("runs.damaged-checkpoint", path=folder, reason=error) from None
    return groups, state


def prune(run: Run, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints of a run."""
    for step in run.complete_checkpoints()[:-keep]:
        shutil.rmtree(run.checkpoint(step), ignore_errors=True)
