"""Dialogues and preference pairs as units to train on; what does not fit a row is dropped, cut or refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.data.batches import Batch, Piece
from amauta.data.read import Reader, Row, read
from amauta.data.records import Dialogue, dialogue_of, preference_of
from amauta.metrics import console
from amauta.tokenize.chat import Rendered, render, render_answers
from amauta.tokenize.either import AnyTokenizer
from amauta.train.settings import LossOn
from amauta.train.start import fit_length


@dataclass(frozen=True)
class Seen:
    """One record as it was laid out, for a reader: its place in the files, every token with its role and whether it
    carries a loss, and how many of the tokens are trained on, from the first one (0: the record is left out)."""

    place: str
    rendered: Rendered
    kept: int


@dataclass
class Prepared:
    """Units, the place in the files that each came from, and what was left out.

    ``roles`` counts tokens by role and by whether they carry a loss; ``seen`` holds the first records, if asked for.
    """

    units: list[tuple[Piece, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    records: int = 0
    dropped: int = 0
    cut: int = 0
    split: int = 0
    emptied: int = 0  # of those dropped: pairs that a cut, or the tokenizer, leaves without a difference or an answer
    skipped: int = 0
    roles: Counter[tuple[str, bool]] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        made = {"records": self.records, "kept": len(self.units), "dropped": self.dropped, "cut": self.cut,
                "skipped": self.skipped}  # fmt: skip
        rare = {"split": self.split, "emptied": self.emptied}
        return made | {name: count for name, count in rare.items() if count}

    def describe(self, batch: Batch) -> str:
        """The records of a batch, by file and line."""
        places = [self.places[unit] for row in batch.units for unit in row]
        return ", ".join(places[:20]) + (" …" if len(places) > 20 else "")


def prepare_dialogues(
    patterns: Sequence[str],
    tokenizer: AnyTokenizer,
    *,
    length: int,
    too_long: str,
    may_skip: int,
    loss_on: LossOn = "answers",
    show: int = 0,
) -> Prepared:
    """One piece a dialogue, a loss on what the assistant says and on its ends of turn; see ``learnt`` for ``loss_on``.

    ``too_long`` "split" makes several pieces of a dialogue, each without what stood before it; one without a loss is
    left out. ``show``: records to keep in ``seen``.
    """
    reader, made = read(patterns, may_skip=may_skip), Prepared()
    for row, dialogue in reader.each(dialogue_of):
        rendered = learnt(tokenizer, dialogue, loss_on, where=place(row))
        pieces = _fitted(row, rendered, length, too_long)
        split = too_long == "split" and len(rendered.ids) - 1 > length
        kept = 0 if not pieces else len(rendered.ids) if split else len(pieces[0].ids)
        made.roles.update(zip(rendered.roles[:kept], rendered.loss[:kept], strict=True))
        if len(made.seen) < show:
            made.seen.append(Seen(place(row), rendered, kept))
        if split and pieces:
            _add_split(made, row, pieces)
        else:
            add(made, row, pieces or None, cut=kept != len(rendered.ids))
    return counted(made, reader, length)


def learnt(tokenizer: AnyTokenizer, dialogue: Dialogue, loss_on: LossOn = "answers", *, where: str) -> Rendered:
    """A dialogue laid out for training, its tools with it.

    The loss is on what the assistant writes: all its turns, or of prompt/completion records those of the completion;
    with "last" its last turn, with "all" every token but the first. DataError where a template lets no one tell one
    answer from another.
    """
    rendered = render(tokenizer, dialogue.messages, training=True, tools=dialogue.tools, where=where)
    if loss_on == "all":
        return replace(rendered, loss=[False] + [True] * (len(rendered.ids) - 1))
    roles = [one["role"] == "assistant" for one in dialogue.messages]
    wanted = 1 if loss_on == "last" else sum(roles[dialogue.first :])
    if wanted == sum(roles):
        return rendered
    starts = [t for t, loss in enumerate(rendered.loss) if loss and not (t and rendered.loss[t - 1])]
    if len(starts) != sum(roles):
        raise DataError("sft.answers-not-apart", where=where, answers=sum(roles), found=len(starts))
    begin = starts[-wanted]
    return replace(rendered, loss=[loss and t >= begin for t, loss in enumerate(rendered.loss)])


def _fitted(row: Row, rendered: Rendered, length: int, too_long: str) -> list[Piece] | None:
    """The pieces of a dialogue that fit rows of ``length``, or None where nothing of it can be learnt."""
    slots = len(rendered.ids) - 1
    if too_long == "split" and slots > length:
        pieces = [_piece(rendered, min(start + length, slots) + 1, start) for start in range(0, slots, length)]
        return [piece for piece in pieces if piece.loss is not None and piece.loss.any()]
    first = rendered.loss.index(True)
    kept = fit_length(row, rendered.ids, slots, length, too_long, answer=first + 1)
    return [_piece(rendered, kept)] if kept else None


def _add_split(made: Prepared, row: Row, pieces: Sequence[Piece]) -> None:
    """Each piece as a unit of its own."""
    made.records += 1
    made.split += 1
    made.units += [(piece,) for piece in pieces]
    made.places += [f"{place(row)} ({number}/{len(pieces)})" for number in range(1, len(pieces) + 1)]


def prepare_preferences(
    patterns: Sequence[str], tokenizer: AnyTokenizer, *, length: int, too_long: str, may_skip: int
) -> Prepared:
    """Two pieces a pair, the chosen dialogue and the rejected one; a loss on the last answer only.

    The prompt's ids are the same in both and end where the answer begins. DataError, with file and line, where another
    model's template does not lay them out so.
    """
    reader, made = read(patterns, may_skip=may_skip), Prepared()

    def laid_out(row: Row) -> tuple[Rendered, list[Rendered]]:
        pair = preference_of(row)
        return render_answers(tokenizer, pair.prompt, (pair.chosen, pair.rejected), where=place(row))

    for row, (before, answers) in reader.each(laid_out):
        slots = sum(len(answer.ids) - 1 for answer in answers)
        over, room = slots > length, length // 2 + 1  # each side gets half of the row
        if over:
            fit_length(row, before.ids, slots, length, too_long)  # raises under "error"
        fits = not over or (too_long == "cut" and room > len(before.ids))
        ends = [min(room, len(answer.ids)) if over else len(answer.ids) for answer in answers]
        pieces = [_piece(answer, end) for answer, end in zip(answers, ends, strict=True)] if fits else None
        # nothing is left of an answer, or no difference between the two: such a pair would teach nothing
        same = pieces is not None and np.array_equal(pieces[0].ids, pieces[1].ids)
        made.emptied += int(same or (too_long == "cut" and not fits))
        add(made, row, None if same else pieces, cut=over)
    return counted(made, reader, length)


def _piece(rendered: Rendered, end: int, start: int = 0) -> Piece:
    """The tokens from ``start`` to ``end``, with a loss where the renderer says so."""
    return Piece(np.array(rendered.ids[start:end]), np.array(rendered.loss[start + 1 : end], dtype=bool))


def add(made: Prepared, row: Row, pieces: list[Piece] | None, *, cut: bool) -> None:
    made.records += 1
    if pieces is None:
        made.dropped += 1
        return
    made.cut += int(cut)
    made.units.append(tuple(pieces))
    made.places.append(place(row))


def counted(made: Prepared, reader: Reader, length: int) -> Prepared:
    made.skipped = reader.skipped
    counts = made.counts()
    console.print(say("train.counted", length=length, **counts), markup=False, soft_wrap=True)
    if made.emptied:
        console.print(say("prefer.emptied", count=made.emptied), markup=False, soft_wrap=True)
    if not made.units:
        raise DataError("train.no-records", where=", ".join(reader.patterns), dropped=made.dropped, length=length)
    return made


def place(row: Row) -> str:
    return f"{row.file}:{row.line}"
