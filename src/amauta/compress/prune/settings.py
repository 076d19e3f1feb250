"""The settings of ``amauta compress prune``; no torch here, so that its help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from typing_extensions import Doc

from amauta.compress.settings import Calibration
from amauta.device import DeviceName
from amauta.hub.known import ANY_MODEL

Scheme = Literal["magnitude", "wanda", "sparsegpt", "heads", "neurons", "layers"]
WEIGHTS: tuple[Scheme, ...] = ("magnitude", "wanda", "sparsegpt")  # these set weights to zero, the others remove


@dataclass(frozen=True)
class Prune:
    """What goes, and by which measure."""

    model: Annotated[str, Doc(f"the model to prune: {ANY_MODEL}")]
    out: Annotated[Path, Doc("folder of the pruned model")]
    scheme: Annotated[
        Scheme,
        Doc(
            "set weights to zero by their size (magnitude), by size and input (wanda) or making up for them "
            "(sparsegpt); or take out attention heads, feed-forward neurons or whole layers: a smaller model"
        ),
    ] = "wanda"
    ratio: Annotated[float, Gt(0), Lt(1), Doc("share of the weights, heads, neurons or layers that goes")] = 0.5
    pattern: Annotated[
        str | None, Doc("weights: N:M keeps N of every M consecutive inputs, 2:4 for instance, in place of --ratio")
    ] = None
    across: Annotated[
        Literal["layer", "model"], Doc("magnitude: compare the weights of each matrix, or of all of them together")
    ] = "layer"
    damping: Annotated[float, Gt(0), Doc("sparsegpt: share of the mean diagonal that is added to it")] = 0.01
    by: Annotated[
        Literal["gradient", "size"],
        Doc("heads, neurons: by what the loss would lose, or by the size of what they add to the states"),
    ] = "gradient"
    native: Annotated[
        bool, Doc("keep a model that no published layout can hold in amauta's own, which other programs do not open")
    ] = False
    calibration: Calibration = field(default_factory=Calibration)
    tolerance: Annotated[float | None, Doc("most KL (nats a token) from the model before; 0.5 when left out")] = None
    accept: Annotated[bool, Doc("beyond the tolerance label the model instead of failing")] = False
    force: Annotated[bool, Doc("replace the model that stands there")] = False
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
