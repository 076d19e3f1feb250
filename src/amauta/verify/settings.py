"""The settings of ``amauta verify``; no torch here, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt
from typing_extensions import Doc

from amauta.config import Positional
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL

PreferenceMethod = Literal[
    "dpo", "cdpo", "robust", "ipo", "ipo-mean", "hinge", "kto", "orpo", "simpo", "cpo", "tdpo", "tdpo2", "sepo",
    "mapo", "sparsepo"
]  # fmt: skip
PolicyMethod = Literal["reinforce", "rloo", "ppo", "grpo", "dr-grpo", "dapo", "gspo"]
PREFERENCES: tuple[PreferenceMethod, ...] = get_args(PreferenceMethod)
POLICIES: tuple[PolicyMethod, ...] = get_args(PolicyMethod)
WRITE = "write the table or the plot here, by the file's ending: .md, .html, .svg, .png or .pdf"

# What --quick changes: a few steps, far from every optimum, to see that all of it runs.
QUICK: dict[str, Any] = {"steps": 30, "iterations": 15, "group": 3}


@dataclass(frozen=True)
class Oracle:
    """Every method of alignment against its own optimum, on answers that can all be listed."""

    methods: Annotated[
        tuple[PreferenceMethod | PolicyMethod, ...], Doc("the methods to check; all when left out")
    ] = ()  # fmt: skip
    quick: Annotated[bool, Doc("fewer steps and smaller groups: seconds, and distances that are not small yet")] = False
    steps: Annotated[int, Gt(0), Doc("optimiser steps of a method that learns from pairs")] = 400
    iterations: Annotated[int, Gt(0), Doc("iterations of a method that learns from rewards")] = 300
    groups: Annotated[int, Gt(0), Doc("groups of answers that are drawn for each prompt in an iteration")] = 16
    group: Annotated[int, Gt(1), Doc("answers of a group")] = 4
    beta: Annotated[float, Gt(0), Doc("how strongly the reference holds the policy back")] = 0.5
    seed: Annotated[int, Ge(0), Doc("the seed of the reference and of all that is drawn")] = 7
    write: Annotated[tuple[Path, ...], Doc(WRITE)] = ()

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """What --quick stands for, below everything that was given."""
        return QUICK if values.get("quick") else {}


@dataclass(frozen=True)
class Contract:
    """A model against what it said when it was trained or imported."""

    model: Annotated[str, Positional(), Doc(ANY_MODEL)]
    tolerance: Annotated[float, Ge(0), Doc("the most KL, nats a place, between then and now")] = 1e-3
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("type of the weights; auto: f32")] = "auto"
