"""Counting: from a stream of ids to the trie of its n-grams.

Level by level. Where each n-gram of order k-1 ends is known from the level before, so an n-gram of order k is a pair,
its history's node and its last token, packed into one 64-bit key. Sorting the keys numbers the nodes in their order,
and gives for nothing what smoothing needs: the n-gram without its first word is the node of order k-1 that ends at
the same place.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from amauta.base.errors import DataError
from amauta.models.ngram.distinct import Ints, Run, distinct, merged
from amauta.models.ngram.room import Room, whole_number
from amauta.models.ngram.trie import Trie


def count(stream: Ints, *, size: int, begin: int, order: int, room: Room | None = None) -> tuple[Trie, list[Ints]]:
    """The n-grams up to ``order`` of a stream ``[begin, …, begin, …]`` of documents, ids in [0, V), and for every level
    the node one level below of each n-gram without its first token, (N,).

    No n-gram crosses a document's border. Raises ModelError for an id out of range, DataError for numbers beyond 64
    bits, and for an order of which the stream has no n-gram.
    """
    room = room or Room(len(stream))
    trie = Trie([], [], [], size=size, begin=begin)
    trie.check(stream)
    if size * max(size, len(stream)) >= 2**63:
        raise DataError("ngram.too-large", size=size, tokens=len(stream))
    if not order:
        return trie, []
    assert trie.counts is not None
    trie.tokens.append(np.arange(size, dtype=np.int32))
    trie.starts.append(np.array([0, size], np.int32))
    trie.counts.append(_unigrams(stream, size, begin, room))
    suffixes: list[Ints] = [np.zeros(size, np.int32)]
    node = stream
    for _ in range(1, order):
        below = len(trie.tokens[-1])
        node, run = _level(stream, node, size, begin, room)
        tokens, starts = split(run, below, size, room)
        trie.tokens.append(tokens)
        trie.starts.append(starts)
        trie.counts.append(run.counts)
        suffixes.append(run.values)
        room.release(node, run.keys, run.counts, run.values, tokens, starts)
    if len(stream) and not len(trie.tokens[-1]):
        longest = int(np.diff(np.flatnonzero(stream == begin), append=len(stream)).max())
        raise DataError("ngram.order-too-high", order=order, longest=longest)
    return trie, suffixes


def _unigrams(stream: Ints, size: int, begin: int, room: Room) -> Ints:
    counts = np.zeros(size, np.int64)
    for part in room.chunks(len(stream)):
        counts += np.bincount(stream[part], minlength=size)
    counts[begin] = 0
    return counts.astype(whole_number(len(stream) + 1))


def _level(stream: Ints, below: Ints, size: int, begin: int, room: Room) -> tuple[Ints, Run]:
    """Where the n-grams of the next order end, (T,) with -1 where none does, and their keys, counts and suffixes."""
    node = room.array(len(stream), whole_number(len(stream) + size))
    parts: list[slice] = list(room.chunks(len(stream)))
    runs: list[Run] = []
    for part in parts:
        first = max(1, part.start)
        tokens, before = stream[first : part.stop], below[first - 1 : part.stop - 1]
        place = np.flatnonzero((tokens != begin) & (before >= 0))
        keys, rank, counts, firsts = distinct(before[place].astype(np.int64) * size + tokens[place])
        node[part] = -1
        node[first + place] = rank
        runs.append(_kept(Run(keys, counts, below[first + place[firsts]]), room))
        room.release(stream, below, node)
    run = merged(runs, room) if runs else Run(*(np.zeros(0, kind) for kind in (np.int64, np.int32, np.int32)))
    if len(runs) > 1:
        for part, one in zip(parts, runs, strict=True):
            found = np.searchsorted(run.keys, one.keys)  # both sorted: a walk through the file from end to end
            place = np.flatnonzero(node[part] >= 0)
            node[part.start + place] = found[node[part.start + place]]
            room.release(node, run.keys, one.keys)
    return node, run


def _kept(run: Run, room: Room) -> Run:
    """The run, out of memory where there is little."""
    if not room.on_disk:
        return run
    kept: list[Ints] = []
    for values in (run.keys, run.counts, run.values):
        kept.append(room.array(len(values), values.dtype))
        kept[-1][:] = values
    room.release(*kept)
    return Run(*kept)


def split(run: Run, below: int, size: int, room: Room) -> tuple[Ints, Ints]:
    """The last token of each n-gram, (N,), and where each history's successors begin, (nodes below + 1,)."""
    tokens = room.array(len(run.keys), np.int32)
    starts = room.array(below + 1, whole_number(len(run.keys) + 1), fill=0)
    for part in room.blocks(len(run.keys)):
        histories = run.keys[part] // size
        tokens[part] = run.keys[part] - histories * size
        low = int(histories[0])
        kids = np.bincount(histories - low)
        starts[low + 1 : low + 1 + len(kids)] += kids.astype(starts.dtype)
        room.release(run.keys, tokens, starts)
    total = 0
    for part in room.blocks(len(starts)):
        sums = np.cumsum(starts[part], dtype=np.int64) + total
        starts[part], total = sums, int(sums[-1])
    return tokens, starts


def join(documents: Iterable[Sequence[int]]) -> tuple[Ints, Ints]:
    """Documents laid end to end, (T,), and the place where each begins, (documents,). DataError when one is empty."""
    parts = [np.asarray(document, dtype=np.int64) for document in documents]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    if not lengths.all():
        raise DataError("ngram.empty-document", document=int(np.argmin(lengths)) + 1)
    stream = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return stream, np.cumsum(lengths) - lengths


def check_begins(stream: Ints, starts: Ints, begin: int) -> None:
    """DataError naming the first document that does not start with ``begin`` or has it inside."""
    marks = stream == begin
    right = np.zeros(len(stream), bool)
    right[starts] = True
    wrong = np.flatnonzero(marks != right)
    if len(wrong):
        document = int(np.searchsorted(starts, wrong[0], side="right"))
        raise DataError("ngram.no-begin", document=document, begin=begin)
