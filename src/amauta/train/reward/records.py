"""Rankings as units to train on: all answers to one prompt in one row, each read by itself up to its last token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

from amauta.base.errors import DataError
from amauta.data.rankings import Ranking, ranking_of
from amauta.data.read import Row, read
from amauta.rewards.model import ending
from amauta.tokenize.chat import render_answers
from amauta.tokenize.either import AnyTokenizer
from amauta.train.dialogues import Prepared, add, counted, place
from amauta.train.start import fit_length


@dataclass
class Rankings(Prepared):
    """Units of K pieces, the best answer first; ``ranks`` of the K (equal ones are ties) and the ranking's margin."""

    ranks: list[list[int]] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    @property
    def ends(self) -> set[int]:
        """The ids at which dialogues end."""
        return {int(piece.ids[-2]) for unit in self.units for piece in unit}


def prepare_rankings(
    patterns: Sequence[str],
    tokenizer: AnyTokenizer,
    *,
    length: int,
    context: int | None,
    too_long: str,
    may_skip: int,
    ordered: bool = False,
) -> Rankings:
    """Every ranking and pair that fits a row of ``length`` tokens, no answer with its prompt beyond ``context``.

    One that does not is dropped, cut or refused (``too_long``), and counted. A cut leaves each answer an equal share of
    the row, and a difference between any two that were ranked differently. ``ordered``:
    DataError for ties and margins, which a Plackett-Luce loss has no place for.
    """
    reader, made = read(patterns, may_skip=may_skip), Rankings()
    for row, ranking in reader.each(partial(_read, ordered=ordered)):
        _, answers = render_answers(tokenizer, ranking.prompt, ranking.answers, where=place(row))
        whole = [answer.ids for answer in answers]
        fitted = _fitted(row, ranking, whole, length, context or length, too_long)
        add(made, row, None if fitted is None else [ending(ids) for ids in fitted], cut=fitted != whole)
        if fitted is not None:
            made.ranks.append(ranking.ranks)
            made.margins.append(ranking.margin)
    counted(made, reader, length)
    return made


def _read(row: Row, *, ordered: bool) -> Ranking:
    ranking = ranking_of(row)
    if ordered and (ranking.margin or len(set(ranking.ranks)) < len(ranking.ranks)):
        raise DataError("reward.not-an-order", file=row.file, line=row.line)
    return ranking


def _fitted(
    row: Row, ranking: Ranking, answers: list[list[int]], length: int, context: int, too_long: str
) -> list[list[int]] | None:
    """The ids of each answer, cut where they must be and may; None to drop the ranking."""
    slots, longest = sum(map(len, answers)), max(map(len, answers))
    if slots <= length and longest <= context:
        return answers
    beyond = (slots, length) if slots > length else (longest, context)
    fit_length(row, answers[0], *beyond, too_long)  # raises under "error"
    room = min(length // len(answers), context)
    cut = [ids[:room] for ids in answers]  # no answer is left of one where the prompt fills it: all are then alike
    both = combinations(zip(cut, ranking.ranks, strict=True), 2)
    return None if too_long != "cut" or any(a == b and i != j for (a, i), (b, j) in both) else cut
