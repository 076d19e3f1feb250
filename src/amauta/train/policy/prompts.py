"""The prompts of a run, and in which order they come."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.base.seeds import derive
from amauta.data.read import read
from amauta.data.records import Message, prompt_of
from amauta.metrics import console
from amauta.tokenize.chat import render
from amauta.tokenize.either import AnyTokenizer


@dataclass(frozen=True)
class Prompt:
    """What is asked, as messages and ids, and the record that tells what is right."""

    messages: list[Message]
    ids: list[int]
    record: dict[str, Any]
    place: str


@dataclass
class Prompts:
    """The prompts of some files, and how many were left out."""

    kept: list[Prompt]
    dropped: int
    skipped: int

    def at(self, number: int, seed: int) -> Prompt:
        """The ``number``-th prompt of a run, which goes through all of them in a new order each time."""
        epoch, place = divmod(number, len(self.kept))
        order = np.random.default_rng(derive(seed, "prompts", epoch)).permutation(len(self.kept))
        return self.kept[int(order[place])]

    def counts(self) -> dict[str, int]:
        return {"prompts": len(self.kept), "dropped_prompts": self.dropped, "skipped": self.skipped}


def prepare_prompts(
    patterns: Sequence[str], tokenizer: AnyTokenizer, *, length: int, room: int, may_skip: int
) -> Prompts:
    """The prompts of all records; those that leave less than ``room`` of ``length`` tokens for an answer are dropped
    and counted. DataError where none is left."""
    reader = read(patterns, may_skip=may_skip)
    kept: list[Prompt] = []
    dropped = 0
    for row, messages in reader.each(prompt_of):
        place = f"{row.file}:{row.line}"
        ids = render(tokenizer, messages, reply=True, where=place).ids
        if len(ids) + room > length:
            dropped += 1
            continue
        kept.append(Prompt(messages, ids, row.value, place))
    if not kept:
        where = ", ".join(reader.patterns)
        raise DataError("policy.no-prompts", where=where, dropped=dropped, length=length, room=room)
    if dropped:
        told = say("policy.dropped", dropped=dropped, kept=len(kept), length=length, room=room)
        console.print(told, markup=False, soft_wrap=True)
    return Prompts(kept, dropped, reader.skipped)
