"""What was tried and what came of it: answers with their rewards, and batches of them to learn from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.data.batches import Batch, Listed, Piece, collate
from amauta.data.pack import best_fit


@dataclass
class Answer:
    """One answer of the policy; all lists have one entry a token of it. ``ids`` include the end of turn."""

    prompt: list[int]
    ids: list[int]
    text: str
    ended: bool  # False: cut off at the longest length, or by the context
    place: str  # of the record, in its file
    group: int  # which prompt of the iteration
    sampled: list[float]  # log-probs under which the sampler drew
    reward: float | None = None  # None: could not be scored, and was dropped
    rewards: dict[str, float | None] = field(default_factory=dict)  # its parts
    old: list[float] | None = None  # log-probs of the trainer before the first step on it; None: the step's own
    reference: list[float] | None = None
    values: list[float] | None = None  # of the critic, before each token
    advantages: list[float] = field(default_factory=list)
    returns: list[float] | None = None  # what the critic learns
    learnt: bool = True  # False: it carries no loss

    @property
    def slots(self) -> int:
        """Places that it takes in a row: its last token is only predicted."""
        return len(self.prompt) + len(self.ids) - 1


@dataclass
class PolicyBatch(Batch):
    """Packed answers, and for each of N answers what belongs to its (at most R) tokens: (N, R), 0 beyond its end."""

    at: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))  # place in the flat (B*T) rows
    mask: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))  # of a token that carries a loss
    sampled: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    old: Tensor | None = None
    reference: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None
    beta: float = 0.0
    places: tuple[str, ...] = ()
    facts: dict[str, float] = field(default_factory=dict)  # of the iteration, for the journal
    ptx: Batch | None = None

    def counts(self) -> Counter[str]:
        """Beside the tokens read: ``answers`` and ``actions`` that carry a loss, ``ptx`` next tokens of documents."""
        found = super().counts() + Counter(answers=int(self.mask.any(-1).sum()), actions=int(self.mask.sum()))
        return found + Counter(ptx=self.ptx.supervised() if self.ptx is not None else 0)


def batch_of(answers: Sequence[Answer], *, beta: float = 0.0, facts: dict[str, float] | None = None) -> PolicyBatch:
    """The answers side by side in rows of the longest one's length, so that little is padding."""
    slots = [one.slots for one in answers]
    length, most = max(slots), max(len(one.ids) for one in answers)
    rows = best_fit(slots, length)
    units = Listed([(_piece(one),) for one in answers])
    plain = collate(units, rows, length)
    at = torch.zeros(len(answers), most, dtype=torch.long)
    for r, row in enumerate(rows):
        start = r * length
        for i in row:
            first = start + len(answers[i].prompt) - 1
            at[i, : len(answers[i].ids)] = torch.arange(first, first + len(answers[i].ids))
            start += slots[i]

    def laid(lists: Sequence[Sequence[float] | None]) -> Tensor | None:
        if any(one is None for one in lists):
            return None
        made = torch.zeros(len(lists), most)
        for i, one in enumerate(lists):
            made[i, : len(one or ())] = torch.tensor(one)
        return made

    mask = laid([[float(one.learnt)] * len(one.ids) for one in answers])
    sampled = laid([one.sampled for one in answers])
    advantages = laid([one.advantages or [0.0] * len(one.ids) for one in answers])
    assert mask is not None and sampled is not None and advantages is not None
    return PolicyBatch(
        **vars(plain), at=at, mask=mask.bool(), sampled=sampled, advantages=advantages,
        old=laid([one.old for one in answers]), reference=laid([one.reference for one in answers]),
        values=laid([one.values for one in answers]), returns=laid([one.returns for one in answers]),
        beta=beta, places=tuple(one.place for one in answers), facts=facts or {},
    )  # fmt: skip


def _piece(one: Answer) -> Piece:
    ids = np.array([*one.prompt, *one.ids], dtype=np.int64)
    return Piece(ids, np.arange(1, len(ids)) >= len(one.prompt))


def to_record(one: Answer) -> dict[str, Any]:
    """The answer as a JSON object; floats come back bit for bit."""
    return dict(vars(one))


def from_record(value: dict[str, Any]) -> Answer:
    return Answer(**value)
