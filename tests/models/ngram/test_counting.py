"""Counting in memory against a naive loop, on disk against in memory; finding n-grams by table and by halving."""

import resource
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError
from amauta.models.ngram import NGram, distinct, room
from amauta.models.ngram.counting import count
from amauta.models.ngram.distinct import Run, merged
from amauta.models.ngram.index import Index, bisect
from amauta.models.ngram.room import Growing, Room
from amauta.models.ngram.trie import path
from amauta.models.ngram_settings import Estimator

documents = st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=8)
keys = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def stream_of(bodies: list[list[int]]) -> np.ndarray:
    return np.array([id for body in [*bodies, [1, 2, 3, 4]] for id in (0, *body, 7)], np.int32)


def small_room(length: int, chunk: int, block: int) -> Room:
    made = Room(length, memory=1)
    assert made.on_disk
    made.chunk, made.block = chunk, block
    return made


@settings(max_examples=40, deadline=None)
@given(bodies=documents, order=st.integers(1, 6))
def test_counts_equal_a_naive_loop_that_never_crosses_a_border(bodies: list[list[int]], order: int) -> None:
    bodies = [*bodies, [1, 2, 3, 4]]
    trie, suffixes = count(stream_of(bodies[:-1]), size=8, begin=0, order=order)
    assert trie.counts is not None
    names: list[list[tuple[int, ...]]] = []
    for level in range(order):
        naive = Counter(
            tuple(ids[end - level : end + 1])
            for ids in ([0, *body, 7] for body in bodies)
            for end in range(max(1, level), len(ids))
        )
        columns = path(trie, level, slice(0, len(trie.tokens[level])))
        names.append([tuple(int(id) for id in gram) for gram in zip(*columns, strict=True)])
        found = dict(zip(names[-1], trie.counts[level].tolist(), strict=True))
        assert {name: number for name, number in found.items() if number} == dict(naive)
        assert names[-1] == sorted(names[-1])
        if level:
            assert [names[level - 1][node] for node in suffixes[level]] == [name[1:] for name in names[-1]]


@settings(max_examples=60, deadline=None)
@given(
    bodies=documents, order=st.integers(1, 5), chunk=st.integers(1, 9), block=st.integers(1, 9),
    smoothing=st.sampled_from(["modified-kneser-ney", "witten-bell"]), prune=st.sampled_from([(), (0, 1)]),
)  # fmt: skip
def test_on_disk_equals_in_memory_bit_for_bit(bodies, order, chunk, block, smoothing, prune) -> None:
    from amauta.models.ngram.estimate import estimate

    stream = stream_of(bodies)
    estimator = Estimator(smoothing=smoothing, prune=prune[:order])
    tries, tables = [], []
    for where in (Room(len(stream)), small_room(len(stream), chunk, block)):
        trie, suffixes = count(stream, size=8, begin=0, order=order, room=where)
        trie, table = estimate(trie, suffixes, estimator, where)
        tries.append(trie)
        tables.append(table)
    for level in range(order):
        for part in ("tokens", "starts", "counts"):
            mine, theirs = (getattr(trie, part)[level].tolist() for trie in tries)
            assert mine == theirs
        assert tables[0][level].log_p.tolist() == tables[1][level].log_p.tolist()
        assert tables[0][level].log_gamma.tolist() == tables[1][level].log_gamma.tolist()


def test_a_limit_on_memory_changes_nothing_and_leaves_no_file(tmp_path) -> None:
    generator = np.random.default_rng(0)
    stream = np.concatenate([[0, *generator.integers(1, 300, 20), 301] for _ in range(3000)]).astype(np.int32)
    kept = {"size": 302, "begin": 0, "order": 4, "estimator": Estimator(smoothing="modified-kneser-ney")}
    inside = NGram.of_stream(stream, **kept)
    outside = NGram.of_stream(stream, **kept, memory=1 << 20, folder=tmp_path)
    assert isinstance(outside.trie.tokens[-1], np.memmap) and not isinstance(inside.trie.tokens[-1], np.memmap)
    assert not any(tmp_path.iterdir())
    assert outside.trie.nodes == inside.trie.nodes
    assert outside.score(stream[:5000]).tolist() == inside.score(stream[:5000]).tolist()
    outside.save(tmp_path / "model")
    assert NGram.load(tmp_path / "model").score(stream[:50]).tolist() == inside.score(stream[:50]).tolist()


@settings(max_examples=60, deadline=None)
@given(lists=st.lists(keys, min_size=1, max_size=5), window=st.integers(1, 7))
def test_merged_runs_are_one_run(lists: list[list[int]], window: int) -> None:
    runs = []
    for number, values in enumerate(lists):
        found, _, counts, first = distinct.distinct(np.array(values, np.int64))
        runs.append(Run(found, counts, first * 0 + number))
    where = small_room(1, window * len(runs), 4)
    whole = merged(runs, where)
    every = Counter(value for values in lists for value in values)
    assert dict(zip(whole.keys.tolist(), whole.counts.tolist(), strict=True)) == dict(every)
    assert whole.keys.tolist() == sorted(every)
    holders = [min(i for i, values in enumerate(lists) if key in values) for key in sorted(every)]
    assert whole.values.tolist() == holders


@pytest.mark.parametrize("longest", [63, 0])  # packed, and by places
def test_distinct_equals_numpy(longest: int, monkeypatch) -> None:
    monkeypatch.setattr(distinct, "LONGEST", longest)
    values = np.random.default_rng(1).integers(0, 50, 400)
    found, rank, counts, first = distinct.distinct(values)
    theirs = np.unique(values, return_index=True, return_inverse=True, return_counts=True)
    for mine, other in zip((found, first, rank, counts), theirs, strict=True):
        assert mine.tolist() == other.tolist()


@settings(max_examples=60, deadline=None)
@given(bodies=documents, sought=st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_a_table_and_halving_find_the_same(bodies: list[list[int]], sought: list[int]) -> None:
    trie, _ = count(stream_of(bodies), size=8, begin=0, order=3)
    for level in (1, 2):
        histories = np.arange(len(sought)) % len(trie.tokens[level - 1])
        tokens = np.array(sought)
        one = [trie.one(level, int(h), int(t)) for h, t in zip(histories, tokens, strict=True)]
        naive = {
            gram: node
            for node, gram in enumerate(
                zip(np.repeat(np.arange(len(trie.starts[level]) - 1), np.diff(trie.starts[level])).tolist(),
                    trie.tokens[level].tolist(), strict=True)
            )
        }  # fmt: skip
        assert one == [naive.get((h, t), -1) for h, t in zip(histories.tolist(), sought, strict=True)]
        table = Index(trie.tokens[level], trie.starts[level], 8)
        assert table.find(histories, tokens).tolist() == one
        assert bisect(trie.tokens[level], trie.starts[level], histories, tokens).tolist() == one


def test_keys_beyond_64_bits_are_refused() -> None:
    with pytest.raises(DataError, match="64-bit"):
        count(np.array([0, 1], np.int32), size=2**32, begin=0, order=2)


def test_what_grows_is_whole_in_memory_and_in_a_file(tmp_path) -> None:
    for memory in (None, 1 << 20, 20, 0):
        growing = Growing(memory, tmp_path)
        assert not len(Growing(memory).whole())
        for start in range(0, 30, 7):
            growing.append(np.arange(start, min(30, start + 7), dtype=np.int32))
        whole = growing.whole()
        assert whole.tolist() == list(range(30)) and isinstance(whole, np.memmap) == (memory in (20, 0))
        whole[3] = 9
    assert not any(tmp_path.iterdir())


def test_memory_of_the_machine_is_at_least_what_is_used_here() -> None:
    half = room.memory_of_machine()
    assert half is None or 2 * half > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
