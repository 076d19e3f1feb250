"""``prune``: a model with weights at zero, or a smaller one without some of its heads, neurons or layers."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from amauta.adapt.around import Around
from amauta.base.errors import ConfigError, ModelError
from amauta.compress.calibrate import calibration
from amauta.compress.prune.loss import loss_of
from amauta.compress.prune.removal import removed
from amauta.compress.prune.settings import WEIGHTS, Prune
from amauta.compress.prune.weights import set_to_zero
from amauta.models.pruned import linears
from amauta.models.quantized import few_bits
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.roles import Roles

TOGETHER = 8  # rows that are computed at a time


def prune(
    model: Transformer, tokenizer: AnyTokenizer | None, settings: Prune, *, autocast: torch.dtype | None = None
) -> tuple[Transformer, dict[str, Any]]:
    """A pruned copy of the model, in evaluation mode, and facts: {"scheme"}, those of ``set_to_zero`` or of ``removed``
    and, but for magnitude, "calibration".

    Raises ConfigError for settings that do not go together, ModelError as those two, DataError for too little text.
    """
    if settings.pattern is not None and settings.scheme not in WEIGHTS:
        raise ConfigError("prune.pattern-of-structure", scheme=settings.scheme)
    if few_bits(model) or not linears(model):
        raise ModelError("prune.nothing")
    if any(isinstance(part, Around) for part in model.modules()):
        raise ModelError("prune.has-adapters")
    facts: dict[str, Any] = {"scheme": settings.scheme}
    rows: list[Tensor] = []
    if settings.scheme != "magnitude":
        rows, facts["calibration"] = calibration(model, tokenizer, settings.calibration)
    together = [torch.stack(rows[at : at + TOGETHER]) for at in range(0, len(rows), TOGETHER)]
    if settings.scheme in WEIGHTS:
        made = deepcopy(model).eval()
        return made, facts | set_to_zero(made, together, settings, autocast=autocast)
    loss = loss_of(model, _mask(tokenizer)) if settings.by == "gradient" else None
    made, told = removed(model, rows, settings, loss)
    return made.eval(), facts | told


def _mask(tokenizer: AnyTokenizer | None) -> int | None:
    """The id that hides a token; None where the tokenizer has none."""
    try:
        return None if tokenizer is None else Roles(tokenizer).mask
    except ModelError:
        return None
