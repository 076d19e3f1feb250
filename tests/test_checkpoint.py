"""Checkpoints: whole or not there."""

import errno
from pathlib import Path

import pytest
import torch

from amauta import checkpoint
from amauta.base.errors import RunError
from amauta.runs import Run

TENSORS = {"model": {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}, "optimizer": {"0/a/m": torch.ones(2)}}


def test_what_is_saved_is_loaded(tmp_path: Path):
    checkpoint.save(tmp_path / "step-000001", TENSORS, {"step": 1, "stream": {"epoch": 0}})
    groups, state = checkpoint.load(tmp_path / "step-000001")
    assert state == {"step": 1, "stream": {"epoch": 0}}
    assert {name: sorted(group) for name, group in groups.items()} == {"model": ["a", "b"], "optimizer": ["0/a/m"]}
    assert all(torch.equal(groups[g][name], value) for g, held in TENSORS.items() for name, value in held.items())


def test_a_full_disk_leaves_the_one_before_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path)
    checkpoint.save(run.checkpoint(1), TENSORS, {"step": 1})

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match="full"):
        checkpoint.save(run.checkpoint(2), TENSORS, {"step": 2})
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]
    assert checkpoint.load(run.latest())[1] == {"step": 1}


def test_a_cut_off_file_is_named(tmp_path: Path):
    checkpoint.save(tmp_path / "step-000001", TENSORS, {"step": 1})
    file = tmp_path / "step-000001" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(RunError, match="step-000001"):
        checkpoint.load(tmp_path / "step-000001")


def test_only_the_newest_are_kept(tmp_path: Path):
    run = Run(tmp_path)
    for step in (1, 2, 10, 30):
        checkpoint.save(run.checkpoint(step), TENSORS, {"step": step})
    checkpoint.prune(run, keep=2)
    assert run.complete_checkpoints() == [10, 30]
