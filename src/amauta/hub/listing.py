"""All the models that a name can mean here: the known ones, those under ``runs/``, those in a hub's cache."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.hub import remote
from amauta.hub.find import ADAPTER_CONFIG, CONFIG, find_model, models_in
from amauta.hub.installed import fault_of, folder_of
from amauta.hub.known import KNOWN, Known

State = Literal["installed", "absent", "damaged"]


@dataclass(frozen=True)
class Listed:
    """One model of the list. ``size`` in bytes, on the disk; ``download`` what fetching it takes.

    ``fault`` says what is wrong with a damaged one, ``warning`` what its licence asks of its user. None: not known.
    """

    name: str
    about: str
    kind: str
    state: State
    source: str
    licence: str | None
    size: int
    download: int | None
    parameters: int | None
    path: Path | None
    fault: str | None = None
    warning: str | None = None


def listed(*, verify: bool = False) -> list[Listed]:
    """The known models, then those under ``runs/``, then those of the hub's cache; ``verify`` reads every known one
    whole and compares its SHA-256.
    """
    return [
        *(_known(known, verify) for known in KNOWN),
        *(_folder(folder) for folder in models_in(Path("runs"))),
        *(_cached(*found) for found in remote.cached()),
    ]


def _known(known: Known, verify: bool) -> Listed:
    folder = folder_of(known)
    fault = fault_of(known, folder, verify=verify) if folder else None
    state: State = "absent" if folder is None else "damaged" if fault else "installed"
    path = folder if folder is None or known.kind == "folder" else folder / known.files[0].name
    return Listed(
        known.name, say(known.about), known.kind, state, known.source, known.licence, known.size, known.download,
        known.parameters, path, fault, say(known.warning) if known.warning else None,
    )  # fmt: skip


def _folder(folder: Path) -> Listed:
    name = folder.as_posix()
    try:
        found = find_model(folder)
    except ModelError as error:  # it is listed with what is wrong with it
        return Listed(name, "-", "folder", "damaged", "path", None, 0, None, None, folder, str(error))
    files = [found.path] if found.path.is_file() else [file for file in found.path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Listed(
        name, model_type(found.path), found.kind, "installed", found.source, None, size, None,
        parameters(found.path), found.path,
    )  # fmt: skip


def _cached(repository: str, folder: Path, size: int) -> Listed:
    adapter = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "gguf"
    kind = "folder" if (folder / CONFIG).is_file() else adapter
    return Listed(
        repository, model_type(folder), kind, "installed", f"hub {repository}@{folder.name}", None, size, None,
        parameters(folder), folder,
    )  # fmt: skip


def model_type(folder: Path) -> str:
    """What config.json calls the model, or ``-``: a list must not fail for one bad folder in it."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return str(config.get("model_type", "-")) if isinstance(config, dict) else "-"
    except (OSError, ValueError):
        return "-"


def parameters(folder: Path) -> int | None:
    """The weights that a folder's safetensors files hold, counted in their headers; None without such files.

    Integers (position ids, masks) are not weights. A file that cannot be read gives None.
    """
    files = sorted(folder.glob("*.safetensors"))
    try:
        return sum(map(_weights, files)) if files else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def _weights(file: Path) -> int:
    """The floating-point values of one safetensors file: eight bytes of length, then a header in JSON."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > file.stat().st_size:
            raise ValueError(length)
        header = cast(dict[str, dict[str, object]], json.loads(opened.read(length)))
    floating = [part for part in header.values() if str(part.get("dtype", "")).startswith(("F", "BF"))]
    return sum(math.prod(cast(list[int], part["shape"])) for part in floating)
