"""Filters on logits: what changes the distribution that the next token is drawn from.

Each filter is ``(logits (B, V), history, *, knobs) -> logits (B, V)``. ``history`` holds the ids of each row so far,
the prompt included. A knob is a number or a tensor of shape (B, 1), so that the requests of one batch may differ; one
that holds tokens is a list with an entry a row. The input is never changed; a removed token gets -inf; at least one
token stays where not all are forbidden. The order in ``FILTERS`` is the order of application, that of transformers:
what depends on the text first, then, where a token is drawn, temperature and the truncations, so that top-p sees the
distribution that top-k left. Frequency and presence penalties, which are not in transformers, follow the repetition
penalty, as in vLLM.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.filters.steering import ban, bias, count_penalties, min_tokens, no_repeat_ngram, repetition_penalty
from amauta.decode.filters.truncation import (
    History,
    epsilon_cutoff,
    eta_cutoff,
    min_p,
    shortlist,
    temperature,
    top_h,
    top_k,
    top_p,
    typical_p,
)
from amauta.decode.settings import TEXTS, Sampling

Trace = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Filter:
    """A filter and its knobs, which are fields of Sampling: it works where one of them is not at its default.

    ``draws``: greedy choice leaves it out, and it takes ``keep``. ``answer``: its history is the answer without the
    prompt. ``beside``: knobs that it needs and that do not make it work.
    """

    apply: Callable[..., Tensor]
    knobs: tuple[str, ...]
    draws: bool = False
    answer: bool = False
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.apply.__name__

    def asked(self, settings: Sampling) -> bool:
        return not settings.active.isdisjoint(self.knobs) and not (self.draws and settings.temperature == 0)


FILTERS = (
    Filter(bias, ("bias_ids",)),
    Filter(repetition_penalty, ("repetition_penalty",)),
    Filter(count_penalties, ("frequency_penalty", "presence_penalty"), answer=True),
    Filter(no_repeat_ngram, ("no_repeat_ngram_size",)),
    Filter(ban, ("ban_ids",)),
    Filter(min_tokens, ("min_tokens",), answer=True, beside=("stop_ids",)),
    Filter(temperature, ("temperature",), draws=True),
    Filter(top_h, ("top_h",), draws=True),
    Filter(top_k, ("top_k",), draws=True),
    Filter(top_p, ("top_p",), draws=True),
    Filter(min_p, ("min_p",), draws=True),
    Filter(typical_p, ("typical_p",), draws=True),
    Filter(epsilon_cutoff, ("epsilon_cutoff",), draws=True),
    Filter(eta_cutoff, ("eta_cutoff",), draws=True),
)
FORBIDDING = ("no_repeat_ngram_size", "ban_ids", "min_tokens")  # knobs that may leave nothing


def apply_filters(
    logits: Tensor,
    history: History,
    settings: Sequence[Sampling],
    *,
    prompt_lengths: Sequence[int] | None = None,
    keep: int = 1,
    dead_ends: bool = False,
    trace: Trace | None = None,
) -> Tensor:
    """All filters that some row asks for, in order; a row that does not ask for one passes it unchanged.

    ``logits`` (B, V) f32, ``settings`` one a row, without texts (``Sampling.resolved``) -> (B, V).
    ``prompt_lengths``: how many of a row's first ids are its prompt; none without it. ``keep``: the least tokens that
    truncations leave. ``trace`` gets the name of each filter that ran, with the logits after it.

    ModelError, with the row's ``number``, where nothing is left that could come; with ``dead_ends`` such a row is all
    -inf, for a search that gives it up.
    """
    active = frozenset().union(*(one.active for one in settings))
    if not active.isdisjoint(TEXTS):
        raise ValueError("texts to ban or bias are resolved before filters are applied")
    answers = history
    if prompt_lengths is not None:
        answers = [ids[length:] for ids, length in zip(history, prompt_lengths, strict=True)]
    plan = [
        (filter, [row for row, one in enumerate(settings) if filter.asked(one)])
        for filter in FILTERS
        if not active.isdisjoint(filter.knobs)
    ]

    def run(logits: Tensor, draws: bool) -> Tensor:
        for filter, rows in plan:
            if rows and filter.draws == draws:
                logits = _apply(filter, logits, answers if filter.answer else history, settings, rows, keep)
                if trace is not None:
                    trace.append((filter.name, logits))
        return logits

    logits = run(logits, draws=False)
    if not dead_ends and not active.isdisjoint(FORBIDDING):
        _check_left(logits)
    few = None
    if trace is None and "top_h" not in active and all(one.top_k and one.temperature for one in settings):
        few = shortlist(logits, [max(one.top_k, keep) for one in settings])
    if few is None:
        return run(logits, draws=True)
    values, columns = few
    return torch.full_like(logits, -torch.inf).scatter_(-1, columns, run(values, draws=True))


def _check_left(logits: Tensor) -> None:
    empty = logits.amax(-1) == -torch.inf
    if bool(empty.any()):
        raise ModelError("sampling.nothing-left", number=int(empty.nonzero()[0, 0]) + 1, count=len(logits))


def _apply(
    filter: Filter, logits: Tensor, history: History, settings: Sequence[Sampling], rows: list[int], keep: int
) -> Tensor:
    """One filter on the ``rows`` that ask for it."""
    names = filter.knobs + filter.beside
    knobs: dict[str, Any] = {name: _knob([getattr(settings[row], name) for row in rows], logits) for name in names}
    if filter.draws:
        knobs["keep"] = keep
    if len(rows) == len(settings):
        return filter.apply(logits, history, **knobs)
    places = torch.tensor(rows, device=logits.device)
    found = filter.apply(logits[places], [history[row] for row in rows], **knobs)
    return logits.index_copy(0, places, found)


def _knob(values: list[Any], logits: Tensor) -> Tensor | list[Any]:
    """Numbers as (B, 1); what holds tokens as it is."""
    if isinstance(values[0], tuple):
        return values
    return torch.tensor(values, dtype=torch.float64, device=logits.device).to(logits.dtype).unsqueeze(-1)
