"""The settings of training commands; no torch here, so that their help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

from amauta.adapt.settings import Adapters
from amauta.data.objective import Objective
from amauta.device import DeviceName, NumberType
from amauta.hub.known import ANY_MODEL
from amauta.models.sizes import shape_named
from amauta.models.spec import Shape
from amauta.optim.settings import Optim
from amauta.train.freeze import Adapt
from amauta.train.manners import Manner, preset


@dataclass(frozen=True)
class Loop:
    """The loop that every method runs on."""

    steps: Annotated[int | None, Doc("optimiser steps; left out: as many as the epochs need")] = None
    epochs: Annotated[float, Gt(0), Doc("passes over the data when steps are left out")] = 1.0
    rows: Annotated[int, Gt(0), Doc("rows of a micro-batch, B")] = 16
    accumulate: Annotated[int, Gt(0), Doc("micro-batches of a step; k of them equal one batch exactly")] = 1
    evaluate_every: Annotated[int, Ge(0), Doc("steps between evaluations; 0: at the start and the end only")] = 0
    sample_every: Annotated[int, Ge(0), Doc("steps between samples; 0: at the start and the end only")] = 0
    save_every: Annotated[int, Ge(0), Doc("steps between checkpoints; 0: ten in a run")] = 0
    keep: Annotated[int, Gt(0), Doc("checkpoints kept")] = 2
    seed: Annotated[int, Ge(0), Doc("the seed of everything random")] = 7
    device: Annotated[DeviceName, Doc("where to compute")] = "auto"
    dtype: Annotated[NumberType, Doc("of the matrix products; auto: bf16 where it is fast")] = "auto"
    threads: Annotated[int | None, Doc("threads; left out: all cores")] = None
    compile: Annotated[bool, Doc("compile the step; 25 s the first time, then from a cache")] = True
    qat: Annotated[
        Literal["int8", "int4"] | None,
        Doc("compute every step with weights of so few bits, and keep them so: quantisation-aware training"),
    ] = None
    resume: Annotated[bool, Doc("go on where an earlier run in this folder stopped")] = False


@dataclass(frozen=True)
class Pretrain:
    """Training on documents: of a decoder to write the next token, or of any family by its own objective."""

    text: Annotated[tuple[str, ...], Doc("training documents: text, JSON lines or Parquet, also .gz and .zst")]
    out: Annotated[Path, Doc("folder of the run")]
    tokenizer: Annotated[str | None, Doc("a tokenizer's folder or a model with one; --start's when left out")] = None
    heldout: Annotated[tuple[str, ...], Doc("documents that are only scored")] = ()
    start: Annotated[str | None, Doc(f"go on from the weights, shape and tokenizer of a model: {ANY_MODEL}")] = None
    train_only: Annotated[Adapt, Doc("with --start: all its weights, or its embeddings, for a new language")] = "all"
    as_: Annotated[Manner | None, Doc("the manner of a published model: how it is built and what it learns")] = None
    size: Annotated[str, Doc("a named shape, each field of which --shape.… may change")] = "demo"
    shape: Shape = field(default_factory=Shape)
    objective: Objective = field(default_factory=Objective)
    length: Annotated[int | None, Doc("tokens of a row, T; the model's context when left out")] = None
    z_loss: Annotated[float, Ge(0), Doc("weight of logsumexp², which keeps logits near 0")] = 0.0
    prompts: Annotated[tuple[str, ...], Doc("beginnings to sample from, before, during and after")] = ()
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=Loop)
    optim: Optim = field(default_factory=Optim)

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the named size, and of the manner, below everything that was given."""
        size, manner = values.get("size", Pretrain.size), values.get("as")
        return {"shape": shape_named(size)} if manner is None else preset(manner, size)


TooLong = Literal["drop", "cut", "error"]
TOO_LONG = "records longer than a row: drop them, cut their end, or stop; always counted"


TooLongDialogue = Literal["drop", "cut", "split", "error"]
LossOn = Literal["answers", "last", "all"]


@dataclass(frozen=True)
class Sft:
    """Training on demonstrations: only what the assistant says carries a loss."""

    model: Annotated[str, Doc(f"the model to start from: {ANY_MODEL}")]
    data: Annotated[tuple[str, ...], Doc("messages, prompt/completion, Alpaca or ShareGPT records")]
    out: Annotated[Path, Doc("folder of the run")]
    heldout: Annotated[tuple[str, ...], Doc("dialogues that are only scored")] = ()
    loss_on: Annotated[
        LossOn, Doc("what carries a loss: all answers (of a completion's record, those in it), the last one, or all")
    ] = "answers"
    dft: Annotated[bool, Doc("weigh each token's loss by the probability that the model gives it (DFT)")] = False
    length: Annotated[int | None, Doc("tokens of a row, T; the model's context, at most 2048, when left out")] = None
    too_long: Annotated[
        TooLongDialogue,
        Doc("records longer than a row: drop them, cut their end, split them into rows, or stop; always counted"),
    ] = "drop"
    prompts: Annotated[tuple[str, ...], Doc("questions to answer, before, during and after")] = ()
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=lambda: Loop(rows=8, epochs=3.0))
    optim: Optim = field(default_factory=lambda: Optim(optimizer="adamw", lr=3e-4))
