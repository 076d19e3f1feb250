"""Log-probs of given answers after given prompts. Prompt and answer become ids jointly, and are split afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amauta.base.errors import ModelError
from amauta.decode.feed import check_ids, feed_for
from amauta.prompt.template import read_ids


@dataclass(frozen=True)
class Row:
    """Ids of which those from ``start`` on are scored."""

    ids: list[int]
    start: int


def row_of(model: Any, prompt: str, answer: str) -> Row:
    """A prompt and what follows it. The answer starts at the first token that the prompt alone would not have there: a
    token that spans the border belongs to the answer."""
    before, whole = read_ids(model, prompt), read_ids(model, prompt + answer)
    start = shared(before, whole)
    if not 0 < start < len(whole):
        raise ModelError("prompt.nothing-to-score", name=model.name, prompt=prompt[-40:], answer=answer)
    return Row(whole, start)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@torch.inference_mode()
def logprobs(model: Any, rows: Sequence[Row]) -> list[float]:
    """The sum of log-probs (nats, f64) of each row's tokens from its ``start`` on.

    Rows are read in their order, and what a row shares with the one before it is not read again, so that one pass over
    the demonstrations serves all questions and all labels. ModelError: a row beyond the context, a model with an
    encoder.
    """
    inner, context = model.model, model.context
    if model.kind not in ("decoder", "ngram"):
        raise ModelError("prompt.cannot-score", name=model.name, kind=model.kind)
    longest = max((len(row.ids) for row in rows), default=0)
    if context is not None and longest > context:
        raise ModelError("prompt.too-long", length=longest, answer=0, context=context)
    check_ids(inner, [row.ids for row in rows])
    if not (hasattr(inner, "new_cache") and getattr(inner, "caches", True)):
        return [float(sum(inner.score(row.ids).tolist()[row.start - 1 :])) for row in rows]
    training = inner.training
    inner.eval()
    try:
        feed = feed_for(inner, 1, longest)
        held: list[int] = []
        return [_next(feed, held, row) for row in rows]
    finally:
        inner.train(training)


def _next(feed: Any, held: list[int], row: Row) -> float:
    """The sum of one row, and ``held``, what the cache holds, made that row."""
    tail = row.ids[row.start :]
    if not held:
        before = feed.start([row.ids[: row.start]])  # (1, V), after the last token of the prompt
        logits = [before, *([feed.extend([tail[:-1]])[0]] if len(tail) > 1 else [])]
    else:
        kept = min(shared(held, row.ids), row.start - 1)  # the token before the answer is read for its logits
        feed.rewind([kept])
        new = row.ids[kept:-1]
        logits = [feed.extend([new])[0][row.start - 1 - kept :]]
    held[:] = row.ids[:-1]
    found = torch.cat(logits).double().log_softmax(-1)  # (answer, V)
    return float(found[torch.arange(len(tail)), torch.tensor(tail, device=found.device)].sum())
