"""Bits per byte, perplexity and entropy of any language model, over whole documents.

A document is ``[begin, …, end]``: ``begin`` is context and not counted, every other id is predicted and counted, the
end included. Bits per byte divide by the UTF-8 bytes of the text and so compare models with different tokenizers;
perplexity is per predicted token and compares only models with the same one.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from amauta.base.errors import DataError, ModelError

Document = tuple[Sequence[int], int, float | None]  # ids, UTF-8 bytes of the text, exact log-probability in nats
ScoreMany = Callable[[Sequence[Sequence[int]]], Iterable[float]]


class LanguageModel(Protocol):
    """What every family offers."""

    def score(self, ids: Sequence[int]) -> Any:
        """Log-probabilities (nats) of ids[1:], (T-1,)."""
        ...


def measure(score_many: ScoreMany, documents: Sequence[Document]) -> dict[str, Any]:
    """What a model pays for documents ``(ids, bytes, exact log-probability or None)``.

    ``score_many`` gives the sum of the log-probabilities (nats) of each document's ids after the first. The result:

    - ``bits_per_byte`` = -sum log p / ln 2 / bytes, ``bits_per_token`` the same per predicted token (the
      cross-entropy), ``perplexity`` = 2 ** bits_per_token. A document of probability 0 makes all three infinite.
    - ``tokens`` predicted (the end counted, the beginning not), ``bytes``, ``documents``.
    - Where every document's exact log-probability is known: ``entropy_bits_per_byte``, what the source itself pays for
      these documents, and ``excess`` = bits_per_byte / entropy_bits_per_byte - 1 (None when the entropy is 0).

    Raises DataError: no documents, or nothing in them; ModelError: a sum that is not a number or above 0.
    """
    tokens = sum(len(ids) - 1 for ids, _, _ in documents)
    size = sum(number for _, number, _ in documents)
    if tokens < 1 or size < 1:
        raise DataError("bits.nothing", documents=len(documents), tokens=tokens, bytes=size)
    sums = [float(value) for value in score_many([ids for ids, _, _ in documents])]
    if len(sums) != len(documents):
        raise ModelError("bits.wrong-number", sums=len(sums), documents=len(documents))
    for place, value in enumerate(sums):
        if not value <= 1e-6:  # also catches nan; a hair above 0 is rounding
            raise ModelError("bits.no-log-probability", document=place + 1, value=value)
    bits = -math.fsum(sums) / math.log(2)
    found: dict[str, Any] = {
        "bits_per_byte": bits / size,
        "bits_per_token": bits / tokens,
        "perplexity": _power_of_two(bits / tokens),
        "tokens": tokens,
        "bytes": size,
        "documents": len(documents),
    }
    exact = [value for _, _, value in documents if value is not None]
    if len(exact) == len(documents):
        entropy = -math.fsum(exact) / math.log(2) / size
        found["entropy_bits_per_byte"] = entropy
        found["excess"] = found["bits_per_byte"] / entropy - 1 if entropy > 0 else None
    return found


def bits_per_byte(model: LanguageModel, documents: Sequence[Document]) -> dict[str, Any]:
    """``measure`` by the model's own ``score``, one document at a time."""
    return measure(lambda many: (float(model.score(ids).sum()) for ids in many), documents)


def _power_of_two(bits: float) -> float:
    try:
        return 2.0**bits
    except OverflowError:
        return math.inf
