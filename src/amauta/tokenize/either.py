"""What is done alike with a tokenizer that was trained here and with another model's."""

from collections.abc import Sequence

from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.tokenizer import Tokenizer

AnyTokenizer = Tokenizer | ForeignTokenizer


def special_of(tokenizer: AnyTokenizer | None) -> dict[str, int | list[int]]:
    """The ids of begin, end and padding as config.json spells them; what a tokenizer has not is left out."""
    if tokenizer is None:
        return {}
    stops = list(tokenizer.stops)
    found = {
        "bos_token_id": tokenizer.begin,
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": tokenizer.pad,
    }
    return {name: id for name, id in found.items() if id is not None}


def piece_bytes(tokenizer: AnyTokenizer, id: int) -> bytes:
    """A token's bytes; none for an id that the model has and the tokenizer has not (a padded vocabulary)."""
    return tokenizer.token_bytes(id) if id < tokenizer.size else b""


def documents(tokenizer: AnyTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """``tokenizer.document`` of each text; ours on all cores."""
    if isinstance(tokenizer, Tokenizer):
        return [[tokenizer.begin, *ids, tokenizer.end] for ids in tokenizer.encode_many(texts)]
    return [tokenizer.document(text) for text in texts]


def scored(tokenizer: AnyTokenizer, text: str) -> tuple[list[int], int]:
    """A document of which every id after the first is scored, and the UTF-8 bytes that those stand for.

    A first token that no text gives is only read. Where the tokenizer puts none before a text, the begin token is put
    there, else the end token, which stands between documents. A tokenizer with neither leaves its first token, and the
    bytes of that, uncounted.
    """
    ids, size = tokenizer.document(text), len(text.encode())
    unknown = getattr(tokenizer, "unknown", None)
    if ids and ids[0] in tokenizer.special and ids[0] != unknown and ids != [tokenizer.end]:
        return ids, size
    first = tokenizer.end if tokenizer.begin is None else tokenizer.begin
    if first is not None:
        return [first, *ids], size
    return ids, size - len(tokenizer.token_bytes(ids[0])) if ids else 0


def longest(tokenizer: AnyTokenizer, count: int) -> list[int]:
    """The ids of the ``count`` tokens with the most bytes, longest first; of equals, the one with the smaller id."""
    return sorted(range(tokenizer.size), key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]
