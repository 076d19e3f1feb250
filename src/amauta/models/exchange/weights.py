"""The safetensors of a model folder, one file or several with an index. Pickled weights are never opened."""

import json
import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Weights:
    """The tensors of a folder by name, read one at a time. A context manager.

    Raises ModelError: no weights, pickled ones only, a shard that the index names and the folder lacks, a file that is
    damaged or cut off (with the first tensor that is not whole, and its offset).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._opened: dict[str, Any] = {}  # tensor name -> the open file that holds it

    def __enter__(self) -> "Weights":
        from safetensors import SafetensorError, safe_open

        for file in files_of(self.folder):
            try:
                opened = self._stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise _damage(file, error) from None
            self._opened |= dict.fromkeys(opened.keys(), opened)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        return list(self._opened)

    def read(self, name: str) -> "Tensor":
        return self._opened[name].get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._opened[name].get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        """The type of a tensor's numbers as safetensors spells it: ``BF16``."""
        return str(self._opened[name].get_slice(name).get_dtype())


def files_of(folder: Path) -> list[Path]:
    """The files that make up the weights, in the order of their names; ModelError where one is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError("exchange.damaged", file=folder / INDEX, reason=error) from None
        absent = sorted(name for name in named if Path(name).name != name or not (folder / name).is_file())
        if absent:
            raise ModelError("exchange.no-shard", index=folder / INDEX, names=", ".join(absent))
        return [folder / name for name in sorted(named)]
    pickled = [file.name for pattern in PICKLED for file in folder.glob(pattern)]
    if pickled:
        raise ModelError("exchange.pickled", folder=folder, files=", ".join(sorted(pickled)))
    raise ModelError("exchange.no-weights", folder=folder)


def _damage(file: Path, error: Exception) -> ModelError:
    """What is wrong with a safetensors file, as exactly as its header tells."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, size)))
        tensors = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        broken = min(((start, name, end) for name, (start, end) in tensors.items() if 8 + length + end > size))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return ModelError("exchange.damaged", file=file, reason=error)
    start, name, end = broken
    return ModelError(
        "exchange.cut-off", file=file, tensor=name, at=8 + length + start, until=8 + length + end, size=size
    )
