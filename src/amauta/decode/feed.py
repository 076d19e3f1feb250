"""How a model is fed while it writes: the logits of each row's next token, with a cache or without.

A feed has ``start(prompts) -> (B, V)`` and ``next(rows, ids) -> (len(rows), V)``: the rows that go on, by their number
in ``prompts``, and the token that each of them took. For an engine, whose rows come and go, there are ``fill(rows,
prompts)``, ``go_on(row, ids)`` and ``copy(source, target, length)``. For those who search there are ``reorder(places)``
(row i becomes what row places[i] was; rows may double or vanish), ``extend(ids) -> [(T_i, V)]`` (several tokens a row,
the logits after each) and ``rewind(lengths)`` (forget all but each row's first tokens). Logits are f32.
"""

from collections.abc import Sequence
from itertools import accumulate
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.native.step import native_step

TOGETHER = 24  # tokens up to which step.cpp reads a prompt faster than torch does (benchmarks/prefill.py)
BLOCK = 256  # tokens of a prompt that are read in one pass: fewer, and products lose; more, and attention does


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
    """Reads each token once. On a processor a step is one call of ``native/step.cpp`` where that can compute it.

    There a row is read by itself, or with others in a manner in which none changes what another gets, so a row gets
    bit for bit what it gets alone. torch reads all rows in one right-padded pass, and may round differently by their
    number.
    """

    def __init__(self, model: Any, rows: int, slots: int, sources: Sequence[Sequence[int]] | None = None) -> None:
        self.model = model
        self.cache = model.new_cache(rows, slots)
        self.sources = sources
        self.native = native_step(model) if sources is None else None
        # torch would first make numbers of weights of few bits, which pays for no block
        self.together = BLOCK if self.native is not None and self.native.few_bits else TOGETHER
        self.prefix_lm = bool(getattr(getattr(model, "spec", None), "prefix_lm", False))

    def start(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        return self.fill(range(len(prompts)), prompts)

    def fill(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """These rows read their prompts from where they stand: (len(rows), V), the logits after the last tokens.

        A row's padding lies in slots that its own next tokens overwrite before anything sees them.
        """
        if self.native is None or self.prefix_lm:
            return torch.stack([logits[-1] for logits in self._read(rows, prompts, last=True)])
        found: dict[int, Tensor] = {}
        short = [i for i, prompt in enumerate(prompts) if len(prompt) <= self.together]
        one = self._step if self.native.few_bits else self._read
        for i in sorted(set(range(len(prompts))) - set(short)):
            for start in range(0, len(prompts[i]), BLOCK):
                [found[i]] = one([rows[i]], [prompts[i][start : start + BLOCK]], last=True)
        for start in range(0, len(short), TOGETHER):
            some = short[start : start + TOGETHER]
            read = self._step([rows[i] for i in some], [prompts[i] for i in some], last=True)
            found |= zip(some, read, strict=True)
        return torch.stack([found[i][-1] for i in range(len(prompts))])

    def next(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        one = [[id] for id in ids]
        read = self._read(rows, one) if self.native is None else self._step(rows, one)
        return torch.cat(read)

    def go_on(self, row: int, ids: Sequence[int]) -> Tensor:
        """The logits (V,) after tokens that came one by one before: the same bits, in one pass."""
        [logits] = self._read([row], [ids], last=True) if self.native is None else self._step([row], [ids], last=True)
        return logits[-1]

    def extend(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Every row takes its own tokens, at least one; the cache needs room for the longest of them in each row."""
        rows = range(len(ids))
        return self._read(rows, ids) if self.native is None else self._step(rows, ids)

    def rewind(self, lengths: Sequence[int]) -> None:
        self.cache.lengths.copy_(torch.tensor(lengths))

    def reorder(self, places: Sequence[int]) -> None:
        self.cache.keep(list(places))

    def copy(self, source: int, target: int, length: int) -> None:
        """Row ``target`` holds the first ``length`` tokens of row ``source``, and nothing else."""
        if source != target:
            self.cache.copy(source, target, length)
        self.cache.lengths[target] = length

    def _step(self, rows: Sequence[int], ids: Sequence[Sequence[int]], last: bool = False) -> list[Tensor]:
        """By step.cpp: the logits after each token, (T_i, V), or after the last one of each row, (1, V)."""
        assert self.native is not None
        lengths, counts = self.cache.lengths.tolist(), [len(taken) for taken in ids]
        ends = list(accumulate(counts))
        logits = self.native(
            self.cache,
            [id for taken in ids for id in taken],
            [row for row, count in zip(rows, counts, strict=True) for _ in range(count)],
            [lengths[row] + i for row, count in zip(rows, counts, strict=True) for i in range(count)],
            [end - 1 for end in ends] if last else range(ends[-1]),
        )
        self.cache.lengths[list(rows)] += torch.tensor(counts)
        return list(logits.split([1] * len(counts) if last else counts))

    def _read(self, rows: Sequence[int], ids: Sequence[Sequence[int]], last: bool = False) -> list[Tensor]:
        """By torch; an encoder's states are read with the first tokens."""
        part = self.cache.part(rows)
        fed, real = padded(ids, part.lengths.device)
        if len(rows) > 1 and int(part.lengths.max()) + fed.shape[1] > part.slots:  # padding would have no place
            return [one for row, taken in zip(rows, ids, strict=True) for one in self._read([row], [taken], last)]
        positions = part.lengths[:, None] + torch.arange(fed.shape[1], device=fed.device)  # (B, T)
        read, across = self.model, {}
        if self.sources is not None:
            read = self.model.decode
            if not self.cache.across:
                source, mask = padded(self.sources, fed.device)
                across = {"encoded": self.model.encode(source, mask=mask), "encoded_mask": mask}
        counts = real.sum(1)
        if self.prefix_lm and not bool(part.lengths.any()):
            across["prefix"] = counts  # a prompt is read in both directions
        hidden = read(fed, positions=positions, cache=part, **across)  # (B, T, D)
        self.cache.lengths[list(rows)] += counts
        if last:
            hidden = hidden[torch.arange(len(ids), device=fed.device), counts - 1][:, None]  # (B, 1, D)
        logits = self.model.logits(hidden).float()
        return [row[: 1 if last else len(taken)] for row, taken in zip(logits, ids, strict=True)]


class PrefixFeed:
    """Every step computes the whole row again: slow, and the plain truth. Also for models without a cache (n-grams)."""

    def __init__(self, model: Any, sources: Sequence[Sequence[int]] | None = None) -> None:
        self.model = model
        self.sources = sources
        self.rows: list[list[int]] = []
        self.first: dict[int, int] = {}  # tokens of each row's prompt
        self.prefix_lm = bool(getattr(getattr(model, "spec", None), "prefix_lm", False))

    def start(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.rows = [[] for _ in prompts]
        return self.fill(range(len(prompts)), prompts)

    def fill(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """These rows read their prompts from where they stand: (len(rows), V), the logits after the last tokens."""
        self.rows += [[] for _ in range(max(rows, default=-1) + 1 - len(self.rows))]
        for row, prompt in zip(rows, prompts, strict=True):
            if not self.rows[row]:
                self.first[row] = len(prompt)
            self.rows[row] += prompt
        return torch.stack([self._logits(row) for row in rows])

    def next(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        for row, id in zip(rows, ids, strict=True):
            self.rows[row].append(id)
        return torch.stack([self._logits(row) for row in rows])

    def extend(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        found = [self.next([row], [id]) for row, taken in enumerate(ids) for id in taken]
        return list(torch.cat(found).split([len(taken) for taken in ids]))

    def rewind(self, lengths: Sequence[int]) -> None:
        self.rows = [row[:length] for row, length in zip(self.rows, lengths, strict=True)]

    def reorder(self, places: Sequence[int]) -> None:
        self.rows = [list(self.rows[place]) for place in places]
        self.first = {row: self.first[place] for row, place in enumerate(places)}
        self.sources = None if self.sources is None else [self.sources[place] for place in places]

    def go_on(self, row: int, ids: Sequence[int]) -> Tensor:
        self.rows[row] += ids
        return self._logits(row)

    def copy(self, source: int, target: int, length: int) -> None:
        """Row ``target`` holds the first ``length`` tokens of row ``source``, and nothing else."""
        self.rows += [[] for _ in range(max(source, target) + 1 - len(self.rows))]
        self.rows[target] = self.rows[source][:length]

    def _logits(self, number: int) -> Tensor:
        """(V,). Where a model only offers log-probs these are taken: they are logits that sum to one."""
        model, row = self.model, self.rows[number]
        if isinstance(model, torch.nn.Module):
            ids = torch.tensor([row], device=next(model.parameters()).device)
            if self.sources is None:
                both_ways = torch.tensor([self.first[number]], device=ids.device) if self.prefix_lm else None
                hidden = model(ids) if both_ways is None else model(ids, prefix=both_ways)
            else:
                hidden = model(torch.tensor([self.sources[number]], device=ids.device), decoder_ids=ids)
            return self.model.logits(hidden[:, -1])[0].float()
        return torch.as_tensor(model.next_logprobs(row)).float()
