"""The settings of ``amauta inspect``; no torch here, so that help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Le
from typing_extensions import Doc

from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL

REFERENCE = "what the model is compared with; left out: what its card says that it was trained from"
ORACLE = (
    "a model that learnt preferences by DPO, for SePO's scores; left out: the oracle of the model's own run, if any"
)
MASKS = "a file of SparsePO's masks; left out: those of the model's own run, if any"
BETA = "implicit rewards are β times the log-ratio; left out: the model's own, or 0.1"


@dataclass(frozen=True)
class InspectPair:
    """Which pair, seen by which models."""

    model: Annotated[str, Doc(f"the model that learnt: {ANY_MODEL}")]
    data: Annotated[tuple[str, ...], Doc("prompt/chosen/rejected records")]
    reference: Annotated[str | None, Doc(REFERENCE)] = None
    oracle: Annotated[str | None, Doc(ORACLE)] = None
    masks: Annotated[Path | None, Doc(MASKS)] = None
    row: Annotated[int, Gt(0), Doc("which of the records, from 1")] = 1
    out: Annotated[Path | None, Doc("write the page here")] = None
    beta: Annotated[float | None, Gt(0), Doc(BETA)] = None
    share: Annotated[float, Gt(0), Le(1), Doc("share of an answer's tokens that SePO would learn")] = 0.3
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto is f32")] = "auto"
