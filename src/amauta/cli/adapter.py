"""Look at adapters, and write them into their base's weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc

from amauta.cli._door import Group
from amauta.config import Positional
from amauta.device import DeviceName

app = Group("adapter")

ADAPTER = "an adapter's folder, or a run that trained one"


@dataclass
class Shown:
    """Tell what an adapter is."""

    model: Annotated[str, Positional(), Doc(ADAPTER)]


@dataclass
class Merge:
    """Write adapters into the weights of their base."""

    model: Annotated[str, Doc(ADAPTER)]
    out: Annotated[Path, Doc("the model's folder is written here")]
    adapters: Annotated[tuple[str, ...], Doc("further adapters of the same base, added up with the first")] = ()
    weights: Annotated[tuple[float, ...], Doc("how much of each adapter's change is taken, the first one's first")] = ()
    requantize: Annotated[bool, Doc("round a base of few bits anew; what that costs is the KL that is printed")] = False
    dtype: Annotated[Literal["f32", "bf16"], Doc("of the weights that are written")] = "f32"
    tolerance: Annotated[float | None, Ge(0), Doc("the most KL that is allowed, nats a place")] = None
    accept: Annotated[bool, Doc("keep a model beyond the tolerance, and say so in its card")] = False
    force: Annotated[bool, Doc("replace a model that stands there")] = False
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"


@app.command("show", Shown)
def show(settings: Shown) -> dict[str, Any]:
    """Tell what an adapter is: its kind and sizes, its base, and whether that is the one it was made for.

    base_fits is true where the weights of the base have the fingerprint that the adapter recorded, false where they
    have another, or the base is not here; folders of peft's record none, and say nothing.

    Examples:
        amauta adapter show runs/tuned
        amauta adapter show runs/tuned/model --json
    """
    from amauta.models.adapters.about import about

    return about(settings.model)


@app.command("merge", Merge)
def merge(settings: Merge) -> dict[str, Any]:
    """Write an adapter into the weights of its base, as a model folder that needs no adapter.

    Several adapters of one base are added up: the change that each makes, times its weight. The folder is read back and
    answers the model's probes: kl is the mean difference from what base and adapter said before (nats a token). Beyond
    the tolerance nothing is left there, and the exit code is 2. Bottlenecks and prefixes cannot be written into
    weights. A base of few bits is refused, since rounding may undo what the adapter learnt, unless --requantize is
    given.

    Examples:
        amauta adapter merge --model runs/tuned --out merged
        amauta adapter merge --model runs/poems --adapters runs/recipes --weights 0.7 0.3 --out both
        amauta adapter merge --model runs/on-nf4 --requantize --out smaller --json
    """
    from amauta.base.errors import ConfigError

    if settings.out.exists() and not settings.force:
        raise ConfigError("export.exists", path=settings.out)
    if settings.weights and len(settings.weights) != 1 + len(settings.adapters):
        raise ConfigError("adapters.weights", count=len(settings.weights), needed=1 + len(settings.adapters))
    import torch

    from amauta.compress.requantize import requantized
    from amauta.config import to_dict
    from amauta.device import pick
    from amauta.models.adapters.stacking import stacked
    from amauta.models.contract.changed import write_changed

    device, requantize = pick(settings.device).device, requantized if settings.requantize else None
    found = stacked([settings.model, *settings.adapters], settings.weights, device=device, requantize=requantize)
    after = found.after.to(torch.bfloat16) if settings.dtype == "bf16" else found.after
    figures = write_changed(
        found.of, found.before, after, found.tokenizer, settings.out, settings=to_dict(settings), facts=found.facts,
        step="requantize" if found.rounded else "merge", tolerance=settings.tolerance, accept=settings.accept,
    )  # fmt: skip
    return {"model": found.of.name, "base": found.base.name, **figures}
