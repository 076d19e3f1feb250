"""One row as a drafter takes it on, and the places at which the model judges it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.decode.constrain.constraint import Constraint
from amauta.decode.filters.filters import apply_filters
from amauta.decode.sample import check_finite
from amauta.decode.settings import Sampling


class Place(NamedTuple):
    """Where a token is chosen: what stands before it, its first ``prompt_length`` ids the prompt, and a constraint's
    mask, (V,) or None."""

    history: list[int]
    prompt_length: int
    settings: Sampling
    allowed: Tensor | None


class Course:
    """The text so far, and what is proposed after it: at most ``most`` tokens.

    There is a place before each proposal, and one after the last unless that ended the course. ``drafts``: what each
    proposal was drawn from, (V,) processed logits, None for one that was certain. The constraint itself stays as it
    is: a copy goes along.
    """

    def __init__(
        self,
        number: int,
        ids: Sequence[int],
        settings: Sampling,
        random: torch.Generator,
        *,
        prompt_length: int,
        most: int,
        constraint: Constraint | None = None,
    ) -> None:
        self.number, self.ids, self.settings, self.random, self.most = number, list(ids), settings, random, most
        self.prompt_length = prompt_length
        self.proposed: list[int] = []
        self.drafts: list[Tensor | None] = []
        self._constraint = constraint.copy() if constraint is not None and most else constraint
        self.places = [self._place()]

    @property
    def open(self) -> bool:
        """Whether another token may be proposed."""
        return len(self.proposed) < min(self.most, len(self.places))

    def allows(self, id: int) -> bool:
        mask = self.places[-1].allowed
        return mask is None or bool(mask[id])

    def take(self, id: int, draft: Tensor | None = None) -> None:
        """One more proposal; ``draft``: what it was drawn from.

        A stop id ends the course, and so does a token after which the constraint allows no other: whether that is an
        end or a fault is for the row itself to find out, if the token stands.
        """
        self.ids.append(id)
        self.proposed.append(id)
        self.drafts.append(draft)
        if id in self.settings.stop_ids:
            return
        try:
            if self._constraint is not None:
                self._constraint.take(id)
                if self._constraint.finished:
                    return
            self.places.append(self._place())
        except ModelError:
            return

    def cut(self, places: int) -> None:
        """Only the first places, and what is proposed at them; nothing follows."""
        del self.places[places:], self.proposed[places:], self.drafts[places:]

    def forced(self) -> list[int]:
        """What the constraint lets come next and nothing else, where it can tell."""
        return [] if self._constraint is None else self._constraint.forced()

    def _place(self) -> Place:
        mask = None if self._constraint is None else self._constraint.mask()
        return Place(list(self.ids), self.prompt_length, self.settings, mask)


class Judged(NamedTuple):
    """What is drawn from at a place, (V,), and what it was after the constraint and each filter, for those who watch;
    or why no token may come there, which counts only if the text does."""

    logits: Tensor
    stages: tuple[tuple[str, Tensor], ...] = ()
    fault: ModelError | None = None


def processed(logits: Tensor, places: Sequence[Place], *, watching: bool = False) -> list[Judged]:
    """The logits of each place, (N, V), after constraint and filters."""
    try:
        return _processed(logits, places, watching)
    except ModelError as fault:
        if len(places) == 1:
            return [Judged(logits[0], fault=fault)]
        alone = zip(logits[:, None], places, strict=True)
        return [judged for row, place in alone for judged in processed(row, [place], watching=watching)]


def _processed(logits: Tensor, places: Sequence[Place], watching: bool) -> list[Judged]:
    check_finite(logits)
    stages: list[tuple[str, Tensor]] | None = [] if watching else None
    if any(place.allowed is not None for place in places):
        free = torch.ones(logits.shape[-1], dtype=torch.bool)
        allowed = torch.stack([free if place.allowed is None else place.allowed for place in places])
        logits = logits.masked_fill(~allowed.to(logits.device), -torch.inf)
        if stages is not None:
            stages.append(("constraint", logits))
    history, lengths, settings, _ = zip(*places, strict=True)
    logits = apply_filters(logits, history, settings, prompt_lengths=lengths, trace=stages)
    return [Judged(row, tuple((name, after[i]) for name, after in stages or ())) for i, row in enumerate(logits)]
