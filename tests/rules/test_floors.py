"""The house: imports only point down, folders on one floor are strangers, no circles."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rules.sources import PACKAGE, imports, modules, name_of

FLOORS = (
    ("base", "losses"),
    ("config", "device", "runs", "checkpoint", "metrics", "pages"),
    ("tokenize", "nn", "adapt", "optim", "hub"),
    ("data", "models"),
    ("score", "tokenwise", "bits", "grades", "compress", "decode", "rewards"),
    ("train", "worlds", "evaluate", "inspect", "prompt", "rag"),
    ("serve", "laws", "recipes", "verify", "yardstick", "language_model"),
    ("cli",),
)
FLOOR = {part: number for number, floor in enumerate(FLOORS, start=1) for part in floor}
OUTSIDE = {"amauta", "amauta.__main__"}  # the names that load lazily, and `python -m amauta`
BARRED = {"transformers", "trl", "peft", "sentence_transformers", "nltk", "kenlm", "pytest", "hypothesis"}


def faults(importer: str, imported: str) -> str | None:
    """Why one module of the package must not import another, or None."""
    above, below = importer.split(".")[1], imported.split(".")[1]
    if above == below or below not in FLOOR:  # a name of the package itself
        return None
    if FLOOR[below] > FLOOR[above]:
        return f"{importer} (floor {FLOOR[above]}) imports {imported} (floor {FLOOR[below]})"
    folders = (PACKAGE / above).is_dir() or (PACKAGE / below).is_dir()
    if FLOOR[below] == FLOOR[above] and folders:
        return f"{importer} and {imported} stand on one floor ({FLOOR[above]})"
    return None


def test_every_part_has_a_floor():
    parts = {name_of(file).split(".")[1] for file in modules() if name_of(file) not in OUTSIDE}
    assert parts <= set(FLOOR), f"without a floor: {parts - set(FLOOR)}"


def test_imports_only_point_down():
    found = [
        f"{fault}: {file.name}:{line}"
        for file in modules()
        if name_of(file) not in OUTSIDE
        for imported, line in imports(file)
        if imported.startswith("amauta.") and (fault := faults(name_of(file), imported))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("amauta.train.loop", "amauta.data.batches", True),
        ("amauta.data.batches", "amauta.train.loop", False),
        ("amauta.data.pack", "amauta.models.spec", False),
        ("amauta.data.pack", "amauta.data.store", True),
        ("amauta.metrics", "amauta.runs", True),  # two files on one floor
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool):
    assert (faults(importer, imported) is None) == allowed


def test_no_circles():
    graph = {
        name_of(file): {name for name, _ in imports(file, for_types=False) if name.startswith("amauta.")}
        for file in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("circle: " + " <- ".join(error.args[1]))


def test_nothing_below_the_door_imports_the_commands():
    found = [
        str(file.relative_to(PACKAGE))
        for file in modules()
        if file.parent.name != "cli" and name_of(file) not in OUTSIDE
        for imported, _ in imports(file)
        if imported.startswith("amauta.cli")
    ]
    assert not found


def _peers(file: Path) -> list[str]:
    return [f"{file.name}:{line} {name}" for name, line in imports(file) if name.split(".")[0] in BARRED]


def test_peers_and_oracles_stay_out_of_the_package():
    assert not [fault for file in modules() for fault in _peers(file)]
