"""The hidden states of texts and of the tokens that may come next, with a cache or without.

``start() -> [(T_i, D)]`` of each row's prompt; ``look(ids (N, K)) -> (N, K, D)``: the last state of each row if it went
on with each of K tokens; ``take(choice, going)``: the token (by its place) that each row took, and the rows that go on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from amauta.decode.feed import context_of, padded

Rows = Sequence[Sequence[int]]


def states_for(
    model: Any, prompts: Rows, slots: int, sources: Rows | None, *, cached: bool = True
) -> "CachedStates | PlainStates":
    """With the model's cache where it has one. ``slots``: the most tokens that any row can come to hold."""
    if cached and hasattr(model, "new_cache") and getattr(model, "caches", True):
        return CachedStates(model, prompts, slots, sources)
    return PlainStates(model, prompts, sources)


class CachedStates:
    """K equal rows of the cache a text: all take their token, then all get the slot of the one that was chosen."""

    def __init__(self, model: Any, prompts: Rows, slots: int, sources: Rows | None) -> None:
        self.model, self.prompts, self.sources = model, prompts, sources
        self.cache = model.new_cache(len(prompts), slots)
        self.read = model if sources is None else model.decode

    def start(self) -> list[Tensor]:
        device = self.cache.lengths.device
        ids, real = padded(self.prompts, device)
        positions = torch.arange(ids.shape[1], device=device).expand(ids.shape)
        across = {}
        if self.sources is not None:
            source, mask = padded(self.sources, device)
            across = {"encoded": self.model.encode(source, mask=mask), "encoded_mask": mask}
        hidden = self.read(ids, positions=positions, cache=self.cache, **across)  # (N, T, D)
        self.cache.lengths.copy_(real.sum(1))
        return [row[: len(prompt)] for row, prompt in zip(hidden, self.prompts, strict=True)]

    def look(self, ids: Tensor) -> Tensor:
        N, K = ids.shape
        if len(self.cache.lengths) != N * K:
            self.cache.keep([row for row in range(N) for _ in range(K)])
        positions = self.cache.lengths.clamp(max=self.cache.slots - 1).unsqueeze(1)  # (N·K, 1); a text may be full
        return self.read(ids.reshape(-1, 1), positions=positions, cache=self.cache).view(N, K, -1)

    def take(self, choice: Sequence[int], going: Sequence[int]) -> None:
        cache = self.cache
        K = len(cache.lengths) // len(choice)
        rows = cache.rows[:, 0]
        chosen = torch.tensor(choice, device=rows.device) + K * torch.arange(len(choice), device=rows.device)
        chosen = chosen.repeat_interleave(K)  # (N·K,)
        at = cache.lengths.clamp(max=cache.slots - 1)
        for held in cache.held:
            held[:, rows, at] = held[:, chosen, at]
        cache.lengths += 1
        if len(going) < len(choice):
            cache.keep([n * K + k for n in going for k in range(K)])


class PlainStates:
    """Every step computes every row again: for models without a cache."""

    def __init__(self, model: Any, prompts: Rows, sources: Rows | None) -> None:
        self.model, self.sources = model, sources
        self.rows = [list(prompt) for prompt in prompts]
        self.device = next(model.parameters()).device
        self.looked: list[list[int]] = []

    def start(self) -> list[Tensor]:
        return [self._states(n, torch.tensor([row], device=self.device))[0] for n, row in enumerate(self.rows)]

    def look(self, ids: Tensor) -> Tensor:
        self.looked = ids.tolist()
        found = []
        for n, row in enumerate(self.rows):
            longer = torch.tensor([[*row, id] for id in self.looked[n]], device=self.device)  # (K, T+1)
            found.append(self._states(n, longer[:, : context_of(self.model)])[:, -1])  # a text may be full
        return torch.stack(found)

    def take(self, choice: Sequence[int], going: Sequence[int]) -> None:
        self.rows = [[*self.rows[n], self.looked[n][choice[n]]] for n in going]
        self.sources = None if self.sources is None else [self.sources[n] for n in going]

    def _states(self, number: int, ids: Tensor) -> Tensor:
        """(K, T) -> (K, T, D)."""
        if self.sources is None:
            return self.model(ids)
        source = torch.tensor([self.sources[number]], device=self.device)
        return self.model(source.expand(len(ids), -1), decoder_ids=ids)
