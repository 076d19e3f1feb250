"""The memory that a piece of work took at its height."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_of(work: Callable[[], Result], device: torch.device) -> tuple[Result, int | None]:
    """What ``work`` gives, and the bytes that it held at most beside what was held before.

    Of a graphics card torch's own count. Of a processor the process's: Linux tells its height since it was last asked
    to begin anew; None elsewhere.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return work(), torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and is held for later would hide a part
        RESET.write_text("5")
        before = _bytes("VmRSS")
    except (OSError, AttributeError, TypeError):
        return work(), None
    found = work()
    return found, max(0, _bytes("VmHWM") - before)


def _bytes(name: str) -> int:
    told = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if told is None:
        raise OSError(name)
    return int(told[1]) * 1024
