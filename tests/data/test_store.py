"""The token store: what goes in comes out, faults are found where they arise, and nothing half is ever left."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError, RunError
from amauta.data import store
from amauta.data.store import TokenStore, write

DOCUMENTS = [([1, 5, 2], 11), ([1, 2], 0), (np.array([1, 9, 9, 2]), 7)]


def made(folder: Path, documents: object = DOCUMENTS, vocabulary: int = 10, fingerprint: str = "quipu") -> TokenStore:
    return write(folder, documents, vocabulary=vocabulary, fingerprint=fingerprint)  # type: ignore[arg-type]


def test_documents_come_back(tmp_path: Path) -> None:
    made(tmp_path / "a" / "tokens")
    opened = TokenStore.open(tmp_path / "a" / "tokens", fingerprint="quipu")
    assert len(opened) == 3
    assert [opened[i].tolist() for i in (0, 1, 2, -1)] == [[1, 5, 2], [1, 2], [1, 9, 9, 2], [1, 9, 9, 2]]
    assert opened.starts.tolist() == [0, 3, 5, 9] and opened.bytes.tolist() == [11, 0, 7]
    assert opened.tokens.tolist() == [1, 5, 2, 1, 2, 1, 9, 9, 2]
    assert opened.starts.dtype == opened.bytes.dtype == np.int64
    assert (opened.vocabulary, opened.fingerprint) == (10, "quipu")
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            opened[wrong]
    with pytest.raises(ValueError, match="read-only"):
        opened[0][0] = 4


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 69_999)), st.integers(0, 2**40)), min_size=1).filter(
        lambda documents: any(ids for ids, _ in documents)
    )
)
@settings(max_examples=25, deadline=None)
def test_any_documents_come_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[list[int], int]]
) -> None:
    opened = made(tmp_path_factory.mktemp("any") / "tokens", documents, vocabulary=70_000)
    assert [(opened[i].tolist(), int(opened.bytes[i])) for i in range(len(opened))] == documents


@pytest.mark.parametrize("vocabulary, width", [(65_535, 2), (65_536, 2), (65_537, 4)])
def test_two_bytes_where_they_suffice(tmp_path: Path, vocabulary: int, width: int) -> None:
    opened = made(tmp_path / "t", [([0, vocabulary - 1], 1)], vocabulary)
    assert opened.tokens.dtype.itemsize == width
    assert (tmp_path / "t" / "tokens.bin").stat().st_size == 2 * width
    assert opened[0].tolist() == [0, vocabulary - 1]


@pytest.mark.parametrize("bad", [10, -1, 2**70])
def test_an_id_out_of_range_is_named(tmp_path: Path, bad: int) -> None:
    with pytest.raises(DataError) as caught:
        made(tmp_path / "t", [([1, 2], 1), ([1, 3, bad, 2], 1)])
    fields = caught.value.fields
    assert caught.value.key == "data.store-out-of-range"
    assert (fields["document"], fields["place"], int(fields["id"]), fields["vocabulary"]) == (1, 2, bad, 10)  # type: ignore[arg-type]
    assert f"id {bad} at place 2" in str(caught.value) and "0 to 9" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ids", [[1.5, 2.0], [[1, 2], [3, 4]], ["a"], [1, None], [True]])
def test_ids_that_are_none(tmp_path: Path, ids: list) -> None:
    with pytest.raises(DataError) as caught:
        made(tmp_path / "t", [(ids, 1)])
    assert caught.value.key == "data.store-not-ids" and caught.value.fields["document"] == 0


@pytest.mark.parametrize("documents", [[], [([], 0), ([], 0)]])
def test_an_empty_store_is_refused(tmp_path: Path, documents: list) -> None:
    with pytest.raises(DataError) as caught:
        made(tmp_path / "t", documents)
    assert caught.value.key == "data.store-empty"
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_is_refused_with_both_names(tmp_path: Path) -> None:
    made(tmp_path / "t", fingerprint="aaa111")
    with pytest.raises(DataError, match=r"aaa111 .* bbb222"):
        TokenStore.open(tmp_path / "t", fingerprint="bbb222")


def test_files_that_disagree_with_the_index_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "t"

    def refused() -> DataError:
        with pytest.raises(DataError) as caught:
            TokenStore.open(folder)
        made(folder)
        return caught.value

    assert refused().key == "data.store-none"
    for name in ("tokens.bin", "starts.bin", "bytes.bin"):
        for change in (b"", (folder / name).read_bytes()[:-1], (folder / name).read_bytes() + b"\0\0"):
            (folder / name).write_bytes(change)
            error = refused()
            assert error.key == "data.store-broken" and name in str(error) and f"is {len(change)} " in str(error)
        (folder / name).unlink()
        assert refused().key == "data.store-broken"
    for starts in ([0, 5, 3, 9], [1, 3, 5, 9], [0, 3, 5, 8]):
        (folder / "starts.bin").write_bytes(np.array(starts, "<i8").tobytes())
        assert refused().key == "data.store-broken"
    for index in ("{", "[]", '{"format": 99}', '{"format": 1}'):
        (folder / "index.json").write_text(index)
        assert refused().key == "data.store-broken"
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"vocabulary": 70_000}))  # another dtype
    assert refused().key == "data.store-broken"
    assert len(TokenStore.open(folder)) == 3


def test_a_failure_keeps_the_older_store(tmp_path: Path) -> None:
    def breaks() -> Iterator[tuple[list[int], int]]:
        yield [1, 2], 3
        raise RuntimeError("the encoder broke")

    made(tmp_path / "t")
    with pytest.raises(RuntimeError):
        made(tmp_path / "t", breaks())
    assert TokenStore.open(tmp_path / "t")[0].tolist() == [1, 5, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    made(tmp_path / "t", [([4], 1)])
    assert TokenStore.open(tmp_path / "t")[0].tolist() == [4]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    made(tmp_path / "t")
    monkeypatch.setattr(store, "_write_files", full)
    with pytest.raises(RunError):
        made(tmp_path / "t", [([4], 1)])
    assert TokenStore.open(tmp_path / "t")[0].tolist() == [1, 5, 2]


KILLED = """
import sys, time
from pathlib import Path
from amauta.data.store import write

def documents():
    for n in range(10**9):
        if n == 5000:
            print("writing", flush=True)
            time.sleep(60)
        yield [1, 2, 3] * 100, 5

write(Path(sys.argv[1]), documents(), vocabulary=10, fingerprint="x")
"""


@pytest.mark.parametrize("older", [False, True])
def test_a_killed_writer_leaves_no_half_store(tmp_path: Path, older: bool) -> None:
    if older:
        made(tmp_path / "t")
    source = str(Path(store.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": source}
    child = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "t"], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None and child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    if older:
        assert TokenStore.open(tmp_path / "t")[0].tolist() == [1, 5, 2]
    else:
        with pytest.raises(DataError, match="no token store"):
            TokenStore.open(tmp_path / "t")
    assert len(made(tmp_path / "t", [([4], 1)])) == 1


def test_writing_and_opening_take_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    opened = made(tmp_path / "t", (([n % 10] * 2000, 5) for n in range(2000)))
    opened[1999].sum()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened.tokens.nbytes == 8_000_000
    assert peak < 1_000_000
