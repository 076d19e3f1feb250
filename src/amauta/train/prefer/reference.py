"""The reference of a preference method: its log-probs do not change, so they are computed once and kept by content."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta import runs
from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.data.batches import Piece
from amauta.device import Device
from amauta.hub import Found, find_model
from amauta.metrics import console
from amauta.models.adapters import attached
from amauta.models.exchange.opening import needed_tokenizer, read_weights, spec_of, weight_files
from amauta.train.adapted import Without, start_of
from amauta.train.prefer.steps import answer_logprobs, loss_of
from amauta.train.start import Base


@dataclass
class Reference:
    """A model that does not learn: the policy as it stood at the start, or another.

    ``model`` is None until it is needed, where it is another than the policy: with its log-probs kept it never is.
    """

    found: Found
    device: Device
    rows: int
    length: int
    model: Any = None
    own: bool = True
    _weights: str = field(default="", repr=False)

    def logprobs(self, pieces: Sequence[Piece]) -> Tensor:
        """Summed log-probs of what each piece carries a loss on, (N,) f32: from the cache, or computed and kept there.

        What is kept is found again by the content of the weights and of the pieces and by how it was computed (number
        type, rows and their length, torch), so that it is bit for bit what would be computed now.
        """
        file = runs.reference_file(self.key(pieces))
        kept = _read(file, len(pieces))
        if kept is not None:
            console.print(say("prefer.reference-kept", answers=len(pieces), file=file), markup=False, soft_wrap=True)
            return kept.to(self.device.device)
        began = time.perf_counter()
        made = answer_logprobs(self.open(), pieces, rows=self.rows, length=self.length, device=self.device)
        _write(file, made)
        seconds = f"{time.perf_counter() - began:.1f}"
        console.print(say("prefer.reference-made", answers=len(pieces), seconds=seconds), markup=False, soft_wrap=True)
        return made

    def pairs(self, units: Sequence[Sequence[Piece]]) -> Tensor:
        """The same of both answers of every pair: (N, 2)."""
        return self.logprobs([piece for unit in units for piece in unit]).view(-1, 2)

    def open(self) -> Any:
        """The model itself; the policy, as long as it has not learnt anything, and without the adapters that do."""
        if self.model is None:
            self.model = read_weights(self.found, None, device=self.device.device)
        return Without(self.model) if self.own and attached(self.model) else self.model

    def frozen(self) -> Any:
        """A model that stays what it is while the policy learns, for what cannot be computed before."""
        model = self.open()
        return start_of(self.model) if self.own else model.eval().requires_grad_(False)

    def key(self, pieces: Sequence[Piece]) -> str:
        """What log-probs of these pieces are found again by."""
        if not self._weights:
            self._weights = "".join(runs.digest(file) for file in weight_files(self.found))
        device = self.device
        how = [self._weights, str(device.autocast), device.device.type, self.rows, self.length, torch.__version__]
        total = hashlib.blake2b(json.dumps(how).encode(), digest_size=20)
        for piece in pieces:
            total.update(np.int64(len(piece.ids)).tobytes() + np.asarray(piece.ids, dtype=np.int64).tobytes())
            total.update(loss_of(piece).tobytes())
        return total.hexdigest()


def reference_of(name: str | None, base: Base) -> Reference:
    """The reference called ``name``, or the policy's own start. ModelError where it has another vocabulary."""
    given = {"device": base.device, "rows": base.loop.rows, "length": base.length}
    if name is None:
        return Reference(base.parent, model=base.model, **given)
    found = find_model(name)
    theirs = needed_tokenizer(found)
    spec = spec_of(found)
    if theirs.fingerprint != base.tokenizer.fingerprint or spec.vocabulary != base.model.spec.vocabulary:
        raise ModelError("prefer.other-vocabulary", reference=name, theirs=spec.vocabulary,
                         ours=base.model.spec.vocabulary, model=base.parent.name)  # fmt: skip
    if base.length > spec.context:
        raise ModelError("train.beyond-context", length=base.length, context=spec.context)
    return Reference(found, own=False, **given)


def _read(file: Any, answers: int) -> Tensor | None:
    """What is kept, or None where nothing is, or nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept = load_file(file)["logprobs"]
    except (OSError, SafetensorError, KeyError):
        return None
    return kept if kept.shape == (answers,) else None


def _write(file: Any, logprobs: Tensor) -> None:
    from safetensors.torch import save

    runs.write_atomically(file, save({"logprobs": logprobs.cpu().contiguous()}))
