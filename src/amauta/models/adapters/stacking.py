"""Several adapters of one base written into one set of weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.hub import Found, find_model
from amauta.models.adapters.merging import Requantize, merged
from amauta.models.adapters.reading import base_of
from amauta.models.exchange.opening import read_weights, tokenizer_of, weight_files
from amauta.models.transformer import Transformer
from amauta.nn.quantized import Quantized
from amauta.runs import digest
from amauta.tokenize.either import AnyTokenizer


@dataclass(frozen=True)
class Stacked:
    """What was merged: the first adapter (``of``) and its ``base``; the model ``before``, with what it is compared, and
    the plain one ``after``; whether layers of few bits were ``rounded`` anew."""

    of: Found
    base: Found
    before: Transformer
    after: Transformer
    tokenizer: AnyTokenizer | None
    facts: dict[str, Any]
    rounded: bool


def stacked(
    names: Sequence[str],
    weights: Sequence[float] = (),
    *,
    device: torch.device | str = "cpu",
    requantize: Requantize | None = None,
) -> Stacked:
    """The plain model ``base + Σ w (base with the adapter - base)`` over adapters of one base, every w being 1 where
    none are given (Ilharco et al. 2023, arXiv 2212.04089, section 2, of whole models; LoRAs add up just so).

    ``before`` is the base with the adapter attached where there is one adapter of weight 1, else ``after`` itself.
    ModelError: no adapter, adapters of several bases or of other shapes than the first (new tokens, another output), a
    kind that cannot be merged, a base of few bits without ``requantize`` or with several adapters.
    """
    found = [_adapter(name) for name in names]
    base = base_of(found[0].path)
    prints = [[digest(file) for file in weight_files(base_of(one.path))] for one in found]
    for one, print_ in zip(found, prints, strict=True):
        if print_ != prints[0]:
            raise ModelError("adapters.other-bases", first=found[0].name, other=one.name)
    weights = list(weights) or [1.0] * len(found)
    facts = {"adapters": [{"name": one.name, "weight": weight} for one, weight in zip(found, weights, strict=True)]}
    attached = read_weights(found[0], None, device=device, merge=False)
    rounded = any(isinstance(part, Quantized) for part in attached.modules())
    after = merged(attached, requantize=requantize)
    if len(found) == 1 and weights == [1.0]:
        return Stacked(found[0], base, attached, after, tokenizer_of(found[0]), facts, rounded)
    if rounded:
        raise ModelError("adapters.several-on-few-bits")
    plain = dict(read_weights(base, None, device=device).named_parameters())
    _scale(after, plain, weights[0], found[0])
    for one, weight in zip(found[1:], weights[1:], strict=True):
        _add(after, plain, merged(read_weights(one, None, device=device, merge=False)), weight, one)
    return Stacked(found[0], base, after, after, tokenizer_of(found[0]), facts, rounded)


@torch.no_grad()
def _scale(after: Transformer, plain: dict[str, Tensor], weight: float, one: Found) -> None:
    """``base + w (after - base)``, in place."""
    for name, value in after.named_parameters():
        _check(name, value, plain, one)
        value.copy_(torch.lerp(plain[name], value, weight))


@torch.no_grad()
def _add(after: Transformer, plain: dict[str, Tensor], other: Transformer, weight: float, one: Found) -> None:
    """Add ``w (other - base)``, in place."""
    theirs = dict(other.named_parameters())
    for name, value in after.named_parameters():
        _check(name, value, theirs, one)
        value.add_(theirs[name] - plain[name], alpha=weight)


def _check(name: str, value: Tensor, others: dict[str, Tensor], one: Found) -> None:
    if name not in others or others[name].shape != value.shape:
        raise ModelError("adapters.other-sizes", name=name, adapter=one.name)


def _adapter(name: str) -> Found:
    found = find_model(name)
    if found.kind != "adapter":
        raise ModelError("adapters.no-adapter", path=name)
    return found
