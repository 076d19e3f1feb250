"""Dialogues and preference pairs as units to train on; what does not fit a row is dropped, cut or refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.data.batches import Batch, Piece
from amauta.data.read import Reader, Row, read
from amauta.data.records import messages_of, preference_of
from amauta.metrics import console
from amauta.tokenize.chat import Rendered, render, render_answers
from amauta.tokenize.either import AnyTokenizer
from amauta.train.start import fit_length


@dataclass
class Prepared:
    """Units, the place in the files that each came from, and what was left out."""

    units: list[tuple[Piece, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    records: int = 0
    dropped: int = 0
    cut: int = 0
    skipped: int = 0

    def counts(self) -> dict[str, int]:
        return {"records": self.records, "kept": len(self.units), "dropped": self.dropped, "cut": self.cut,
                "skipped": self.skipped}  # fmt: skip

    def describe(self, batch: Batch) -> str:
        """The records of a batch, by file and line."""
        places = [self.places[unit] for row in batch.units for unit in row]
        return ", ".join(places[:20]) + (" …" if len(places) > 20 else "")


def prepare_dialogues(
    patterns: Sequence[str], tokenizer: AnyTokenizer, *, length: int, too_long: str, may_skip: int
) -> Prepared:
    """One piece a dialogue, a loss on what the assistant says and on its ends of turn."""
    reader, made = read(patterns, may_skip=may_skip), Prepared()
    for row, messages in reader.each(messages_of):
        rendered = render(tokenizer, messages, training=True, where=_place(row))
        first = rendered.loss.index(True)
        kept = fit_length(row, rendered.ids, len(rendered.ids) - 1, length, too_long, answer=first + 1)
        _add(made, row, [_piece(rendered, kept)] if kept else None, cut=kept != len(rendered.ids))
    return _counted(made, reader, length)


def prepare_preferences(
    patterns: Sequence[str], tokenizer: AnyTokenizer, *, length: int, too_long: str, may_skip: int
) -> Prepared:
    """Two pieces a pair, the chosen dialogue and the rejected one; a loss on the last answer only.

    The prompt's ids are the same in both and end where the answer begins. DataError, with file and line, where another
    model's template does not lay them out so.
    """
    reader, made = read(patterns, may_skip=may_skip), Prepared()
    for row, pair in reader.each(preference_of):
        before, answers = render_answers(tokenizer, pair.prompt, (pair.chosen, pair.rejected), where=_place(row))
        slots = sum(len(answer.ids) - 1 for answer in answers)
        if slots <= length:
            _add(made, row, [_piece(answer, len(answer.ids)) for answer in answers], cut=False)
            continue
        fit_length(row, before.ids, slots, length, too_long)  # raises under "error"
        room = length // 2 + 1  # each side gets half of the row
        fits = too_long == "cut" and room > len(before.ids)
        cut = [_piece(answer, min(room, len(answer.ids))) for answer in answers] if fits else None
        same = cut is not None and np.array_equal(cut[0].ids, cut[1].ids)  # the difference was cut off
        _add(made, row, None if same else cut, cut=True)
    return _counted(made, reader, length)


def _piece(rendered: Rendered, end: int) -> Piece:
    """The first ``end`` tokens, with a loss where the renderer says so."""
    return Piece(np.array(rendered.ids[:end]), np.array(rendered.loss[1:end], dtype=bool))


def _add(made: Prepared, row: Row, pieces: list[Piece] | None, *, cut: bool) -> None:
    made.records += 1
    if pieces is None:
        made.dropped += 1
        return
    made.cut += int(cut)
    made.units.append(tuple(pieces))
    made.places.append(_place(row))


def _counted(made: Prepared, reader: Reader, length: int) -> Prepared:
    made.skipped = reader.skipped
    counts = made.counts()
    console.print(say("train.counted", length=length, **counts), markup=False, soft_wrap=True)
    if not made.units:
        raise DataError("train.no-records", where=", ".join(reader.patterns), dropped=made.dropped, length=length)
    return made


def _place(row: Row) -> str:
    return f"{row.file}:{row.line}"
