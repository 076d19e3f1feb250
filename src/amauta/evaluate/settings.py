"""The settings of ``amauta eval``; no torch here, so that its help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt
from typing_extensions import Doc

from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL


@dataclass(frozen=True)
class Evaluate:
    """What to measure of a model: whichever of text, dialogues and preferences is given."""

    model: Annotated[str, Doc(ANY_MODEL)]
    text: Annotated[tuple[str, ...], Doc("documents, for bits per byte")] = ()
    dialogues: Annotated[tuple[str, ...], Doc("dialogues whose last answer is asked for and compared")] = ()
    preferences: Annotated[tuple[str, ...], Doc("pairs: which answer is likelier, and what the model says itself")] = ()
    out: Annotated[Path | None, Doc("folder for every single answer, as JSON lines")] = None
    limit: Annotated[int | None, Doc("at most so many records of each kind, the first ones")] = None
    max_tokens: Annotated[int, Gt(0), Doc("longest answer")] = 64
    temperature: Annotated[float, Ge(0), Doc("of answers judged for preference; questions are answered greedily")] = 1.0
    rows: Annotated[int, Gt(0), Doc("sequences computed at a time")] = 32
    seed: Annotated[int, Ge(0), Doc("seed of sampled answers")] = 7
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("of matrix products; f32 to compare by")] = "f32"


@dataclass(frozen=True)
class Compare:
    """Which models answer the same prompts, and by what their answers are judged."""

    models: Annotated[
        tuple[str, ...], Doc(f"models to compare, the first is the one that others are held against: {ANY_MODEL}")
    ]
    data: Annotated[tuple[str, ...], Doc("records to answer: prompt, messages, instruction or question")]
    reward: Annotated[
        tuple[str, ...],
        Doc(
            "what is measured of answers, as for amauta rl: exact, number, regex:PATTERN, model:NAME, FILE.py:FUNCTION"
        ),
    ] = ("exact",)
    judge: Annotated[
        str | None,
        Doc("the reward by which an answer wins over the first model's; the first of --reward when left out"),
    ] = None
    out: Annotated[Path | None, Doc("folder for the table and every single answer, as JSON lines")] = None
    limit: Annotated[int | None, Doc("at most so many records, the first ones")] = None
    max_tokens: Annotated[int, Gt(0), Doc("longest answer")] = 128
    temperature: Annotated[float, Ge(0), Doc("of the answers; 1 is the model itself, and the KL that of the model")] = (
        1.0
    )
    rows: Annotated[int, Gt(0), Doc("answers written at a time")] = 32
    seed: Annotated[int, Ge(0), Doc("seed; prompt i is answered with seed + i by every model")] = 7
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("of matrix products; f32 to compare by")] = "f32"
