"""Another model's tokenizer for an n-gram model, which needs a begin and an end that differ and no text has."""

from collections.abc import Iterable, Sequence
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.ngram.vocabulary import SPECIAL


class Framed:
    """A tokenizer with two more ids, ``begin`` = its size and ``end`` = its size + 1; all else is the tokenizer's own.

    For tokenizers that have no begin, no end, or one token for both (GPT-2).
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.begin, self.end, self.size = inner.size, inner.size + 1, inner.size + 2
        self.names = {**inner.names, self.begin: SPECIAL[0], self.end: SPECIAL[1]}
        self.special = frozenset(self.names)
        self.stops = (self.end,)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def document(self, text: str) -> list[int]:
        """``[begin]``, the ids of the text, ``[end]``."""
        return [self.begin, *self.inner.encode(text), self.end]

    def prompt(self, text: str) -> list[int]:
        """``[begin]`` and the ids of the text."""
        return [self.begin, *self.inner.encode(text)]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids; the two of its own are left out."""
        return self.inner.decode([id for id in ids if id < self.inner.size], special=special)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The name of each id, for a reader."""
        return [self.names[id] if id >= self.inner.size else self.inner.pieces([id])[0] for id in ids]

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, none for the two of its own."""
        return b"" if id >= self.inner.size else self.inner.token_bytes(id)


def framed(tokenizer: Any) -> Any:
    """The tokenizer as an n-gram model can use it; ModelError for None, which a folder without one gives."""
    if tokenizer is None:
        raise ModelError("ngram.no-tokenizer")
    if None in (tokenizer.begin, tokenizer.end) or tokenizer.begin == tokenizer.end:
        return Framed(tokenizer)
    return tokenizer


def arpa_names(tokenizer: Any, size: int, begin: int) -> list[str]:
    """The word of each id in an ARPA file, (V,): ``<s>``, ``</s>``, ``<unk>``, types, or a tokenizer's own spelling.

    White space, which parts the words of such a file, is written as bytes: ``<0x20>``. A model on bare ids writes the
    numbers. ModelError where two ids would get one word.
    """
    if tokenizer is None:
        names = [str(id) for id in range(size)]
        names[begin] = SPECIAL[0]
        return names
    entries = getattr(tokenizer, "entries", None) or [_spelling(tokenizer, id) for id in range(size)]
    names = [_without_space(name) for name in entries]
    marks = (begin, tokenizer.end, getattr(tokenizer, "unknown", None))
    for mark, id in zip(SPECIAL, marks, strict=True):
        if id is not None:
            names[id] = mark
    if len(set(names)) < size:
        seen: dict[str, int] = {}
        first, second = next((seen[n], id) for id, n in enumerate(names) if seen.setdefault(n, id) != id)
        raise ModelError("ngram.one-word-twice", first=first, second=second, word=names[first])
    return names


def _spelling(tokenizer: Any, id: int) -> str:
    """What tokenizer.json calls an id; an id that it does not use gets a name of its own."""
    inner = tokenizer.inner
    while not hasattr(inner, "id_to_token"):
        inner = inner.inner
    return tokenizer.names.get(id) or inner.id_to_token(id) or f"<id {id}>"


def _without_space(name: str) -> str:
    return "".join(f"<0x{ord(one):02X}>" if one in " \t\n\r\x0b\x0c\0" else one for one in name)
