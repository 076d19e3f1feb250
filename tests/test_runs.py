"""Paths, atomic replacement under a disk that fills, and content hashes."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from amauta.base.errors import RunError
from amauta.runs import Run, cache_folder, digest, replace_folder, write_atomically, write_folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fails(code: int):
    def call(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


def test_writes_text_and_bytes(tmp_path: Path):
    write_atomically(tmp_path / "new" / "a.txt", "ñandú\n")
    write_atomically(tmp_path / "new" / "b.bin", b"\x00\xff")
    assert contents(tmp_path) == {"new/a.txt": "ñandú\n".encode(), "new/b.bin": b"\x00\xff"}


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, call: str, code: int):
    path = tmp_path / "state.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, call, fails(code))
    with pytest.raises(RunError) as error:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert error.value.key == "runs.disk-full" and str(path) in str(error.value)
    assert contents(tmp_path) == {"state.json": b"old"}


def test_a_disk_that_fills_after_some_bytes(tmp_path: Path, monkeypatch):
    path, real, calls = tmp_path / "state.json", os.write, []
    write_atomically(path, "old")

    def write(handle: int, data: memoryview) -> int:
        calls.append(len(data))
        return real(handle, data[:3]) if len(calls) == 1 else fails(errno.ENOSPC)()

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(RunError):
        write_atomically(path, "new and longer")
    monkeypatch.undo()
    assert calls == [14, 11]  # the first write took three bytes, the rest was offered again
    assert contents(tmp_path) == {"state.json": b"old"}


def test_short_writes_are_completed(tmp_path: Path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:2]))
    write_atomically(tmp_path / "a", "seven b")
    assert (tmp_path / "a").read_text() == "seven b"


def test_other_errors_pass_and_leave_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "replace", fails(errno.EACCES))
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", "x")
    monkeypatch.undo()
    assert contents(tmp_path) == {}


def made_folder(at: Path, text: str) -> Path:
    (at / "deep").mkdir(parents=True)
    (at / "deep" / "weights").write_text(text)
    return at


def test_a_folder_takes_the_place_of_another(tmp_path: Path):
    final = made_folder(tmp_path / "model", "old")
    (final / "stale").write_text("gone after")
    replace_folder(made_folder(tmp_path / "made", "new"), final)
    assert contents(tmp_path) == {"model/deep/weights": b"new"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path: Path, monkeypatch, failing: str):
    final, made = made_folder(tmp_path / "model", "old"), made_folder(tmp_path / "made", "new")
    real = getattr(os, failing)

    def call(*arguments: object) -> None:
        if failing == "fsync" or arguments[0] == made:
            fails(errno.ENOSPC)()
        real(*arguments)

    monkeypatch.setattr(os, failing, call)
    with pytest.raises((RunError, OSError)):
        replace_folder(made, final)
    monkeypatch.undo()
    assert contents(tmp_path) == {"model/deep/weights": b"old", "made/deep/weights": b"new"}


def test_latest_is_the_complete_checkpoint_with_the_most_steps(tmp_path: Path):
    run = Run(tmp_path)
    assert run.latest() is None
    for name in ("step-000090", "step-000100", "step-001000.tmp", ".step-002000.ab.tmp", "step-9", "step-best"):
        (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / "step-005000").write_text("a file is no checkpoint")
    assert run.latest() == tmp_path / "checkpoints" / "step-000100"
    (run.checkpoint(1_000_000)).mkdir()  # seven digits sort after six
    assert run.latest() == tmp_path / "checkpoints" / "step-1000000"
    assert run.complete_checkpoints() == [90, 100, 1_000_000]


def test_the_paths_of_a_run(tmp_path: Path):
    run = Run(tmp_path)
    names = [run.config, run.metrics, run.samples, run.stages, run.model, run.report, run.tokens("train")]
    wanted = ["config.toml", "metrics.jsonl", "samples.jsonl", "stages.json", "model", "report.html", "tokens/train"]
    assert [str(path.relative_to(tmp_path)) for path in names] == wanted


def test_digest_of_a_file_is_its_sha256(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    # The first example of FIPS 180-2, appendix B.1.
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_of_a_folder_by_hand(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    total = hashlib.sha256()
    for name, content in (("a", b"1"), ("b/x", b"2")):
        total.update(len(name).to_bytes(8, "big") + name.encode() + hashlib.sha256(content).digest())
    assert digest(tmp_path) == total.hexdigest()


def test_digest_sees_contents_and_names_and_nothing_else(tmp_path: Path):
    folder = made_folder(tmp_path / "f", "weights")
    before = digest(folder)
    os.utime(folder / "deep" / "weights", (1, 1))
    assert digest(folder) == before
    (folder / "deep" / "weights").rename(folder / "deep" / "weight")
    renamed = digest(folder)
    (folder / "deep" / "weight").write_text("weightz")
    assert len({before, renamed, digest(folder)}) == 3


def test_digest_of_nothing(tmp_path: Path):
    with pytest.raises(RunError, match="no file or folder"):
        digest(tmp_path / "missing")


def test_the_cache(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("AMAUTA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("AMAUTA_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "rosa"))
    assert cache_folder() == tmp_path / "rosa" / ".cache" / "amauta"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path):
    final = tmp_path / "model"
    write_folder(final, lambda made: (made / "a").write_text("one"))

    def fails(made: Path) -> None:
        (made / "a").write_text("two")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_folder(final, fails)
    assert [file.name for file in tmp_path.iterdir()] == ["model"] and (final / "a").read_text() == "one"
    write_folder(final, lambda made: (made / "b").write_text("three"))
    assert [file.name for file in final.iterdir()] == ["b"]
