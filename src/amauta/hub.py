"""From a name to a model folder. Today a name is a path: a run's folder or a model's own.

Other sources (an installed package, a GGUF file, a hub's name) join here, each as one more step of ``find_model``.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.runs import Run

CONFIG = "config.json"  # what makes a folder a model folder
SHOWN = 5  # candidates named in an error


def find_model(name: str | Path) -> Path:
    """The model folder that ``name`` stands for: the folder itself, or the ``model/`` of a run.

    Raises ModelError, with the nearest candidates: nothing is there, or a file, or a folder without a model (a run
    that has not finished says so).
    """
    path = Path(name).expanduser()
    if _is_model(path):
        return path
    if _is_model(Run(path).model):
        return Run(path).model
    hint = _hint(path)
    if path.is_file():
        raise ModelError("hub.a-file", path=path, config=CONFIG, hint=hint)
    if not path.is_dir():
        raise ModelError("hub.nothing-there", path=path, hint=hint)
    if Run(path).config.is_file() or Run(path).checkpoints.is_dir():
        raise ModelError("hub.unfinished-run", path=path, model=Run(path).model, hint=hint)
    raise ModelError("hub.no-model", path=path, config=CONFIG, hint=hint)


def candidates(path: Path) -> list[Path]:
    """Models that may have been meant, the likeliest first: inside, beside and above ``path``, and under ``runs/``."""
    found: dict[Path, None] = {}
    for folder in (path, path.parent, path.parent.parent, Path(), Path("runs")):
        found |= dict.fromkeys(_models_in(folder))
    names = {candidate.as_posix(): candidate for candidate in found}
    close = get_close_matches(path.as_posix(), names, n=SHOWN, cutoff=0.0)
    return [names[name] for name in close]


def _models_in(folder: Path) -> Iterator[Path]:
    """The run and model folders that stand directly in ``folder``."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # not there, or not ours to read
        return
    for entry in entries:
        if _is_model(entry) or _is_model(Run(entry).model):
            yield entry


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _hint(path: Path) -> str:
    near = candidates(path)
    return say("hub.candidates", names=", ".join(map(str, near))) if near else say("hub.none-near")
