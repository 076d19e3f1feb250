"""What a student is trained on: units of the given texts, of what the teacher wrote, or what the student writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.seeds import derive
from amauta.data.batches import Collate, Listed, PackedBatches, Stored, collate
from amauta.data.read import read
from amauta.data.records import text_of
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.either import AnyTokenizer, documents
from amauta.train.dialogues import prepare_dialogues
from amauta.train.distill.settings import Distill
from amauta.train.material import laid_out, text_store
from amauta.train.pretrain import token_store


@dataclass(frozen=True)
class Texts:
    """Units, the function that makes batches of them, what a unit is called, and what was counted."""

    units: Any
    collate: Collate
    name: Callable[[int], str]
    counts: dict[str, Any] = field(default_factory=dict[str, Any])

    def batches(self, rows: int, length: int) -> PackedBatches:
        """All of them once, in order."""
        return PackedBatches(self.units, rows=rows, length=length, epochs=1, shuffle=False, collate=self.collate)


def texts_of(settings: Distill, run: Run, student: Transformer, tokenizer: AnyTokenizer, length: int) -> Texts:
    """The given dialogues or documents, laid out for the objective. ConfigError without any, or for dialogues where
    the objective is not the next token."""
    causal = settings.objective.objective == "causal"
    if settings.data:
        if not causal:
            raise ConfigError("distill.dialogues-of-causal", objective=settings.objective.objective)
        return dialogues(settings.data, tokenizer, length, settings.may_skip)
    if not settings.text:
        raise ConfigError("distill.no-texts")
    reader = read(settings.text, may_skip=settings.may_skip)
    stored = token_store(run, reader, tokenizer, edges=causal)
    counts = {"documents": len(stored), "tokens_per_epoch": len(stored.tokens), "skipped": reader.skipped}
    if causal:
        units = Stored(stored, length)
        return Texts(units, collate, lambda unit: f"document {units.document[unit]}", counts)
    laid = laid_out(settings.objective, stored, tokenizer, student.spec, length, settings.loop.seed)
    return Texts(laid.units, laid.collate, lambda unit: f"document {laid.units.document[unit]}", counts)


def dialogues(
    patterns: Sequence[str], tokenizer: AnyTokenizer, length: int, may_skip: int = 0, *, last: bool = False
) -> Texts:
    """Dialogues with a loss on what the assistant says, or on its last turn; those too long are cut."""
    made = prepare_dialogues(
        patterns, tokenizer, length=length, too_long="cut", may_skip=may_skip, loss_on="last" if last else "answers"
    )
    return Texts(Listed(made.units), collate, made.places.__getitem__, made.counts())


def held_out(settings: Distill, student: Transformer, tokenizer: AnyTokenizer, length: int) -> Texts | None:
    """What is only scored, or None; noise in it is the same every time."""
    if not settings.heldout:
        return None
    if settings.data:
        return dialogues(settings.heldout, tokenizer, length, settings.may_skip)
    rows = list(read(settings.heldout, may_skip=settings.may_skip).each(text_of))
    return in_memory([text for _, text in rows], settings, student, tokenizer, length)


def in_memory(
    texts: Sequence[str], settings: Distill, student: Transformer, tokenizer: AnyTokenizer, length: int
) -> Texts:
    """Texts as units without a store on the disk."""
    sizes = [len(text.encode()) for text in texts]
    if settings.objective.objective == "causal":
        units = Stored(text_store(documents(tokenizer, texts), sizes, tokenizer), length)
        return Texts(units, collate, lambda unit: f"document {units.document[unit]}")
    stored = text_store(tokenizer.encode_many(texts), sizes, tokenizer)
    laid = laid_out(settings.objective, stored, tokenizer, student.spec, length, derive(settings.loop.seed, "heldout"))
    return Texts(laid.units, laid.collate, lambda unit: f"document {laid.units.document[unit]}")


def of_files(files: Sequence[Path], settings: Distill, student: Transformer, tokenizer: AnyTokenizer, length: int
             ) -> Texts:  # fmt: skip
    """The texts that a teacher wrote."""
    patterns = tuple(map(str, files))
    if settings.data:
        return dialogues(patterns, tokenizer, length, last=True)
    texts = [text for _, text in read(patterns).each(text_of)]
    return in_memory(texts, settings, student, tokenizer, length)
