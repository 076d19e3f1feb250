"""``step.cpp`` as a library of this machine: compiled once, kept in the cache folder, loaded."""

import ctypes
import hashlib
import subprocess
from functools import cache
from importlib import resources
from pathlib import Path

from amauta.device import compiler, instructions
from amauta.runs import cache_folder, write_atomically

FLAGS = ("-O3", "-march=native", "-std=c++20", "-fopenmp", "-fPIC", "-shared", "-ffp-contract=fast")
SOURCES = ("step.cpp", "few_bits.h", "lanes.h")
LONGEST = 300  # seconds


@cache
def library() -> ctypes.CDLL | None:
    """The compiled step; None on a machine without a compiler that can make it (then torch computes every step)."""
    command = compiler()
    if command is None or Path(command).name == "cl":
        return None
    sources = {name: resources.files("amauta.decode.native").joinpath(name).read_bytes() for name in SOURCES}
    known = b"\0".join((*sources.values(), command.encode(), " ".join((*FLAGS, *instructions())).encode()))
    file = cache_folder() / "native" / f"step-{hashlib.sha256(known).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            _compile(command, sources, file)
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None


def _compile(command: str, sources: dict[str, bytes], file: Path) -> None:
    """Beside its place first, so that a killed process leaves no half library."""
    import tempfile

    import torch

    torch_libraries = Path(torch.__file__).parent / "lib"  # one OpenMP for both, or they fight for the cores
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "step.so"
        for name, source in sources.items():
            (Path(folder) / name).write_bytes(source)
        subprocess.run(
            [command, *FLAGS, f"-L{torch_libraries}", "-o", str(made), str(Path(folder) / SOURCES[0])],
            check=True, capture_output=True, timeout=LONGEST,
        )  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, made.read_bytes())
