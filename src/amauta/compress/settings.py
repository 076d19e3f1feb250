"""The settings of ``amauta compress quantize``; no torch here, so that its help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from amauta.device import DeviceName
from amauta.hub.known import ANY_MODEL

Scheme = Literal["int8", "int4", "nf4", "gptq", "awq", "smoothquant"]
CALIBRATED = ("gptq", "awq", "smoothquant")


@dataclass(frozen=True)
class Calibration:
    """The text that a model is watched on while it is compressed."""

    text: Annotated[
        tuple[str, ...],
        Doc("documents: text, JSON lines or Parquet; left out, a decoder is watched on what it writes itself"),
    ] = ()
    rows: Annotated[int | None, Doc("rows of tokens; 128 of documents, 32 that the model writes")] = None
    length: Annotated[int, Gt(1), Doc("tokens of a row; the model's context where that is less")] = 512
    seed: Annotated[int, Ge(0), Doc("seed by which rows are chosen or written")] = 7


@dataclass(frozen=True)
class Rounding:
    """How a model's weights become few bits."""

    scheme: Annotated[
        Scheme,
        Doc(
            "int8, int4, nf4: the nearest number; gptq, awq: 4 bits by what the layers read; smoothquant: 8 bits, "
            "inputs too"
        ),
    ] = "int4"
    bits: Annotated[Literal[4, 8] | None, Doc("of gptq and awq; 4 when left out")] = None
    group: Annotated[
        int | None,
        Doc("weights of a row that share a scale; left out: 128, 64 or 32 with 4 bits, nf4 64, the whole row with 8"),
    ] = None
    tensor: Annotated[bool, Doc("one scale for a whole matrix (int8 and int4)")] = False
    affine: Annotated[
        bool | None, Doc("a zero of its own for each group; left out: awq and gptq with 4 bits have one")
    ] = None
    double: Annotated[bool, Doc("scales in 8 bits too (nf4)")] = False
    outliers: Annotated[float | None, Doc("int8 inputs too, but for columns that reach this (LLM.int8(): 6)")] = None
    smooth: Annotated[float, Ge(0), Le(1), Doc("share of the outliers that smoothquant moves into the weights")] = 0.5
    damp: Annotated[float, Gt(0), Lt(1), Doc("of gptq: added to the diagonal, as a share of its mean")] = 0.01
    order: Annotated[bool, Doc("gptq takes columns with large inputs first")] = True
    sweeps: Annotated[int, Gt(0), Doc("of gptq: 1 is the paper's; with more, scales are fitted after each")] = 2
    clip: Annotated[bool | None, Doc("search how far each group's ends are clipped; left out: awq and gptq do")] = None
    table: Annotated[
        Literal["int8", "full", "same"], Doc("the token table and the output's: in 8 bits, in full, or as the rest")
    ] = "int8"
    eight: Annotated[
        tuple[str, ...], Doc("with 4 bits, layers that get 8 instead: regular expressions of their names, such as down")
    ] = ()
    full: Annotated[tuple[str, ...], Doc("layers that stay in full: regular expressions of their names")] = ()


@dataclass(frozen=True)
class Quantize:
    """What to quantise, how, and what it may cost."""

    model: Annotated[str, Doc(ANY_MODEL)]
    out: Annotated[Path, Doc("folder of the new model")]
    rounding: Rounding = field(default_factory=Rounding)
    calibration: Calibration = field(default_factory=Calibration)
    tolerance: Annotated[
        float | None, Doc("most KL (nats a token) from the model before; 0.05 of int8, 1 of others when left out")
    ] = None
    accept: Annotated[bool, Doc("beyond the tolerance label the model instead of failing")] = False
    force: Annotated[bool, Doc("replace the model that stands there")] = False
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
