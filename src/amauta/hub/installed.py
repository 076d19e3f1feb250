"""Where the files of a known model are on this machine, and whether they are whole."""

from importlib import metadata
from pathlib import Path

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.hub.known import Known
from amauta.runs import digest, weights_folder


def folder_of(known: Known) -> Path | None:
    """The folder in which the weight files of ``known`` should be, or None when it is not installed.

    Only the package's metadata is read: importing it could bring much more in.
    """
    if not known.in_place:
        folder = weights_folder(known.name)
        return folder if folder.is_dir() else None
    place = in_package(*known.sources[0])
    if place is None:
        return None
    return place if known.kind == "folder" else place.parent


def in_package(package: str, path: str) -> Path | None:
    """Where ``path`` of an installed package should be; None when the package is not installed."""
    try:
        return Path(str(metadata.distribution(package).locate_file(path)))
    except metadata.PackageNotFoundError:
        return None


def fault_of(known: Known, folder: Path, *, verify: bool = False) -> str | None:
    """What is wrong with the files of ``known`` in ``folder``, in words, or None.

    A file that is missing or has another size; with ``verify`` also one with another SHA-256, which reads it whole.
    """
    for file in known.files:
        path = folder / file.name
        if not path.is_file():
            return say("hub.fault-missing", path=path)
        if path.stat().st_size != file.size:
            return say("hub.fault-size", path=path, size=path.stat().st_size, expected=file.size)
        if verify and (found := digest(path)) != file.sha256:
            return say("hub.fault-digest", path=path, found=found, expected=file.sha256)
    return None


def require(known: Known, *, verify: bool = False) -> Path:
    """The folder of the installed ``known``. ModelError: not installed, or damaged."""
    folder = folder_of(known)
    if folder is None:
        raise ModelError(
            "hub.not-installed", name=known.name, size=megabytes(known.download), licence=known.licence,
            source=known.source,
        )  # fmt: skip
    if fault := fault_of(known, folder, verify=verify):
        raise ModelError("hub.damaged", name=known.name, source=known.source, fault=fault)
    return folder


def megabytes(size: int) -> str:
    """A size in bytes as people read it, in powers of ten: ``98 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
