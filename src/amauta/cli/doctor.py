"""Say what this machine is and what it can do."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt
from typing_extensions import Doc

from amauta.base.errors import DataError
from amauta.base.messages import language, say
from amauta.cli._door import command

GIGA = 1e9
ROOMY_DISK, ROOMY_MEMORY = 5e9, 4e9  # bytes: below these the demo's own needs come close to the limit


@dataclass
class Doctor:
    """Settings of ``amauta doctor``."""

    seconds: Annotated[float, Gt(0), Doc("seconds for each of the three measurements")] = 0.3
    folder: Annotated[Path, Doc("the folder whose free disk space is shown")] = Path(".")


@command(Doctor)
def doctor(settings: Doctor) -> dict[str, Any]:
    """Say what this machine is and what it can do: versions, cores, number types, speed, disk, and what to mend.

    The speeds are measured now: matrix products in f32 and bf16 (GFLOP/s) and reading memory (GB/s). Run it while
    the machine does nothing else.

    Examples:
        amauta doctor
        amauta doctor --json --seconds 1
    """
    from amauta import __version__
    from amauta.device import describe

    if not settings.folder.is_dir():
        raise DataError("device.no-folder", folder=settings.folder)
    machine = describe()
    disk = shutil.disk_usage(settings.folder).free
    speed = measure(machine["device"], settings.seconds)
    sizes = {name: _gigabytes(machine.pop(name)) for name in ("memory", "memory_free")}
    return {
        "amauta": __version__,
        **machine,
        "memory_gb": sizes["memory"],
        "memory_free_gb": sizes["memory_free"],
        "disk_free_gb": _gigabytes(disk),
        "measured": speed,
        "language": language(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith("AMAUTA_")},
        "advice": advice(machine, speed, disk, sizes["memory_free"]),
    }


def measure(device: str, seconds: float) -> dict[str, float]:
    """The measured peaks of one device: ``f32_gflops``, ``bf16_gflops``, ``memory_gb_per_second``."""
    import torch

    from amauta.device import matmul_peak, memory_bandwidth

    return {
        "f32_gflops": round(matmul_peak(device, torch.float32, seconds) / GIGA, 1),
        "bf16_gflops": round(matmul_peak(device, torch.bfloat16, seconds) / GIGA, 1),
        "memory_gb_per_second": round(memory_bandwidth(device, seconds) / GIGA, 1),
    }


def advice(machine: dict[str, Any], speed: dict[str, float], disk: float, memory_free_gb: float | None) -> list[str]:
    """Plain sentences on what holds this machine back and what to do; [] when nothing does."""
    lines: list[str] = []
    ratio = speed["bf16_gflops"] / speed["f32_gflops"]
    if machine["device"] == "cpu":
        if machine["compiler"] is None:
            lines.append(say("device.advise-compiler"))
        if machine["dtype"] == "f32":
            lines.append(say("device.advise-f32", ratio=f"{ratio:.2f}"))
        if machine["threads"] < machine["cores"]:
            lines.append(say("device.advise-threads", threads=machine["threads"], cores=machine["cores"]))
    if machine["dtype"] == "bf16" and ratio < 1:
        lines.append(say("device.advise-bf16", ratio=f"{ratio:.2f}"))
    if disk < ROOMY_DISK:
        lines.append(say("device.advise-disk", free=f"{disk / GIGA:.1f}"))
    if memory_free_gb is not None and memory_free_gb * GIGA < ROOMY_MEMORY:
        lines.append(say("device.advise-memory", free=f"{memory_free_gb:.1f}"))
    return lines


def _gigabytes(size: float | None) -> float | None:
    return None if size is None else round(size / GIGA, 1)
