"""Models whose tokens are letters of a small alphabet: the probability of an answer can be worked by hand."""

from collections.abc import Iterable
from typing import Any

from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

ALPHABET = "abcxyz. \n"


class Letters:
    """A token is a letter of the alphabet; ``merged`` pairs are tokens of their own."""

    has_chat = False

    def __init__(self, merged: tuple[str, ...] = ()) -> None:
        self.pieces_ = (*ALPHABET, *merged)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            piece = max((piece for piece in self.pieces_ if text.startswith(piece)), key=len)
            ids.append(self.pieces_.index(piece))
            text = text[len(piece) :]
        return ids

    prompt = encode

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        return "".join(self.pieces_[id] for id in ids)


class Lettered:
    """A model (anything of floor 4 or 5) with letters."""

    def __init__(self, model: Any, *, kind: str = "decoder", context: int | None = 512, merged: tuple[str, ...] = ()):
        self.model, self.kind, self.context, self.name = model, kind, context, "lettered"
        self.tokenizer = Letters(merged)


def random_transformer(seed: int = 0, context: int = 512, size: int = len(ALPHABET)) -> Transformer:
    """Far from flat, so that nothing hangs on rounding."""
    spec = Spec(vocabulary=size, context=context, width=32, layers=2, heads=4, kv_heads=2, init_std=0.4)
    return Transformer.create(spec, seed)
