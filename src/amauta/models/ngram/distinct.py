"""Distinct keys of many: by one sort in memory, or by sorted runs that are merged.

A key is a non-negative int64. N is the number of keys, M of distinct ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amauta.models.ngram.room import Room, whole_number

Keys = NDArray[np.int64]
Ints = NDArray[Any]  # int32, or int64 where that is too small
LONGEST = 63  # bits of a key and a place together that still fit one number


@dataclass(frozen=True)
class Run:
    """Sorted distinct keys (M,), how often each was met (M,), and a number that belongs to each (M,)."""

    keys: Keys
    counts: Ints
    values: Ints


def distinct(keys: Keys) -> tuple[Keys, Ints, Ints, Ints]:
    """Of (N,) keys: the distinct ones in order (M,), each key's rank among them (N,), counts (M,), first places (M,).

    Key and place are packed into one number where they fit, since sorting numbers is several times as fast as sorting
    places by their keys.
    """
    count = len(keys)
    if not count:
        return keys, np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
    bits = (count - 1).bit_length()
    if int(keys.max()).bit_length() + bits <= LONGEST:
        packed = (keys << bits) | np.arange(count)
        packed.sort()
        place, ordered = packed & ((1 << bits) - 1), packed >> bits
    else:
        place = np.argsort(keys, kind="stable")
        ordered = keys[place]
    new = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    kind = whole_number(count)
    counts = np.diff(new, append=count).astype(kind)
    rank = np.empty(count, kind)
    rank[place] = np.repeat(np.arange(len(new), dtype=kind), counts)
    return ordered[new], rank, counts, place[new]


def merged(runs: list[Run], room: Room) -> Run:
    """One run of all: counts of a key are summed, its value is that of the first run that has it.

    A window of every run is held at a time. The keys up to the smallest last key of the windows are whole, whatever
    still comes, so they are sorted and written.
    """
    if len(runs) == 1:
        return runs[0]
    longest = sum(len(run.keys) for run in runs)
    kind = whole_number(max(longest, max((int(run.values.max(initial=0)) for run in runs), default=0)) + 1)
    total = sum(int(run.counts.sum(dtype=np.int64)) for run in runs)
    out = Run(room.array(longest, np.int64), room.array(longest, whole_number(total + 1)), room.array(longest, kind))
    filled = 0
    for part in _parts(runs, max(1, room.chunk // len(runs))):
        end = filled + len(part.keys)
        out.keys[filled:end], out.counts[filled:end], out.values[filled:end] = part.keys, part.counts, part.values
        filled = end
        room.release(*(values for run in (*runs, out) for values in (run.keys, run.counts, run.values)))
    return Run(out.keys[:filled], out.counts[:filled], out.values[:filled])


def _parts(runs: list[Run], window: int) -> Iterator[Run]:
    """The merged run, piece by piece in order."""
    starts = [0] * len(runs)
    while True:
        going = [i for i, run in enumerate(runs) if starts[i] < len(run.keys)]
        if not going:
            return
        ends = {i: min(starts[i] + window, len(runs[i].keys)) for i in going}
        bound = min(int(runs[i].keys[ends[i] - 1]) for i in going)
        pieces: list[tuple[Keys, Ints, Ints]] = []
        for i in going:
            run, start = runs[i], starts[i]
            stop = start + int(np.searchsorted(run.keys[start : ends[i]], bound, side="right"))
            pieces.append((run.keys[start:stop], run.counts[start:stop], run.values[start:stop]))
            starts[i] = stop
        keys, counts, values = (np.concatenate(column) for column in zip(*pieces, strict=True))
        found, rank, _, first = distinct(keys)
        yield Run(found, np.bincount(rank, counts, minlength=len(found)).astype(np.int64), values[first])
