"""What a run has done: ``stages.json``, written after every change, and what it takes to trust a finished stage."""

import glob
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from amauta.base.errors import RunError
from amauta.recipes.goals import Figures, flat
from amauta.recipes.recipe import Given, Recipe, Stage, fill
from amauta.runs import Run, digest, write_atomically

Record = dict[str, Any]
Ledger = dict[str, Any]


def load(folder: Path) -> Ledger | None:
    """The ledger of a run folder, or None when there is none. Raises RunError when it cannot be read."""
    path = Run(folder).stages
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError("recipes.bad-ledger", path=path, reason=error) from None
    if not isinstance(found, dict) or not isinstance(found.get("stages"), list):
        raise RunError("recipes.bad-ledger", path=path, reason="stages")
    return found


def save(folder: Path, ledger: Ledger) -> None:
    """Write the ledger whole or not at all."""
    write_atomically(Run(folder).stages, json.dumps(ledger, ensure_ascii=False, indent=1) + "\n")


def open_for(folder: Path, recipe: Recipe) -> Ledger:
    """The ledger of ``folder`` for this recipe, brought up to date with the recipe's texts, goals and stages.

    Raises RunError when the folder belongs to another recipe (its name, or a stage of the same name that runs another
    command), or holds files that no recipe made.
    """
    found = load(folder)
    old: Ledger = {"recipe": recipe.name, "stages": []} if found is None else found
    if found is None:
        if folder.exists() and any(entry.name != ".lock" for entry in folder.iterdir()):
            raise RunError("recipes.not-ours", dir=folder)
    if old.get("recipe") != recipe.name:
        raise RunError("recipes.other-recipe", dir=folder, found=old.get("recipe"), name=recipe.name)
    records: dict[str, Record] = {record["name"]: record for record in old["stages"]}
    for stage in recipe.stages:
        if stage.name in records and records[stage.name]["command"] != stage.command:
            raise RunError("recipes.other-stage", dir=folder, stage=stage.name, name=recipe.name,
                           found=records[stage.name]["command"], command=stage.command)  # fmt: skip
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "publish": list(recipe.publish),
        "stages": [{**records.get(stage.name, {"state": "waiting"}), **_about(stage)} for stage in recipe.stages],
    }


def record_of(ledger: Ledger, name: str) -> Record:
    """The record of one stage, to be changed in place."""
    return next(record for record in ledger["stages"] if record["name"] == name)


def figures(ledger: Ledger) -> Figures:
    """The flat metrics of each finished stage; None for one that was skipped or has not finished."""
    return {r["name"]: flat(r["metrics"]) if r["state"] == "ended" else None for r in ledger["stages"]}


def fingerprint(stage: Stage, inputs: Given, model: str | None, folder: Path, version: str) -> str:
    """A hash of all that decides what a stage makes: command, flags, the content that it reads, the package's version.

    The run's own folder does not count, so that a run may be moved; a file that is absent counts as absent.
    """
    named: Given = {"model": None, **inputs, "dir": ("{dir}",)} | ({} if model is None else {"model": (model,)})
    real = real_blanks(inputs, model, folder)
    read = [[path, _content(path)] for path in fill(stage.reads, real) or []]
    names = fill(stage.reads, named) or []
    parts = {
        "command": stage.command,
        "flags": {name: fill(value, named) for name, value in sorted(stage.flags.items())},
        "reads": [[name, content] for name, (_, content) in zip(names, read, strict=True)],
        "version": version,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def real_blanks(inputs: Given, model: str | None, folder: Path) -> Given:
    """The values of all placeholders, with the run's folder as it was given."""
    own: Given = {"model": None, **inputs, "dir": (str(folder),)}
    return own if model is None else {**own, "model": (fill(model, own),)}


def put_aside(folder: Path, made: list[Path], kept_in: Path | None) -> bool:
    """Clear what a stage of ``folder`` made, before it runs again; whether there was anything.

    What a finished stage made is moved into ``kept_in``; what an unfinished one left (None) is removed.
    """
    there = [path for path in made if path.exists()]
    if kept_in is not None and there:
        shutil.rmtree(kept_in, ignore_errors=True)
    for path in there:
        if kept_in is not None:
            target = kept_in / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return bool(there)


def _about(stage: Stage) -> Record:
    return {
        "name": stage.name,
        "command": stage.command,
        "chapter": stage.chapter,
        "must": stage.must,
        "shows": [vars(show) for show in stage.shows],
        "floor": stage.floor,
        "makes": list(stage.makes),
    }


def _content(pattern: str) -> list[str]:
    """The digests of the file or folder at ``pattern``, or of all that match it, in the order of their names."""
    if Path(pattern).exists():
        return [digest(Path(pattern))]
    return [digest(Path(path)) for path in sorted(glob.glob(pattern, recursive=True))]
