"""How many tokens a language costs: tokens per word and bytes per token (Rust et al. 2021, arXiv 2012.15613)."""

from collections.abc import Iterable
from itertools import islice

from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.tokenizer import utf8

_BATCH = 512  # texts encoded at once


def fertility(tokenizer: AnyTokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, dict[str, int | float | None]]:
    """For each language of ``texts`` (pairs of language and text), in order of appearance, what its texts cost.

    ``texts``, ``words`` (runs without white space), ``bytes`` (UTF-8), ``tokens``; ``tokens_per_word`` (fertility),
    ``words_per_token`` (English prose with a large vocabulary: about 0.75) and ``bytes_per_token``, None where there
    was nothing to divide by. Languages written without spaces have no words to count by: compare their bytes.
    """
    totals: dict[str, dict[str, int]] = {}
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
        encoded = tokenizer.encode_many([text for _, text in batch])
        for (language, text), ids in zip(batch, encoded, strict=True):
            total = totals.setdefault(language, dict.fromkeys(("texts", "words", "bytes", "tokens"), 0))
            total["texts"] += 1
            total["words"] += len(text.split())
            total["bytes"] += len(utf8(text))
            total["tokens"] += len(ids)
    return {
        language: {
            **total,
            "tokens_per_word": _ratio(total["tokens"], total["words"]),
            "words_per_token": _ratio(total["words"], total["tokens"]),
            "bytes_per_token": _ratio(total["bytes"], total["tokens"]),
        }
        for language, total in totals.items()
    }


def _ratio(upper: int, lower: int) -> float | None:
    return round(upper / lower, 4) if lower else None
