"""Models of a hub, by ``owner/model``, through huggingface_hub (the optional extra ``hub``).

Only settings, tokenizer files and safetensors or GGUF weights are fetched, into huggingface_hub's own cache; pickled
weights never. Its variables hold: HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.runs import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, raise_if_full

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
BESIDE = (  # of a model folder, beside its weights; also in the folders of a sentence encoder's modules
    "*.json", "tokenizer.model", "spiece.model", "*.spm", "vocab.txt", "merges.txt", "*.jinja", "[0-9]*_*/*.json",
)  # fmt: skip
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "[0-9]*_*/model.safetensors")
INDEX = "model.safetensors.index.json"
_NAME = re.compile(
    r"(?P<scheme>hf://)?(?P<repository>(?P<owner>\w[\w.-]*)/\w[\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w.-]+))?"
)
_FILES = (".gguf", ".safetensors", ".json", ".jsonl", ".txt", *PICKLED)  # endings of paths, not of a hub's names


@dataclass(frozen=True)
class Wanted:
    """A hub's model: its repository, a revision (a branch, a tag, a commit), and which of several GGUF files."""

    repository: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Got:
    """The folder of a fetched snapshot, named by its commit; its GGUF file when that is what it holds."""

    folder: Path
    gguf: Path | None = None


def wanted(name: str) -> Wanted | None:
    """``owner/model``, ``owner/model@revision``, ``owner/model:Q8_0``, with or without ``hf://``; None for a path.

    A name in a folder that exists here, or one that ends as a file does, is a path.
    """
    parts = _NAME.fullmatch(name)
    if not parts:
        return None
    if not parts["scheme"] and (Path(parts["owner"]).is_dir() or name.lower().endswith(_FILES)):
        return None
    return Wanted(parts["repository"], parts["revision"], parts["file"])


def available() -> bool:
    """Whether huggingface_hub is installed."""
    return find_spec("huggingface_hub") is not None


def look(wanted: Wanted) -> list[str]:
    """The files to fetch, by the hub's list. ModelError: not reached, not there, not given, no weights that we read."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(wanted.repository, revision=wanted.revision)
    except Exception as error:
        raise _complaint(error, wanted) from error
    return choose([file.rfilename for file in info.siblings or []], wanted)


def fetch(wanted: Wanted) -> Got:
    """The snapshot of a model, downloaded unless it is cached. When the hub is not reached, what the cache has.

    Raises ModelError as ``look`` does, and for a cached copy that is not whole.
    """
    from huggingface_hub import snapshot_download

    try:
        files = look(wanted)
    except ModelError as error:
        if error.key != "hub.unreachable":
            raise
        return _cached(wanted, error)
    try:
        # these are patterns of fnmatch, in which the names' own stars and brackets stand for themselves in brackets
        patterns = [re.sub(r"([*?[])", r"[\1]", file) for file in files]
        folder = snapshot_download(wanted.repository, revision=wanted.revision, allow_patterns=patterns)
    except Exception as error:
        raise _complaint(error, wanted) from error
    return _got(Path(folder), files)


def choose(files: Collection[str], wanted: Wanted) -> list[str]:
    """Which of a repository's files make a model that we read. ModelError: none, only pickles, or several GGUF."""
    quantised = sorted(file for file in files if file.endswith(".gguf"))
    weights = sorted(file for file in files if any(_matches(file, pattern) for pattern in WEIGHTS))
    if any("/" not in file for file in weights) and CONFIG in files and not wanted.file:
        return weights + sorted(file for file in files if any(_matches(file, pattern) for pattern in BESIDE))
    if {ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= set(files) and not wanted.file:
        return [ADAPTER_WEIGHTS, *sorted(file for file in files if any(_matches(file, pattern) for pattern in BESIDE))]
    fitting = [file for file in quantised if (wanted.file or "").lower() in file.lower()]
    if len(fitting) == 1:
        return fitting
    if quantised or wanted.file:
        raise ModelError("hub.which-gguf", name=wanted.repository, files=", ".join(quantised) or "-")
    if any(file.endswith(PICKLED) for file in files):
        raise ModelError("hub.only-pickled", name=wanted.repository)
    raise ModelError("hub.no-weights", name=wanted.repository)


def cached() -> list[tuple[str, Path, int]]:
    """The models in huggingface_hub's cache that we read: repository, newest snapshot, bytes. [] without it."""
    if not available():
        return []
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    found: list[tuple[str, Path, int]] = []
    for repository in cache.repos:
        snapshots = sorted(repository.revisions, key=lambda revision: revision.last_modified)
        names = {str(file.file_path.relative_to(snapshots[-1].snapshot_path)) for file in snapshots[-1].files} if (
            snapshots and repository.repo_type == "model"
        ) else set[str]()  # fmt: skip
        if any(name.endswith((".safetensors", ".gguf")) for name in names):
            found.append((repository.repo_id, snapshots[-1].snapshot_path, repository.size_on_disk))
    return sorted(found)


def _cached(wanted: Wanted, unreached: ModelError) -> Got:
    """What the cache has of a model that the hub could not be asked for, and a word that it was not asked."""
    from huggingface_hub import constants, snapshot_download

    from amauta.metrics import console

    try:
        folder = Path(
            snapshot_download(
                wanted.repository,
                revision=wanted.revision,
                local_files_only=True,
                allow_patterns=[CONFIG, ADAPTER_CONFIG],
            )
        )
    except OSError:  # no snapshot, or one whose config.json was never fetched
        raise unreached from None
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.exists())
    files = choose(names, wanted)
    if lost := _lost(folder):
        raise ModelError("hub.incomplete", name=wanted.repository, folder=folder, files=", ".join(lost))
    if not constants.HF_HUB_OFFLINE:  # a user who asked for it need not be told
        console.print(say("hub.from-cache", name=wanted.repository, commit=folder.name), markup=False, soft_wrap=True)
    return _got(folder, files)


def _lost(folder: Path) -> list[str]:
    """The weight files that an index names and the folder lacks."""
    index = folder / INDEX
    if not index.is_file():
        return []
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(name for name in named if not (folder / name).is_file())


def _got(folder: Path, files: list[str]) -> Got:
    return Got(folder, folder / files[0]) if files[0].endswith(".gguf") else Got(folder)


def _matches(file: str, pattern: str) -> bool:
    """As a shell does it: a star does not cross a slash."""
    return file.count("/") == pattern.count("/") and fnmatch(file, pattern)


def _complaint(error: Exception, wanted: Wanted) -> Exception:
    """The catalogue's message for what huggingface_hub raised; what is no error of a hub passes as it is."""
    from huggingface_hub import constants, errors

    name, hub = wanted.repository, constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return ModelError("hub.gated", name=name, address=f"{hub}/{name}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError("hub.no-repository", name=name, hub=hub)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError("hub.no-revision", name=name, revision=wanted.revision, address=f"{hub}/{name}")
    if isinstance(error, errors.HFValidationError):
        return ModelError("hub.bad-name", name=name, reason=error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        reason = say("hub.offline")
        return ModelError("hub.unreachable", name=name, hub=hub, reason=reason, cache=constants.HF_HUB_CACHE)
    raise_if_full(error, Path(constants.HF_HUB_CACHE))
    # the bases of its HTTP error are those of the transport, whichever that is in a version
    if isinstance(error, (OSError, *errors.HfHubHTTPError.__bases__)):
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return ModelError("hub.unreachable", name=name, hub=hub, reason=reason, cache=constants.HF_HUB_CACHE)
    return error
