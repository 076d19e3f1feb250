"""What writers go on from: the turns before an answer, or the first tokens of documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from amauta.base.errors import ConfigError, DataError
from amauta.base.seeds import derive
from amauta.data.read import read
from amauta.data.records import Message, text_of
from amauta.decode.generate import generate
from amauta.decode.sample import Generated
from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from amauta.models.transformer import Transformer
from amauta.tokenize.either import AnyTokenizer, documents, piece_bytes
from amauta.train.distill.settings import Distill, Writing
from amauta.train.policy.prompts import prepare_prompts


@dataclass(frozen=True)
class Opening:
    """The ids that are given, and as what they were given: messages, or the beginning of a text."""

    ids: list[int]
    place: str
    messages: list[Message] | None = None
    text: str = ""

    def record(self, written: str) -> dict[str, Any]:
        """A record of what was given and written, for a student's own tokenizer."""
        if self.messages is None:
            return {"text": self.text + written}
        return {"messages": [*self.messages, {"role": "assistant", "content": written}]}


def openings(settings: Distill, tokenizer: AnyTokenizer, length: int) -> tuple[list[Opening], dict[str, int]]:
    """One of each record, and how many were left out. ConfigError without texts, DataError where none is left."""
    room = settings.writing.max_tokens
    if settings.data:
        found = prepare_prompts(settings.data, tokenizer, length=length, room=room, may_skip=settings.may_skip)
        return [Opening(one.ids, one.place, one.messages) for one in found.kept], found.counts()
    if not settings.text:
        raise ConfigError("distill.no-texts")
    reader = read(settings.text, may_skip=settings.may_skip)
    given = min(settings.writing.begin_tokens, length - room)
    if given < 1:
        raise ConfigError("distill.no-room", length=length, room=room)
    rows = list(reader.each(text_of))
    made: list[Opening] = []
    for (row, _), ids in zip(rows, documents(tokenizer, [text for _, text in rows]), strict=True):
        begin = ids[:given]
        while len(begin) > 1 and begin[-1] in tokenizer.stops:  # the end of a short document
            begin = begin[:-1]
        if not begin:
            continue
        spelt = b"".join(piece_bytes(tokenizer, id) for id in begin if id not in tokenizer.special)
        made.append(Opening(begin, f"{row.file}:{row.line}", None, spelt.decode(errors="ignore")))
    if not made:
        raise DataError("train.no-records", where=", ".join(settings.text), dropped=0, length=length)
    return made, {"prompts": len(made), "skipped": reader.skipped}


def order(count: int, number: int, seed: int) -> int:
    """Which opening the ``number``-th text of a run has: all in a new order each time."""
    epoch, place = divmod(number, count)
    return int(np.random.default_rng(derive(seed, "openings", epoch)).permutation(count)[place])


def write(
    model: Transformer, tokenizer: AnyTokenizer, given: Sequence[Opening], writing: Writing, seed: int
) -> list[Generated]:
    """What the model writes after each of the openings, sampled or the best of its beams."""
    prompts, pieces = [one.ids for one in given], partial(piece_bytes, tokenizer)
    if writing.beams > 1:
        greedy = Sampling(max_tokens=writing.max_tokens, temperature=0.0)
        found = search(
            model, prompts, greedy, Search(beams=writing.beams), stop_ids=tokenizer.stops, token_bytes=pieces
        )
        made = [Generated(ids=best.ids, text=best.text, finish=best.finish, error=best.error) for best, *_ in found]
    else:
        sampling = Sampling(max_tokens=writing.max_tokens, temperature=writing.temperature, seed=seed)
        made = generate(model, prompts, sampling, rows=writing.running, stop_ids=tokenizer.stops, token_bytes=pieces)
    for one in made:
        if one.error is not None:
            raise one.error
    return made
