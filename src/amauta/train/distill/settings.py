"""The settings of ``amauta compress distill``; no torch here, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from amauta.data.objective import Objective
from amauta.hub.known import ANY_MODEL
from amauta.optim.settings import Optim
from amauta.train.settings import Loop

How = Literal["logits", "sequences", "on-policy", "distilbert", "minilm"]
Relation = Literal["attention", "queries", "keys", "values"]
ENCODERS = ("distilbert", "minilm")


@dataclass(frozen=True)
class Student:
    """The model that learns."""

    student: Annotated[
        str | None,
        Doc(
            f"a named size, for a new model built as the teacher is, or {ANY_MODEL} to go on from; left out: the "
            "teacher with fewer layers"
        ),
    ] = None
    layers: Annotated[
        int | None, Gt(0), Doc("layers of a new student, or those that are taken from the teacher; half of its own")
    ] = None
    width: Annotated[int | None, Gt(0), Doc("width of a new student")] = None
    heads: Annotated[int | None, Gt(0), Doc("query heads of a new student")] = None
    kv_heads: Annotated[int | None, Gt(0), Doc("key/value heads of a new student")] = None
    feedforward: Annotated[int | None, Gt(0), Doc("feed-forward width of a new student")] = None


@dataclass(frozen=True)
class Lesson:
    """What the student is held to."""

    how: Annotated[
        How,
        Doc(
            "logits: what the teacher says of each token of given texts; sequences: texts that the teacher writes; "
            "on-policy: what the teacher says of texts that the student writes; encoders: distilbert, minilm"
        ),
    ] = "logits"
    divergence: Annotated[
        Literal["forward", "reverse", "jensen-shannon"],
        Doc("KL from the teacher (cover all that it may say), to it (say only what it may), or between the two"),
    ] = "forward"
    beta: Annotated[float, Ge(0), Le(1), Doc("jensen-shannon: the teacher's share of the mixture")] = 0.5
    softness: Annotated[float, Gt(0), Doc("temperature T of both distributions; 2 in distilbert")] = 1.0
    hard: Annotated[float, Ge(0), Le(1), Doc("logits: share of the plain loss on the text's own tokens")] = 0.1
    best: Annotated[
        int, Ge(0), Doc("logits: keep the teacher's so many likeliest of each token on the disk; 0: ask it every time")
    ] = 0
    relations: Annotated[
        tuple[Relation, ...], Doc("minilm: what is compared; attention values is its first version")
    ] = ("queries", "keys", "values")
    relation_heads: Annotated[int | None, Doc("minilm: heads of the relations; the teacher's when left out")] = None
    teacher_layer: Annotated[int | None, Doc("minilm: which layer of the teacher, from 1; its last")] = None
    weights: Annotated[
        tuple[float, float, float], Doc("distilbert: of the teacher's loss, of hidden tokens, of the states' direction")
    ] = (5.0, 2.0, 1.0)


@dataclass(frozen=True)
class Writing:
    """How texts are written, by the teacher or by the student."""

    begin_tokens: Annotated[int, Gt(0), Doc("tokens of each document that are given to who writes")] = 16
    max_tokens: Annotated[int, Gt(0), Doc("most tokens that are written")] = 128
    temperature: Annotated[float, Ge(0), Doc("temperature of what is written; 0: the likeliest")] = 1.0
    beams: Annotated[int, Gt(0), Doc("sequences: the best of so many beams, in place of sampling")] = 1
    share: Annotated[float, Gt(0), Le(1), Doc("on-policy: share of the steps; the others read the given texts")] = 1.0
    running: Annotated[int, Gt(0), Doc("texts that are written at a time")] = 32


@dataclass(frozen=True)
class Distill:
    """A teacher, a student, and texts."""

    model: Annotated[str, Doc(f"the teacher: {ANY_MODEL}")]
    out: Annotated[Path, Doc("folder of the run")]
    text: Annotated[tuple[str, ...], Doc("documents: text, JSON lines or Parquet")] = ()
    data: Annotated[tuple[str, ...], Doc("dialogues in place of documents; what the assistant says is learnt")] = ()
    heldout: Annotated[tuple[str, ...], Doc("documents, or dialogues, that are only scored")] = ()
    student: Student = field(default_factory=Student)
    lesson: Lesson = field(default_factory=Lesson)
    writing: Writing = field(default_factory=Writing)
    objective: Objective = field(default_factory=Objective)
    length: Annotated[int | None, Doc("tokens of a row, T; the student's context, at most 2048, when left out")] = None
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    loop: Loop = field(default_factory=lambda: Loop(rows=8))
    optim: Optim = field(default_factory=lambda: Optim(optimizer="adamw", lr=1e-3))

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """What the encoders' ways bring, below everything that was given."""
        how = values.get("lesson", {}).get("how")
        if how not in ENCODERS:
            return {}
        return {"objective": {"objective": "masked"}} | ({"lesson": {"softness": 2.0}} if how == "distilbert" else {})
