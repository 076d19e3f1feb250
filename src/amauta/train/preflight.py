"""What is checked before step 0: a fault found here costs a second, found later a night."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from amauta.base.errors import DataError, ModelError
from amauta.data.batches import Piece


def check_model(model: nn.Module, length: int, context: int) -> torch.device:
    """The one device that every parameter and buffer is on. ModelError: several devices, or rows beyond the context."""
    devices = {str(tensor.device) for tensor in [*model.parameters(), *model.buffers()]}
    if len(devices) != 1:
        raise ModelError("train.several-devices", devices=", ".join(sorted(devices)))
    if length > context:
        raise ModelError("train.beyond-context", length=length, context=context)
    return torch.device(devices.pop())


def check_units(units: Sequence[Sequence[Piece]], *, vocabulary: int, turn: int | None, where: str) -> None:
    """Every id in range, at least one supervised token, and with ``turn`` at least one supervised end of turn.

    ``where`` names the source. Raises DataError.
    """
    supervised, ends = 0, 0
    for number, unit in enumerate(units):
        for piece in unit:
            low, high = int(piece.ids.min()), int(piece.ids.max())
            if low < 0 or high >= vocabulary:
                wrong = low if low < 0 else high
                raise DataError("train.id-out-of-range", where=where, unit=number, id=wrong, vocabulary=vocabulary)
            wanted = piece.ids[1:] if piece.loss is None else piece.ids[1:][np.asarray(piece.loss, dtype=bool)]
            supervised += len(wanted)
            ends += int((wanted == turn).sum()) if turn is not None else 0
    if not supervised:
        raise DataError("train.nothing-supervised", where=where, units=len(units))
    if turn is not None and not ends:
        raise DataError("train.no-end-of-turn", where=where, units=len(units))
