"""The student: a model that is there, a new one built as the teacher is, or some of the teacher's layers."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from amauta.base.errors import ConfigError, ModelError
from amauta.base.seeds import derive
from amauta.compress.prune.structure import with_layers
from amauta.hub import Found, find_model
from amauta.models.exchange.opening import needed_tokenizer, read_weights
from amauta.models.pruned import masks_of
from amauta.models.quantized import few_bits
from amauta.models.sizes import NAMED
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer
from amauta.train.adapted import unadapted
from amauta.train.distill.settings import Distill, Student
from amauta.train.manners import DIMENSIONS

OWN = ("layers", "width", "heads", "kv_heads", "feedforward")  # what the settings say of a new student


@dataclass(frozen=True)
class Learner:
    """A student, its tokenizer, and the model that it was before, if it was one."""

    model: Transformer
    tokenizer: AnyTokenizer
    parent: Found | None

    def masks(self) -> dict[torch.Tensor, torch.Tensor]:
        return masks_of(self.parent, self.model)


def learner(settings: Distill, teacher: Transformer, tokenizer: AnyTokenizer) -> Learner:
    """The student that the settings ask for. ModelError where it is of another kind than the teacher, or has another
    vocabulary and has to say what it thinks of the teacher's tokens; it says what to do."""
    asked = settings.student
    if asked.student is not None and asked.student not in NAMED:
        return _there(settings, asked.student, teacher, tokenizer)
    if asked.student is None and all(getattr(asked, name) is None for name in OWN if name != "layers"):
        return Learner(_of_its_layers(settings, teacher), tokenizer, None)
    spec = spec_like(teacher.spec, asked)
    return Learner(Transformer.create(spec, derive(settings.loop.seed, "student")), tokenizer, None)


def _there(settings: Distill, name: str, teacher: Transformer, tokenizer: AnyTokenizer) -> Learner:
    """A model that is there."""
    asked = settings.student
    for field in OWN:
        if getattr(asked, field) is not None:
            raise ConfigError("distill.student-is-there", student=name, field=field.replace("_", "-"))
    found = find_model(name)
    own = needed_tokenizer(found)
    if own.fingerprint != tokenizer.fingerprint and settings.lesson.how != "sequences":
        raise ModelError(
            "distill.other-vocabulary", student=name, ours=own.size, teacher=settings.model, theirs=tokenizer.size
        )
    model = unadapted(read_weights(found, own), name)
    _check_in_full(model, name)
    model.spec = replace(model.spec, prefix_lm=False)
    if model.spec.kind != teacher.spec.kind:
        raise ModelError("distill.other-kind", student=name, kind=model.spec.kind, teacher=teacher.spec.kind)
    return Learner(model, own, found)


def _check_in_full(model: Transformer, name: str) -> None:
    if few_bits(model):
        raise ModelError("distill.few-bits", model=name)


def spec_like(teacher: Spec, asked: Student) -> Spec:
    """A spec built as the teacher's in everything but its dimensions, which are those of a size or of the settings."""
    size = {} if asked.student is None else NAMED[asked.student]
    if size.get("kind", teacher.kind) != teacher.kind:
        raise ModelError("distill.other-kind", student=asked.student, kind=size["kind"], teacher=teacher.kind)
    given = {name: value for name in OWN if (value := getattr(asked, name)) is not None}
    found: dict[str, Any] = {name: size.get(name) for name in DIMENSIONS if name != "context"} if size else {}
    if not size and given.keys() & {"width", "heads"}:  # what follows from them is found anew
        found |= {"head_width": None, "kv_heads": None, "feedforward": None}
    if not size and "layers" in given:
        found |= {"decoder_layers": None, "distinct_layers": None if teacher.distinct_layers is None else 1}
    found |= given
    width = found.get("width", teacher.width)
    narrow = found.get("embedding_width") or teacher.embedding_width
    found["embedding_width"] = None if teacher.embedding_width is None else min(narrow or width, width)
    for name, power in (("embedding_scale", 0.5), ("output_scale", -0.5)):  # what follows from the width
        if abs(getattr(teacher, name) - teacher.width**power) < 1e-6:
            found[name] = width**power
    return replace(teacher, **found, prefix_lm=False)


def _of_its_layers(settings: Distill, teacher: Transformer) -> Transformer:
    """The teacher with some of its layers, spread evenly from the first to the last; to begin with they are copies.

    In DistilBERT's manner it has no segments and no pooler. There the first segment's row is added to the positions,
    which leaves the sum of the embeddings as it was; the authors drop it.
    """
    spec = teacher.spec
    if spec.reformer is not None or spec.distinct_layers is not None or spec.shared_stacks:
        raise ModelError("distill.no-layers-to-take", teacher=settings.model)
    _check_in_full(teacher, settings.model)
    stacks = {name: stack.layers for name in ("encoder", "decoder") if (stack := getattr(teacher, name)) is not None}
    asked = settings.student.layers
    wanted = {name: max(1, layers // 2) if asked is None else asked for name, layers in stacks.items()}
    for name, layers in stacks.items():
        if not 0 < wanted[name] <= layers:
            raise ConfigError("distill.so-many-layers", layers=wanted[name], most=layers)
    taken = {name: spread(layers, wanted[name]) for name, layers in stacks.items()}
    for numbers in taken.values():
        if any(spec.windowed(old) != spec.windowed(new) for new, old in enumerate(numbers)):
            raise ModelError("prune.windows", full_every=spec.full_every, stays=", ".join(map(str, numbers)))
    if settings.lesson.how != "distilbert":
        return with_layers(teacher, taken, prefix_lm=False)
    made = with_layers(teacher, taken, segments=0, pooler="none", outputs=("masked",))
    rows = None if teacher.encoder is None else teacher.encoder.segments
    if rows is not None and made.encoder is not None and made.encoder.positions is not None:
        with torch.no_grad():
            made.encoder.positions.weight += rows.weight[0]
    return made


def spread(layers: int, wanted: int) -> list[int]:
    """``wanted`` of ``layers`` numbers at even distances, the first and the last among them: of 12 six are 0 2 4 7 9
    11, those of DistilBERT (Sanh et al. 2019, arXiv 1910.01108, in the authors' code)."""
    if wanted == 1:
        return [0]
    return [int(i * (layers - 1) / (wanted - 1) + 0.5) for i in range(wanted)]
