"""How a model is fed while it writes: the logits of each row's next token, with a cache or without.

A feed has ``start(prompts) -> (B, V)`` and ``next(rows, ids) -> (len(rows), V)``: the rows that go on, by their number
in ``prompts``, and the token that each of them took. Logits are f32.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError


def context_of(model: Any) -> int | None:
    """The longest input of the model in tokens; None for one without a limit (an n-gram, relative positions)."""
    spec = getattr(model, "spec", None)
    return getattr(spec, "limit", getattr(spec, "context", None))


def vocabulary_of(model: Any) -> int | None:
    """How many ids the model knows, V; None where it does not say."""
    return getattr(getattr(model, "spec", None), "vocabulary", getattr(model, "size", None))


def check_ids(model: Any, rows: Sequence[Sequence[int]]) -> None:
    """Raises ModelError, with row and position, for an id that the model does not know.

    Before the model sees it: an accelerator would only abort, for every kernel that follows.
    """
    size = vocabulary_of(model)
    for number, row in enumerate(rows, start=1):
        for position, id in enumerate(row):
            if isinstance(id, bool) or not isinstance(id, Integral) or id < 0 or (size is not None and id >= size):
                largest = "-" if size is None else size - 1
                raise ModelError(
                    "decode.bad-id", number=number, count=len(rows), position=position, id=repr(id), largest=largest
                )


def feed_for(
    model: Any, rows: int, slots: int, *, sources: Sequence[Sequence[int]] | None = None, cached: bool = True
) -> "CachedFeed | PrefixFeed":
    """The cached feed where the model has a cache, else the one that begins anew at every step.

    ``slots``: the most tokens that any of the ``rows`` can come to hold. ``sources``: what the encoder of an
    encoder-decoder reads, a row each.
    """
    if cached and hasattr(model, "new_cache") and getattr(model, "caches", True):
        return CachedFeed(model, rows, slots, sources)
    return PrefixFeed(model, sources)


def padded(rows: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Rows of ids as one right-padded (B, T), and True where a token is real."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device) < lengths[:, None]


class CachedFeed:
    """All prompts in one right-padded pass, then one token a row and step."""

    def __init__(self, model: Any, rows: int, slots: int, sources: Sequence[Sequence[int]] | None = None) -> None:
        self.model = model
        self.cache = model.new_cache(rows, slots)
        self.held = list(range(rows))  # the prompt that each row of the cache belongs to
        self.sources = sources
        self.read = model if sources is None else model.decode

    def start(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Prefill. A row's padding lies in slots that its own next tokens overwrite before anything sees them."""
        device = self.cache.lengths.device
        ids, real = padded(prompts, device)
        lengths = real.sum(1)
        positions = torch.arange(ids.shape[1], device=device).expand(ids.shape)
        across = {}
        if self.sources is not None:
            source, mask = padded(self.sources, device)
            across = {"encoded": self.model.encode(source, mask=mask), "encoded_mask": mask}
        hidden = self.read(ids, positions=positions, cache=self.cache, **across)  # (B, T, D)
        self.cache.lengths.copy_(lengths)
        last = hidden[torch.arange(len(prompts), device=device), lengths - 1]  # (B, D)
        return self.model.logits(last).float()

    def next(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        if 2 * len(rows) <= len(self.held):  # copying the cache pays once half of the rows have ended
            self._keep([self.held.index(row) for row in rows])
        device = self.cache.lengths.device
        token = dict(zip(rows, ids, strict=True))
        fed = torch.tensor([[token.get(row, 0)] for row in self.held], device=device)  # (B', 1)
        positions = self.cache.lengths.clamp(max=self.cache.slots - 1).unsqueeze(1)  # an ended row may be full
        hidden = self.read(fed, positions=positions, cache=self.cache)  # (B', 1, D)
        self.cache.lengths += 1
        logits = self.model.logits(hidden[:, -1]).float()  # (B', V)
        return logits if len(rows) == len(self.held) else logits[[self.held.index(row) for row in rows]]

    def _keep(self, places: list[int]) -> None:
        """Only these rows of the cache, in this order."""
        self.held = [self.held[place] for place in places]
        self.cache.keep(places)


class PrefixFeed:
    """Every step computes the whole row again: slow, and the plain truth. Also for models without a cache (n-grams)."""

    def __init__(self, model: Any, sources: Sequence[Sequence[int]] | None = None) -> None:
        self.model = model
        self.sources = sources
        self.rows: list[list[int]] = []

    def start(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.rows = [list(prompt) for prompt in prompts]
        return torch.stack([self._logits(number) for number in range(len(self.rows))])

    def next(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        for row, id in zip(rows, ids, strict=True):
            self.rows[row].append(id)
        return torch.stack([self._logits(row) for row in rows])

    def _logits(self, number: int) -> Tensor:
        """(V,). Where a model only offers log-probs these are taken: they are logits that sum to one."""
        model, row = self.model, self.rows[number]
        if isinstance(model, torch.nn.Module):
            ids = torch.tensor([row], device=next(model.parameters()).device)
            if self.sources is None:
                hidden = model(ids)
            else:
                hidden = model(torch.tensor([self.sources[number]], device=ids.device), decoder_ids=ids)
            return self.model.logits(hidden[:, -1])[0].float()
        return torch.as_tensor(model.next_logprobs(row)).float()
