"""How far one model's answers are from another's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.contract.probes import Answer, Record

Figures = dict[str, float]


def figures(before: Sequence[Answer], after: Sequence[Answer]) -> Figures:
    """Of all places of all rows: {"kl", "largest_difference", "top1_agreement", "perplexity_ratio"}.

    ``kl``: mean KL(before ‖ after), nats a place; ``largest_difference`` of two log-probs; the share of places with the
    same likeliest token; the perplexity of the rows after, divided by that before. Entries of the vocabulary that only
    one of them has are left out.
    """
    kls, same, largest = [], [], 0.0
    for one, other in zip(before, after, strict=True):
        both = min(one.logprobs.shape[-1], other.logprobs.shape[-1])
        old, new = one.logprobs[:, :both], other.logprobs[:, :both]
        kls.append((old.exp() * (old - new)).sum(-1))
        same.append((old.argmax(-1) == new.argmax(-1)).float())
        largest = max(largest, float((old - new).abs().max()))
    return {
        "kl": _positive(torch.cat(kls).mean()),
        "largest_difference": largest,
        "top1_agreement": float(torch.cat(same).mean()),
        "perplexity_ratio": _ratio(torch.cat([one.given for one in before]), after),
    }


def against_record(record: Record, after: Sequence[Answer]) -> Figures:
    """The same against what was recorded: the KL of the kept log-probs with all others taken together as one, which
    is never more than the whole, and the largest difference among the kept.

    ModelError where the answers have another form: another vocabulary or another output.
    """
    new = torch.cat([one.logprobs for one in after])
    if len(new) != len(record.given) or new.shape[-1] <= int(record.ids.max()):
        raise ModelError("contract.other-shape", places=len(record.given), found=len(new), size=new.shape[-1])
    old, now = record.logprobs, new.gather(1, record.ids)
    kl = (old.exp() * (old - now)).sum(-1) + _rest(old, now)
    return {
        "kl": _positive(kl.mean()),
        "largest_difference": float((old - now).abs().max()),
        "top1_agreement": float((record.ids[:, 0] == new.argmax(-1)).float().mean()),
        "perplexity_ratio": _ratio(record.given, after),
    }


def shown(found: Mapping[str, Any]) -> str:
    """A line for people."""
    return (
        f"KL {found['kl']:.3g}, {found['largest_difference']:.3g}, {found['top1_agreement']:.1%}, "
        f"×{found['perplexity_ratio']:.4g}"
    )


def _rest(old: Tensor, now: Tensor) -> Tensor:
    """The part of the KL of all that was not kept, as one outcome."""
    left, right = (1 - one.exp().sum(-1).double() for one in (old, now))
    left, right = left.clamp(min=0), right.clamp(min=1e-12)
    return torch.where(left > 1e-7, left * (left.clamp(min=1e-12).log() - right.log()), 0.0).float()


def _positive(kl: Tensor) -> float:
    """Never less than 0 but for rounding; what is no number stays so."""
    value = float(kl)
    return value if math.isnan(value) else max(0.0, value)


def _ratio(before: Tensor, after: Sequence[Answer]) -> float:
    """Perplexity after, divided by that before: exp of the mean loss of log-prob over the places that ask."""
    asking = sum(int((one.wanted >= 0).sum()) for one in after)  # others give 0 on both sides
    lost = float((before - torch.cat([one.given for one in after])).sum()) / max(1, asking)
    return math.exp(min(lost, 700.0)) if not math.isnan(lost) else lost
