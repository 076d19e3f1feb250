"""How weights are changed: optimiser, peak rates, schedule, clipping."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc


@dataclass(frozen=True)
class Optim:
    """Rates are peaks; the schedule multiplies them by a factor between 0 and 1."""

    optimizer: Annotated[Literal["muon", "adamw"], Doc("Muon for the matrices of the blocks, or AdamW for all")] = (
        "muon"
    )
    lr: Annotated[float, Gt(0), Doc("peak rate of AdamW (embeddings, norms, output; with adamw: everything)")] = 3e-3
    matrix_lr: Annotated[float, Gt(0), Doc("peak rate of Muon")] = 2e-2
    weight_decay: Annotated[float, Ge(0), Doc("decoupled decay of matrices; none on norms, biases, embeddings")] = 0.1
    beta1: Annotated[float, Ge(0), Lt(1), Doc("AdamW: decay of the first moment")] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1), Doc("AdamW: decay of the second moment")] = 0.95
    eps: Annotated[float, Gt(0), Doc("AdamW: added to the root")] = 1e-8
    momentum: Annotated[float, Ge(0), Lt(1), Doc("Muon: momentum")] = 0.95
    clip: Annotated[float, Ge(0), Doc("largest global norm of the gradient; 0 clips nothing")] = 1.0
    schedule: Annotated[Literal["cosine", "wsd", "linear", "inverse-sqrt", "constant"], Doc("shape of the rate")] = (
        "wsd"
    )
    warmup: Annotated[float, Ge(0), Lt(1), Doc("share of the steps spent warming up")] = 0.03
    decay: Annotated[float, Ge(0), Le(1), Doc("wsd: share of the steps spent going down at the end")] = 0.4
    final: Annotated[float, Ge(0), Le(1), Doc("the factor at the end")] = 0.0
