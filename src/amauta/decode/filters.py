"""Filters on logits: what changes the distribution that the next token is drawn from.

Each filter is ``(logits (B, V), history, *, knobs) -> logits (B, V)``. ``history`` holds the ids of each row so far,
the prompt included. A knob is a number or a tensor of shape (B, 1), so that the requests of one batch may differ. The
input is never changed; a removed token gets -inf; at least one token stays. The order in ``FILTERS`` is the order of
application, that of transformers (methods: repetition first, then temperature, top-k, top-p, min-p), so top-p sees
the distribution that top-k left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amauta.decode.settings import Sampling

History = Sequence[Sequence[int]]
Knob = float | Tensor
ROUNDING = 1e-6  # of sums of f32 probabilities: what lies this near a boundary lies on it


def repetition_penalty(logits: Tensor, history: History, *, repetition_penalty: Knob) -> Tensor:
    """Tokens already present: z / r where z > 0, z * r elsewhere (Keskar et al. 2019, arXiv 1909.05858, section 4.1).

    As in transformers the sign decides between division and product, which the paper does not say.
    """
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(history):
        seen[row, torch.as_tensor(ids, dtype=torch.long, device=logits.device)] = True
    penalised = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
    return torch.where(seen, penalised, logits)


def temperature(logits: Tensor, history: History, *, temperature: Knob) -> Tensor:
    """z / tau with tau > 0: below 1 sharper, above 1 flatter. Greedy choice (tau 0) is made by the sampler."""
    return logits / temperature


def top_k(logits: Tensor, history: History, *, top_k: Knob) -> Tensor:
    """Keep the k largest logits, and those equal to the k-th (Fan et al. 2018, arXiv 1805.04833). 0 keeps all."""
    size = logits.shape[-1]
    k = torch.as_tensor(top_k, device=logits.device).to(torch.long).expand(logits.shape[0], 1)  # (B, 1)
    kept = torch.where(k == 0, size, k.clamp(max=size))
    ranked = logits.topk(int(kept.max()), dim=-1).values  # (B, largest k)
    return logits.masked_fill(logits < ranked.gather(-1, kept - 1), -torch.inf)


def top_p(logits: Tensor, history: History, *, top_p: Knob) -> Tensor:
    """Keep the smallest set of likeliest tokens whose mass reaches p (Holtzman et al. 2020, arXiv 1904.09751, eq. 2).

    The token that crosses the boundary is kept. As in transformers the test runs from the small end: a token goes when
    the mass up to and including it, counted from the least likely, is at most 1 - p; but a mass that reaches p within
    rounding counts as reached (.4 + .25 + .15 is .8). 1 keeps all.
    """
    ranked, order = logits.sort(dim=-1, stable=True)  # ascending: the order of equal logits is that of transformers
    tail = ranked.softmax(-1).cumsum(-1)  # (B, V): mass of this token and of all that are less likely
    p = torch.as_tensor(top_p, dtype=logits.dtype, device=logits.device)
    removed = (tail <= 1 - p + ROUNDING) & (p < 1)
    removed[:, -1] = False  # the likeliest always stays
    return logits.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), -torch.inf)


def min_p(logits: Tensor, history: History, *, min_p: Knob) -> Tensor:
    """Keep tokens with p >= min_p * max p, within rounding (Nguyen et al. 2024, arXiv 2407.01082). 0 keeps all."""
    p = logits.softmax(-1)
    return logits.masked_fill(p < min_p * p.max(-1, keepdim=True).values * (1 - ROUNDING), -torch.inf)


@dataclass(frozen=True)
class Filter:
    """A filter, the value of each of its knobs that switches it off, and whether greedy choice leaves it out."""

    apply: Callable[..., Tensor]
    off: dict[str, float]
    sampling_only: bool = True

    @property
    def name(self) -> str:
        return self.apply.__name__


FILTERS = (
    Filter(repetition_penalty, {"repetition_penalty": 1.0}, sampling_only=False),
    Filter(temperature, {"temperature": 1.0}),
    Filter(top_k, {"top_k": 0}),
    Filter(top_p, {"top_p": 1.0}),
    Filter(min_p, {"min_p": 0.0}),
)


def apply_filters(logits: Tensor, history: History, settings: Sequence[Sampling]) -> Tensor:
    """All filters that some row asks for, in order; a row that does not ask for one passes it unchanged.

    ``logits`` (B, V) f32, ``settings`` one a row -> (B, V). Knobs are named as the fields of Sampling.
    """
    for filter in FILTERS:
        asks = [_asks(filter, one) for one in settings]
        if not any(asks):
            continue
        knobs = {
            knob: torch.tensor([[getattr(one, knob)] for one in settings], dtype=torch.float64).to(logits)
            for knob in filter.off
        }
        wanted = torch.tensor(asks, device=logits.device).unsqueeze(-1)  # (B, 1)
        # a row that does not ask may still hold a value that cannot be computed with: a greedy row's temperature is 0
        knobs = {knob: torch.where(wanted, value, filter.off[knob]) for knob, value in knobs.items()}
        logits = torch.where(wanted, filter.apply(logits, history, **knobs), logits)
    return logits


def _asks(filter: Filter, settings: Sampling) -> bool:
    if filter.sampling_only and settings.temperature == 0:
        return False
    return any(getattr(settings, knob) != off for knob, off in filter.off.items())
