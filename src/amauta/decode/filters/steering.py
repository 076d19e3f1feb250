"""Filters that raise, lower or forbid certain tokens, by what was written so far or by their ids.

What they forbid may be all that there is: ``apply_filters`` looks for that.

Shapes and terms are those of ``filters.py``. The work of each is in proportion to the history and the tokens named,
not to the vocabulary, but for one copy of the logits. A history kept as ``array.array("q")`` is read at once, a list
id by id. Knobs that hold tokens are given one a row.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from amauta.decode.filters.sequences import Ids, banned, biased
from amauta.decode.filters.truncation import History, Knob

Written = Sequence[tuple[str | int, ...]]  # sequences as the settings have them, those of each row


def bias(logits: Tensor, history: History, *, bias_ids: Written) -> Tensor:
    """Adds to the logit of a token, or of the last token of a sequence where those before it end the history."""
    return _add(logits, history, [_grouped(biased, row) for row in bias_ids])


def repetition_penalty(logits: Tensor, history: History, *, repetition_penalty: Knob) -> Tensor:
    """Tokens already present: z / r where z > 0, z * r elsewhere (Keskar et al. 2019, arXiv 1909.05858, section 4.1).

    As in transformers the sign decides between division and product, which the paper does not say.
    """
    rows, places = _places(history, logits)
    r = _each(repetition_penalty, rows, logits)
    seen = logits.reshape(-1)[places]  # (N,)
    return _put(logits, places, torch.where(seen > 0, seen / r, seen * r))


def count_penalties(logits: Tensor, history: History, *, frequency_penalty: Knob, presence_penalty: Knob) -> Tensor:
    """z - alpha count - beta [count > 0], counted in the answer without its prompt, as the OpenAI API and vLLM do.

    ``history`` holds the answer alone. Not in transformers.
    """
    rows, places = _places(history, logits)
    alpha, beta = (_each(knob, rows, logits) for knob in (frequency_penalty, presence_penalty))
    counts = logits.new_zeros(logits.numel()).index_add_(0, places, logits.new_ones(len(places)))[places]
    return _put(logits, places, logits.reshape(-1)[places] - alpha * counts - beta)


def no_repeat_ngram(logits: Tensor, history: History, *, no_repeat_ngram_size: Knob) -> Tensor:
    """No n tokens in a row come twice (Paulus et al. 2017, arXiv 1705.04304, section 2.5, with any n); 0 lets them."""
    sizes = torch.as_tensor(no_repeat_ngram_size).expand(len(history), 1)[:, 0].tolist()
    found = [_completions(np.asarray(row, dtype=np.int64), int(n)) for row, n in zip(history, sizes, strict=True)]
    rows = np.repeat(np.arange(len(found)), [len(ids) for ids in found])
    return _forbid(logits, rows, np.concatenate(found))


def _completions(ids: np.ndarray, n: int) -> np.ndarray:
    """The tokens that followed, so far, on the last n - 1 of ``ids``."""
    windows = len(ids) - n + 1
    if n == 0 or windows < 1:
        return ids[:0]
    match = np.ones(windows, dtype=bool)
    for place in range(n - 1):
        match &= ids[place : place + windows] == ids[windows + place]
    return ids[n - 1 :][match]


def ban(logits: Tensor, history: History, *, ban_ids: Written) -> Tensor:
    """As ``bias`` with minus infinity."""
    return _add(logits, history, [_grouped(banned, row) for row in ban_ids])


def min_tokens(logits: Tensor, history: History, *, min_tokens: Knob, stop_ids: Sequence[Sequence[int]]) -> Tensor:
    """Nothing that ends the answer comes before it has so many tokens; ``history`` holds the answer alone."""
    least = torch.as_tensor(min_tokens).expand(len(history), 1)[:, 0].tolist()
    short = [row for row, written in enumerate(history) if len(written) < least[row]]
    held = [[id for id in stop_ids[row] if id < logits.shape[-1]] for row in short]
    rows = np.repeat(np.array(short, dtype=np.int64), [len(ids) for ids in held])
    return _forbid(logits, rows, np.array([id for ids in held for id in ids], dtype=np.int64))


class _Group(NamedTuple):
    """Sequences by how they are looked up: single tokens at once, the others by the token before their last."""

    ids: Tensor  # (N,)
    numbers: Tensor  # (N,)
    after: dict[int, list[tuple[Ids, int, float]]]  # tokens before the last, the last, its number


@lru_cache(maxsize=256)
def _grouped(read: Callable[[Any], dict[Ids, float]], written: tuple[str | int, ...]) -> _Group:
    sequences = read(written)
    alone = {ids[0]: number for ids, number in sequences.items() if len(ids) == 1}
    after: dict[int, list[tuple[Ids, int, float]]] = {}
    for (*before, last), number in sequences.items():
        if before:
            after.setdefault(before[-1], []).append((tuple(before), last, number))
    return _Group(torch.tensor(list(alone), dtype=torch.long), torch.tensor(list(alone.values())), after)


def _add(logits: Tensor, history: History, groups: Sequence[_Group]) -> Tensor:
    rows = [torch.full_like(group.ids, row) for row, group in enumerate(groups)]
    ids, numbers = [group.ids for group in groups], [group.numbers for group in groups]
    for row, (written, group) in enumerate(zip(history, groups, strict=True)):
        for before, last, number in group.after.get(written[-1], ()) if len(written) else ():
            if tuple(written[-len(before) :]) == before:
                rows.append(torch.tensor([row]))
                ids.append(torch.tensor([last]))
                numbers.append(torch.tensor([number]))
    places = torch.cat(rows).to(logits.device), torch.cat(ids).to(logits.device)
    return logits.index_put(places, torch.cat(numbers).to(logits), accumulate=True)


def _forbid(logits: Tensor, rows: np.ndarray, ids: np.ndarray) -> Tensor:
    if not len(rows):
        return logits
    places = torch.from_numpy(rows).to(logits.device), torch.from_numpy(ids).to(logits.device)
    return logits.index_put(places, logits.new_tensor(-torch.inf))


def _places(history: History, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of everything that the rows hold its row and its place among the B V logits: two (N,)."""
    ids = torch.from_numpy(np.concatenate([np.asarray(row, dtype=np.int64) for row in history]))
    rows = torch.from_numpy(np.repeat(np.arange(len(history)), [len(row) for row in history]))
    return rows.to(logits.device), (rows * logits.shape[-1] + ids).to(logits.device)


def _put(logits: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """A copy of (B, V) with ``values`` (N,) at ``places``; a place that comes twice has one value."""
    return logits.reshape(-1).index_copy(0, places, values).view_as(logits)


def _each(knob: Knob, rows: Tensor, logits: Tensor) -> Tensor:
    """The knob of the row of each place: (N,)."""
    return torch.as_tensor(knob, dtype=logits.dtype, device=logits.device).expand(len(logits), 1)[rows, 0]
