"""From stored text to the batches of an objective: cut into units, corrupted anew each time, laid into rows.

What happens to a unit is a function of (seed, epoch, unit) alone: so a resumed run meets the same batches, any batch of
the past can be made again, and processes agree without a word. The store holds text only, no special tokens.

Encoders read pieces of documents, packed, each between its first and last token. Encoder-decoders, and decoders that
learn from corrupted text, read the whole store as one stream in runs of one length, as T5 does: nothing is padded but
what noise made shorter, and a run may go on from one document into the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from amauta.base.errors import DataError
from amauta.base.seeds import derive
from amauta.data import denoise, masked, spans
from amauta.data.batches import Batch
from amauta.data.objective import Objective
from amauta.data.pairs import Pairs
from amauta.data.salient import choose_salient, salient_tokens
from amauta.data.store import TokenStore
from amauta.losses.token import IGNORE
from amauta.tokenize.roles import Roles


def generator(seed: int, epoch: int, unit: int) -> np.random.Generator:
    """The source of everything random about one unit in one epoch."""
    return np.random.default_rng(derive(seed, "corrupt", epoch, unit))


class Pieces:
    """The documents of a store in pieces of at most ``most`` tokens; each needs ``edges`` slots more in a row."""

    def __init__(self, store: TokenStore, most: int, edges: int) -> None:
        sizes = np.diff(store.starts)
        counts = -(-sizes // most)  # pieces of each document
        self.store = store
        self.document = np.repeat(np.arange(len(sizes)), counts)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.begin = store.starts[:-1][self.document] + nth * most
        self.size = np.minimum(most, sizes[self.document] - nth * most)
        self.lengths = self.size + edges

    def __getitem__(self, unit: int) -> np.ndarray:
        begin = int(self.begin[unit])
        return np.asarray(self.store.tokens[begin : begin + int(self.size[unit])], dtype=np.int64)


class Runs:
    """The whole store as one stream in runs of ``size`` tokens; the last one reaches back to be as long as the others.

    Each fills a row of ``slots``. A store that is shorter is one run. DataError for less than two tokens.
    """

    def __init__(self, store: TokenStore, size: int, slots: int) -> None:
        total = len(store.tokens)
        if total < 2:
            raise DataError("data.nothing-to-corrupt", tokens=total)
        self.store, self.size = store, min(size, total)
        self.begin = np.minimum(np.arange(-(-total // self.size)) * self.size, total - self.size)
        self.lengths = np.full(len(self.begin), slots, dtype=np.int64)

    @property
    def document(self) -> np.ndarray:
        """The document in which each run begins."""
        return np.searchsorted(self.store.starts, self.begin, side="right") - 1

    def __getitem__(self, unit: int) -> np.ndarray:
        begin = int(self.begin[unit])
        return np.asarray(self.store.tokens[begin : begin + self.size], dtype=np.int64)


@dataclass(frozen=True)
class Masked:
    """Rows for "masked" and "replaced", of ``Pieces`` or ``Pairs``."""

    roles: Roles
    settings: Objective
    seed: int

    def __call__(
        self, units: Pieces | Pairs, rows: Sequence[Sequence[int]], length: int, epochs: Sequence[int]
    ) -> Batch:
        shape = (len(rows), length)
        ids, positions, documents, segments = (np.zeros(shape, dtype=np.int64) for _ in range(4))
        targets = np.full(shape, IGNORE, dtype=np.int64)
        chances = np.zeros(shape, dtype=np.float32)
        firsts: list[int] = []
        labels: list[int] = []
        for r, (row, epoch) in enumerate(zip(rows, epochs, strict=True)):
            at = 0
            for number, unit in enumerate(row, start=1):
                rng = generator(self.seed, 0 if self.settings.mask_static else epoch, unit)
                whole, second, label = self._laid_out(units, unit, rng)
                seen, wanted = self.corrupt(whole, rng)
                span = slice(at, at + len(whole))
                ids[r, span], targets[r, span] = seen, wanted
                positions[r, span], documents[r, span] = np.arange(len(whole)), number
                segments[r, at + second : at + len(whole)] = 1
                if self.settings.objective == "replaced":
                    chances[r, span] = rng.random(len(whole), dtype=np.float32)
                firsts.append(r * length + at)
                labels.append(label)
                at += len(whole)
        paired = isinstance(units, Pairs)
        return Batch(
            *(torch.from_numpy(x) for x in (ids, targets, positions, documents)),
            units=[list(row) for row in rows],
            segments=torch.from_numpy(segments) if paired else None,
            firsts=torch.tensor(firsts) if paired else None,
            pairs=torch.tensor(labels) if paired else None,
            chances=torch.from_numpy(chances) if self.settings.objective == "replaced" else None,
        )

    def corrupt(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What is read and what is to be guessed of one text, its special tokens included: (T,) each."""
        settings, candidates = self.settings, self.roles.is_ordinary[ids]
        count = masked.budget(int(candidates.sum()), settings.mask_rate)
        if settings.mask_of == "token" and settings.mask_exactly:
            chosen = masked.choose_exactly(candidates, count, rng)
        elif settings.mask_of == "token":
            chosen = masked.choose_each(candidates, settings.mask_rate, rng)
        else:
            chosen = np.zeros(len(ids), dtype=bool)
            if settings.mask_of == "salient":
                spans_ = salient_tokens([self.roles.bytes[id] for id in ids.tolist()])
                chosen = choose_salient(spans_, len(ids), count, rng) & candidates
            if not chosen.any():
                longest = masked.LONGEST if settings.mask_of == "ngram" else 1
                chosen = masked.choose_words(candidates, self.roles.word_starts(ids), count, rng, longest=longest)
        return masked.hide(
            ids, chosen, rng, mask=self.roles.mask, ordinary=self.roles.ordinary,
            as_mask=settings.as_mask, as_random=settings.as_random,
        )  # fmt: skip

    def _laid_out(self, units: Pieces | Pairs, unit: int, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
        """The ids of a unit with their special tokens, where its second text begins, and the pair's label."""
        if isinstance(units, Pairs):
            begin, end = self.roles.pair
            first, second, label = units.pair(unit, rng)
            whole = np.concatenate(([begin], first, [end], second, [end])).astype(np.int64)
            return whole, len(first) + 2, label
        before, after = self.roles.edges
        whole = np.concatenate((before, units[unit], after)).astype(np.int64)
        return whole, len(whole), 0


@dataclass(frozen=True)
class Sequences:
    """Rows for "spans", "denoise" and "prefix", of ``Runs``: a source and the target that it should lead to.

    With ``start``, the id before the first that a decoder writes, both go to a stack each; without it both stand in one
    row behind each other, for a decoder. ``capacity`` holds the slots of source and target.
    """

    roles: Roles
    settings: Objective
    seed: int
    capacity: tuple[int, int]
    start: int | None

    def __call__(self, units: Runs, rows: Sequence[Sequence[int]], length: int, epochs: Sequence[int]) -> Batch:
        fixed = self.settings.mask_static
        pairs = [
            [self.corrupt(units[unit], generator(self.seed, 0 if fixed else epoch, unit)) for unit in row]
            for row, epoch in zip(rows, epochs, strict=True)
        ]
        named = [list(row) for row in rows]
        return self._joined(pairs, length, named) if self.start is None else self._apart(pairs, named)

    def corrupt(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Source and target of one text, each with the special tokens that belong to it."""
        roles, settings = self.roles, self.settings
        if settings.objective == "spans":
            noise = self._salient(ids, rng) if settings.mask_of == "salient" else None
            noise = spans.draw(len(ids), rng, settings.mask_rate, settings.span_mean) if noise is None else noise
            return spans.corrupt(ids, noise, roles.sentinels, roles.end)
        if settings.objective == "denoise":
            first, last = roles.edges
            text = denoise.permute(ids, roles.sentence_ends(ids), rng) if settings.shuffle_sentences else ids
            noised, _ = denoise.infill(text, roles.mask, rng, settings.mask_rate, settings.span_mean)
            return tuple(np.concatenate((first, x, last)).astype(np.int64) for x in (noised, ids))  # type: ignore[return-value]
        at = denoise.split(len(ids), rng)
        return np.append(ids[:at], [] if self.start is None else [roles.end]).astype(np.int64), ids[at:]

    def _salient(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Names, dates and numbers as noise, as many as a target has room for; None where there are none that fit."""
        amount = spans.amount(len(ids), self.settings.mask_rate, self.settings.span_mean)
        found = salient_tokens([self.roles.bytes[id] for id in ids.tolist()])
        noise = choose_salient(found, len(ids), amount.noise + amount.spans, rng, each=1)
        return noise if noise.any() else None

    def _apart(self, pairs: list[list[tuple[np.ndarray, np.ndarray]]], units: list[list[int]]) -> Batch:
        """Sources (B, S) and, shifted right from ``start``, targets (B, T)."""
        S, T = self.capacity
        ids, positions = (np.zeros((len(pairs), S), dtype=np.int64) for _ in range(2))
        real = np.zeros((len(pairs), S), dtype=bool)
        read = np.zeros((len(pairs), T), dtype=np.int64)
        targets = np.full((len(pairs), T), IGNORE, dtype=np.int64)
        ids[:], read[:] = self.roles.pad, self.roles.pad
        positions[:] = np.arange(S)
        for r, row in enumerate(pairs):
            for source, target in row:
                ids[r, : len(source)], real[r, : len(source)] = source, True
                targets[r, : len(target)] = target
                read[r, : len(target)] = np.concatenate(([self.start], target[:-1]))
        documents = real.astype(np.int64)
        real[:, 0] = True  # a row without anything must look at something
        return Batch(
            *(torch.from_numpy(x) for x in (ids, targets, positions, documents)),
            units=units,
            decoder_ids=torch.from_numpy(read),
            real=None if real.all() else torch.from_numpy(real),
        )

    def _joined(self, pairs: list[list[tuple[np.ndarray, np.ndarray]]], length: int, units: list[list[int]]) -> Batch:
        """Source and target in one row, (B, T); only the target carries a loss."""
        shape = (len(pairs), length)
        ids, documents = (np.zeros(shape, dtype=np.int64) for _ in range(2))
        targets = np.full(shape, IGNORE, dtype=np.int64)
        prefix = np.zeros(len(pairs), dtype=np.int64)
        for r, row in enumerate(pairs):
            for source, target in row:
                whole = np.concatenate((source, target))
                n = len(whole) - 1
                ids[r, :n], documents[r, :n] = whole[:-1], 1
                targets[r, len(source) - 1 : n] = target
                prefix[r] = len(source)
        positions = np.broadcast_to(np.arange(length), shape).copy()
        tensors = (torch.from_numpy(x) for x in (ids, targets, positions, documents))
        prefixes = torch.from_numpy(prefix) if self.settings.see_prefix else None
        return Batch(*tensors, units=units, prefix=prefixes)


def capacity(settings: Objective, length: int, edges: int, *, apart: bool) -> tuple[int, int, int]:
    """How long the runs of an objective are, and the slots of source and target, when rows have ``length`` tokens.

    ``apart``: source and target have rows of their own (an encoder-decoder), else they share one. ``edges`` is the
    number of special tokens around a text. Raises DataError when not even two tokens of text fit.
    """
    if settings.objective == "prefix":
        size = length if apart else length + 1
        found = (size, length, length - 1)
    elif settings.objective == "denoise":
        size = (length if apart else (length + 1) // 2) - edges
        found = (size, size + edges, size + edges)
    else:
        found = _span_capacity(settings, length, apart=apart)
    if found[0] < 2:
        raise DataError("data.row-too-short", length=length, objective=settings.objective)
    return found


def _span_capacity(settings: Objective, length: int, *, apart: bool) -> tuple[int, int, int]:
    rate, mean = settings.mask_rate, settings.span_mean
    size = 2

    def needed(size: int) -> int:
        # a single salient span of one token leaves a source as long as the text
        source = size + 1 if settings.mask_of == "salient" else spans.amount(size, rate, mean).source
        return source if apart else source + spans.amount(size, rate, mean).target - 1

    if needed(size) > length:
        return 0, 0, 0
    while needed(size + 1) <= length:
        size += 1
    whole = spans.amount(size, rate, mean)
    return size, size + 1 if settings.mask_of == "salient" else whole.source, whole.target
