"""Steps of distillation: of what is said of tokens, in DistilBERT's manner, and in MiniLM's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amauta.data.batches import Batch
from amauta.device import Device
from amauta.losses.distill import (
    Divergence,
    Known,
    cosine,
    distilled,
    forward_kl,
    jensen_shannon,
    logprobs_of,
    relation_kl,
    relations,
    reverse_kl,
)
from amauta.losses.token import IGNORE, chunk_gradient, cross_entropy
from amauta.models.transformer import Transformer
from amauta.train.distill.settings import Lesson, Relation
from amauta.train.loop import Step
from amauta.train.objectives import picked, read

Teacher = Callable[[Batch, Tensor], Callable[[int, int], Known]]
"""A batch and its places (N,), counted through all rows -> what the teacher says of the places from start to stop."""


def divergence_of(lesson: Lesson) -> Divergence:
    """The function that the settings name."""
    if lesson.divergence == "jensen-shannon":
        return partial(jensen_shannon, beta=lesson.beta)
    return forward_kl if lesson.divergence == "forward" else reverse_kl


def asked(teacher: Transformer, called: Any, lesson: Lesson, device: Device) -> Teacher:
    """A teacher that reads each batch; ``called`` is the same model, compiled or not."""

    def say(batch: Batch, places: Tensor) -> Callable[[int, int], Known]:
        with torch.no_grad(), device.context():
            hidden = read(called, batch)
            states = teacher.output_states(hidden.reshape(-1, hidden.shape[-1])[places])

        @torch.no_grad()
        def said(start: int, stop: int) -> Known:
            rows = states[start:stop]
            return Known(logprobs_of(rows, teacher.output_table, teacher.output_bias, lesson.softness, device.autocast))

        return said

    return say


def places_of(batch: Batch) -> Tensor:
    """Where something is predicted: (N,), counted through all rows."""
    return (batch.targets.reshape(-1) != IGNORE).nonzero()[:, 0]


def logit_step(lesson: Lesson, teacher: Teacher, device: Device, *, compiled: bool = False) -> Step:
    """``(1 - h) T² D(teacher, student) + h · cross-entropy`` at every place where something is predicted (Hinton,
    Vinyals and Dean 2015, arXiv 1503.02531, section 2); h is ``hard``, D a divergence at temperature T."""
    gradient = torch.compile(chunk_gradient, dynamic=False) if compiled else None
    divergence = divergence_of(lesson)

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        rows, targets = picked(read(model, batch), batch.targets)
        states, table = model.output_states(rows), model.output_table
        said = teacher(batch, places_of(batch))
        given = {"bias": model.output_bias, "dtype": device.autocast}
        soft, n = distilled(states, table, said, divergence, temperature=lesson.softness, **given)
        if not lesson.hard:
            return soft, n, {"teacher_loss": soft.detach()}
        plain, _ = cross_entropy(states, table, targets, gradient=gradient, **given)
        told = {"teacher_loss": soft.detach(), "token_loss": plain.detach()}
        return (1 - lesson.hard) * soft + lesson.hard * plain, n, told

    return step


def distilbert_step(lesson: Lesson, teacher: Transformer, called: Any, device: Device) -> Step:
    """``5 T² KL(teacher ‖ student) + 2 L_mlm + 1 (1 - cos of last states)`` (Sanh et al. 2019, arXiv 1910.01108,
    section 3, weights and T = 2 from the authors' code), each a mean: the first and the last over all tokens, the
    second over those that are hidden. Student and teacher read the same tokens, hidden ones included."""
    divergence, (of_teacher, of_hidden, of_states) = divergence_of(lesson), lesson.weights

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        real = (batch.documents > 0).reshape(-1).nonzero()[:, 0]
        with torch.no_grad():
            theirs = read(called, batch)
            theirs = theirs.reshape(-1, theirs.shape[-1])[real]
            known = teacher.output_states(theirs)
        hidden = read(model, batch)
        mine = hidden.reshape(-1, hidden.shape[-1])[real]
        given = {"bias": model.output_bias, "dtype": device.autocast}
        told = {"bias": teacher.output_bias, "temperature": lesson.softness, "dtype": device.autocast}

        @torch.no_grad()
        def said(start: int, stop: int) -> Known:
            return Known(logprobs_of(known[start:stop], teacher.output_table, **told))

        soft, _ = distilled(
            model.output_states(mine), model.output_table, said, divergence, temperature=lesson.softness, **given
        )
        rows, targets = picked(hidden, batch.targets)
        plain, n = cross_entropy(model.output_states(rows), model.output_table, targets, **given)
        scale = to_targets(batch)
        soft, apart = soft * scale, cosine(mine, theirs).sum() * scale
        figures = {"teacher_loss": soft.detach(), "masked_loss": plain.detach(), "cosine_loss": apart.detach()}
        return of_teacher * soft + of_hidden * plain + of_states * apart, n, figures

    return step


def to_targets(batch: Batch) -> float:
    """What turns a sum over tokens into one that the step's number of targets divides into a mean."""
    totals = batch.counts() if batch.totals is None else batch.totals
    return totals["targets"] / totals["tokens"] if totals["tokens"] else 0.0


def minilm_step(lesson: Lesson, teacher: Transformer, student: Transformer, heads: int) -> Step:
    """The sum over ``relations`` of KL(teacher ‖ student), means over heads and tokens, of one layer of the teacher and
    the student's last (Wang et al. 2020, arXiv 2002.10957, eq. 6 and 10; 2012.15828, eq. 5).

    Queries and keys are compared as they come out of their matrices: where positions are rotary, before the rotation.
    """
    theirs = layer_of(lesson, teacher)

    def step(model: Any, batch: Batch) -> tuple[Tensor, int, dict[str, Any]]:
        real = batch.documents > 0
        seen = batch.documents[:, :, None] == batch.documents[:, None, :]  # (B, T, T)
        with torch.no_grad():
            wanted = read_parts(teacher, theirs, batch)
        found = read_parts(model, student.spec.layers, batch)
        parts: dict[str, Tensor] = {}
        for name in lesson.relations:
            pair = [relations(*_pair(one, name), seen, heads) for one in (found, wanted)]
            parts[f"{name}_loss"] = (relation_kl(*pair) * real).sum()
        total = torch.stack(list(parts.values())).sum()
        return total, int(real.sum()), {name: value.detach() for name, value in parts.items()}

    return step


def layer_of(lesson: Lesson, teacher: Transformer) -> int:
    """The teacher's layer that is looked at, from 1."""
    return lesson.teacher_layer or teacher.spec.layers


def read_parts(model: Transformer, layer: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a layer, counted from 1, over a batch: (B, T, H·K), (B, T, G·K) twice."""
    assert model.encoder is not None
    block = dict(model.encoder.each())[layer - 1]
    calls = [number for number, other in model.encoder.each() if other is block]  # several where layers share weights
    held: list[Tensor] = []
    hook = block.attention.qkv.register_forward_hook(lambda _, __, out: held.append(out))
    try:
        read(model, batch)
    finally:
        hook.remove()
    q, k, v = held[calls.index(layer - 1)].split(block.attention.split_sizes(), dim=-1)
    return q, k, v


def _pair(parts: tuple[Tensor, Tensor, Tensor], relation: Relation) -> tuple[Tensor, Tensor]:
    q, k, v = parts
    return {"attention": (q, k), "queries": (q, q), "keys": (k, k), "values": (v, v)}[relation]
