"""Which device, number type and threads to use, and what this machine can do. torch is imported inside functions."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from amauta.base.errors import ConfigError
from amauta.base.messages import say

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
NumberType = Literal["auto", "bf16", "f32"]

# What a reader of "can this processor do it fast?" looks for; everything else in the processor's list is noise.
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")


@dataclass(frozen=True)
class Device:
    """Where tensors live, and the type that matrix products are computed in (None: f32 throughout)."""

    device: "torch.device"
    autocast: "torch.dtype | None"
    why: str  # a sentence for people: how the number type was chosen

    def context(self) -> "AbstractContextManager[Any]":
        """A fresh context that computes in ``autocast`` where that is safe; weights stay in their own type."""
        import torch

        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def pick(device: DeviceName = "auto", dtype: NumberType = "auto") -> Device:
    """The device and number type to work with.

    ``auto`` takes CUDA, else Apple's MPS, else the CPU; and bf16 where the hardware multiplies it natively (on a CPU:
    avx512_bf16 or AMX), f32 elsewhere. A type that is asked for by name is used wherever the device knows it.
    Raises ConfigError: the device is not there, or CUDA hardware without bf16 is asked for it.
    """
    import torch

    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if found[kind])
    elif found[device]:
        name = device
    else:
        there = ", ".join(kind for kind, is_there in found.items() if is_there)
        raise ConfigError("device.not-there", device=device, found=there)
    chosen = torch.device(name)
    if dtype == "f32":
        return Device(chosen, None, say("device.asked", dtype=dtype))
    native = _native_bf16(name)
    if dtype == "bf16":
        if name == "cuda" and not native:
            raise ConfigError("device.no-bf16", device=name)
        return Device(chosen, torch.bfloat16, say("device.asked", dtype=dtype))
    if native:
        return Device(chosen, torch.bfloat16, say("device.bf16-native"))
    return Device(chosen, None, say("device.bf16-slow"))


def threads(n: int | None = None) -> int:
    """Set the threads of one operation and return how many are used; None leaves torch's choice (OMP_NUM_THREADS).

    More than the cores that this process may use slows everything down, so a larger n is a ConfigError.
    """
    import torch

    if n is not None:
        if not 1 <= n <= usable_cores():
            raise ConfigError("device.bad-threads", n=n, cores=usable_cores())
        torch.set_num_threads(n)
    return torch.get_num_threads()


def usable_cores() -> int:
    """The logical cores that this process may run on (a container may be given fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matmul_peak(device: "torch.device | str", dtype: "torch.dtype", seconds: float = 0.3) -> float:
    """The fastest matrix product seen on ``device`` within ``seconds``, in FLOP/s (2 n^3 for n x n)."""
    import torch

    where = torch.device(device)
    n = 1024 if where.type == "cpu" else 4096
    repeats = 1 if where.type == "cpu" else 20  # a clock around one product on a GPU would time its launch
    left, right = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))  # (n, n)
    out = torch.empty_like(left)

    def work() -> None:
        for _ in range(repeats):
            torch.mm(left, right, out=out)

    return 2 * n**3 * repeats / _fastest(work, where, seconds)


def memory_bandwidth(device: "torch.device | str" = "cpu", seconds: float = 0.3) -> float:
    """The fastest read of 256 MB (of 1 GB beyond a CPU) seen within ``seconds``, in bytes/s."""
    import torch

    where = torch.device(device)
    size = 2**25 if where.type == "cpu" else 2**27  # far beyond the caches
    data = torch.ones(size, dtype=torch.int64, device=where)
    return data.numel() * 8 / _fastest(lambda: data.sum(), where, seconds)


def _fastest(work: Callable[[], Any], device: "torch.device", seconds: float) -> float:
    """The shortest time of one ``work()``, after a warm-up; at least three tries."""
    best, tries, end = float("inf"), 0, time.perf_counter() + seconds
    work()
    _wait(device)
    while tries < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        _wait(device)
        best, tries = min(best, time.perf_counter() - began), tries + 1
    return best


def _wait(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def instructions() -> tuple[str, ...]:
    """The processor's instruction sets that matter for speed, as the system names them; () where it does not say."""
    flags = _processor_flags()
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def compiler() -> str | None:
    """The C++ compiler that torch.compile will use on a CPU (``CXX``, else g++, clang++ or cl), or None."""
    names = ("cl",) if os.name == "nt" else ("g++", "clang++", "c++")
    return next((path for name in (os.environ.get("CXX", ""), *names) if name and (path := shutil.which(name))), None)


def describe() -> dict[str, Any]:
    """What this machine is: sizes in bytes, nothing measured. For ``amauta doctor`` and for the lineage of a run."""
    import torch

    chosen = pick()
    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    total, free = memory()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory": total,
        "memory_free": free,
        "instructions": list(instructions()),
        "devices": devices,
        "device": str(chosen.device),
        "dtype": "f32" if chosen.autocast is None else "bf16",
        "dtype_why": chosen.why,
        "compiler": compiler(),
    }


def memory() -> tuple[int | None, int | None]:
    """This machine's memory and what of it is free to use, in bytes; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        table = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return table["MemTotal"], table.get("MemAvailable")
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (AttributeError, ValueError, OSError):
        return None, None


def _native_bf16(name: str) -> bool:
    if name == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return name == "cpu" and bool({"avx512_bf16", "amx_bf16"} & _processor_flags())


@cache
def _processor_flags() -> frozenset[str]:
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())


def _processor_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty on other systems."""
    if sys.platform != "linux":
        return {}
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): rest.strip() for name, _, rest in (line.partition(":") for line in first.splitlines())}
