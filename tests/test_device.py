"""The choice of device, number type and threads, against faked hardware; the measurements against plain clocks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from amauta import device as machine
from amauta.base.errors import ConfigError


@pytest.fixture
def hardware(monkeypatch):
    """``hardware(flags, cuda, mps)``: pretend that this is the machine."""

    def pretend(flags: str = "", cuda: bool = False, mps: bool = False, cuda_bf16: bool = True) -> None:
        monkeypatch.setattr(machine, "_processor_flags", lambda: frozenset(flags.split()))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("flags", "cuda", "mps", "asked", "wanted"),
    [
        ("avx2 avx512f", False, False, ("auto", "auto"), ("cpu", None)),
        ("avx512f avx512_bf16", False, False, ("auto", "auto"), ("cpu", torch.bfloat16)),
        ("amx_bf16", False, False, ("auto", "auto"), ("cpu", torch.bfloat16)),
        ("avx512_bf16", False, False, ("auto", "f32"), ("cpu", None)),
        ("avx2", False, False, ("cpu", "bf16"), ("cpu", torch.bfloat16)),
        ("avx2", True, True, ("auto", "auto"), ("cuda", torch.bfloat16)),
        ("avx2", True, True, ("cpu", "auto"), ("cpu", None)),
        ("", False, True, ("auto", "auto"), ("mps", None)),
    ],
)
def test_pick(hardware, flags, cuda, mps, asked, wanted):
    hardware(flags, cuda, mps)
    chosen = machine.pick(*asked)
    assert (chosen.device.type, chosen.autocast) == wanted


def test_a_device_that_is_not_there(hardware):
    hardware()
    with pytest.raises(ConfigError, match="'cuda' is not available here. Available: cpu"):
        machine.pick("cuda")


def test_old_cuda_hardware_has_no_bf16(hardware):
    hardware(cuda=True, cuda_bf16=False)
    assert machine.pick("cuda").autocast is None
    with pytest.raises(ConfigError, match="bf16"):
        machine.pick("cuda", "bf16")


@pytest.mark.parametrize(("dtype", "wanted"), [("f32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_context_computes_in_the_chosen_type(dtype, wanted):
    weight = torch.ones(2, 2)
    with machine.pick("cpu", dtype).context():
        assert (weight @ weight).dtype == wanted
    assert weight.dtype == torch.float32 and (weight @ weight).dtype == torch.float32


def test_threads():
    before = torch.get_num_threads()
    try:
        assert machine.threads(1) == torch.get_num_threads() == 1
        assert machine.threads() == 1
        for n in (0, machine.usable_cores() + 1):
            with pytest.raises(ConfigError, match=f"{n} threads"):
                machine.threads(n)
    finally:
        torch.set_num_threads(before)


def test_the_fastest_of_several_tries_counts(monkeypatch):
    now, times = [0.0], iter([9.0, 0.5, 0.2, 0.4, 0.3])  # the first is the warm-up
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += next(times)

    assert machine._fastest(work, torch.device("cpu"), 10.0) == pytest.approx(0.2)


def test_the_matrix_peak_counts_what_torch_counts(monkeypatch):
    """With a clock that shows one second a FLOP (as torch's own counter counts them), the peak is 1 FLOP/s."""

    def seconds(work, *_: object) -> float:
        with FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops())

    monkeypatch.setattr(machine, "_fastest", seconds)
    assert machine.matmul_peak("cpu", torch.float32) == 1.0
    assert machine.matmul_peak("cpu", torch.bfloat16) == 1.0


def test_the_bandwidth_counts_the_bytes_that_are_read(monkeypatch):
    seen: list[float] = []

    def seconds(work, *_: object) -> float:
        seen.append(work().item())  # the sum of ones of 8 bytes each: how many were read
        return 2.0

    monkeypatch.setattr(machine, "_fastest", seconds)
    assert machine.memory_bandwidth() == seen[0] * 8 / 2
    assert seen[0] * 8 >= 2**28  # beyond every cache


def test_the_measured_speeds_are_those_of_a_computer():
    assert 1e8 < machine.matmul_peak("cpu", torch.float32, 0.01) < 1e14
    assert 1e8 < machine.memory_bandwidth(seconds=0.01) < 1e13


def test_instructions_are_those_of_the_processor_that_matter(hardware):
    hardware("fpu sse2 avx2 fma avx512_bf16")
    assert machine.instructions() == ("avx2", "fma", "avx512_bf16")


def test_the_compiler_is_the_first_that_exists(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert machine.compiler() is None
    for name in ("clang++", "my-compiler"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert machine.compiler() == str(tmp_path / "clang++")
    monkeypatch.setenv("CXX", "my-compiler")
    assert machine.compiler() == str(tmp_path / "my-compiler")


def test_describe_reads_the_machine():
    seen = machine.describe()
    assert seen["torch"] == torch.__version__
    assert seen["threads"] == torch.get_num_threads()
    assert seen["dtype"] == ("bf16" if {"avx512_bf16", "amx_bf16"} & set(seen["instructions"]) else "f32") or (
        seen["device"] != "cpu"
    )
    total, free = machine.memory()
    assert total is not None and seen["memory"] == total and (free is None or 0 < free < total)
