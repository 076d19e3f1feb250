"""What a prompt may cost: it is kept within the model's context by dropping demonstrations, and what went is told."""

from dataclasses import dataclass, replace
from typing import Any

from amauta.base.errors import ModelError
from amauta.prompt.template import Prompt


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits, its ids, and how many demonstrations were dropped from its front."""

    prompt: Prompt
    ids: list[int]
    dropped: int


def fit(model: Any, prompt: Prompt, max_tokens: int, *, chat: bool) -> Fitted:
    """Drop demonstrations, the first ones first, until prompt and ``max_tokens`` fit the context.

    An encoder-decoder's answer has a stack of its own: only its prompt must fit. ModelError where the instruction and
    the question alone do not.
    """
    ids: list[int] = []
    answer = 0 if model.kind == "encoder-decoder" else max_tokens
    for dropped in range(len(prompt.shown) + 1):
        kept = replace(prompt, shown=prompt.shown[dropped:])
        ids = kept.ids(model, chat=chat)
        if model.context is None or len(ids) + answer <= model.context:
            return Fitted(kept, ids, dropped)
    raise ModelError("prompt.too-long", length=len(ids), answer=answer, context=model.context)
