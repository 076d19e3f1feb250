"""What is checked before step 0: a fault found here costs a second, found later a night."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import nn

from amauta.base.errors import DataError, ModelError
from amauta.data.batches import Piece
from amauta.models.spec import Spec


def check_model(model: nn.Module, length: int, context: int) -> torch.device:
    """The one device that every parameter and buffer is on. ModelError: several devices, or rows beyond the context."""
    devices = {str(tensor.device) for tensor in [*model.parameters(), *model.buffers()]}
    if len(devices) != 1:
        raise ModelError("train.several-devices", devices=", ".join(sorted(devices)))
    if length > context:
        raise ModelError("train.beyond-context", length=length, context=context)
    return torch.device(devices.pop())


def check_spec(spec: Spec, name: str) -> None:
    """ModelError, with what it is, for a model that next-token steps cannot train as it is used."""
    what: list[str] = []
    if spec.kind != "decoder":
        what.append(f"kind={spec.kind}")
    if spec.outputs != ("language",):
        what.append(f"outputs={','.join(spec.outputs) or '-'}")
    if spec.output_bias:
        what.append("output_bias=True")
    if spec.output_scale != 1.0:
        what.append(f"output_scale={spec.output_scale:.6g}")
    if spec.reformer is not None:
        what.append("reformer")
    if what:
        raise ModelError("train.not-by-this", name=name, what=", ".join(what))


def check_units(units: Sequence[Sequence[Piece]], *, vocabulary: int, ends: Collection[int] | None, where: str) -> None:
    """Every id in range, at least one supervised token, and at least one supervised token of ``ends``, those that end
    an answer (None: there are no answers).

    ``where`` names the source. Raises DataError.
    """
    supervised, ended = 0, 0
    for number, unit in enumerate(units):
        for piece in unit:
            low, high = int(piece.ids.min()), int(piece.ids.max())
            if low < 0 or high >= vocabulary:
                wrong = low if low < 0 else high
                raise DataError("train.id-out-of-range", where=where, unit=number, id=wrong, vocabulary=vocabulary)
            wanted = piece.ids[1:] if piece.loss is None else piece.ids[1:][np.asarray(piece.loss, dtype=bool)]
            supervised += len(wanted)
            ended += int(np.isin(wanted, list(ends or ())).sum())
    if not supervised:
        raise DataError("train.nothing-supervised", where=where, units=len(units))
    if ends is not None and not ended:
        raise DataError("train.no-end-of-turn", where=where, units=len(units))
