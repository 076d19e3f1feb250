"""Words or characters as ids, for an n-gram model that stands on no tokenizer."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from amauta.base.errors import DataError, ModelError
from amauta.runs import write_atomically

Unit = Literal["word", "character"]
SPECIAL = ("<s>", "</s>", "<unk>")
FILE = "vocabulary.json"


class Vocabulary:
    """The types of a text, in the order of their code points, behind ``<s>``, ``</s>`` and (if open) ``<unk>``.

    Words are what stands between white space. It offers what a tokenizer offers; what it decodes is not the exact text
    when words are the unit (one space between words) or when a type is unknown.
    """

    def __init__(self, types: Iterable[str], unit: Unit, *, open: bool = True) -> None:
        self.unit: Unit = unit
        self.begin, self.end = 0, 1
        self.unknown = 2 if open else None
        self.names = [*SPECIAL[: 2 + open], *types]
        self.size = len(self.names)
        self._ids = {name: number for number, name in enumerate(self.names) if number >= 2 + open}

    @classmethod
    def of(cls, texts: Iterable[str], unit: Unit, *, open: bool = True) -> "Vocabulary":
        """The vocabulary of all types in ``texts``."""
        types: set[str] = set()
        for text in texts:
            types.update(_pieces(text, unit))
        return cls(sorted(types), unit, open=open)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a type not in the vocabulary is ``<unk>``, or a DataError if the vocabulary is closed."""
        if self.unknown is not None:
            unknown = self.unknown
            return [self._ids.get(piece, unknown) for piece in _pieces(text, self.unit)]
        try:
            return [self._ids[piece] for piece in _pieces(text, self.unit)]
        except KeyError as error:
            raise DataError("ngram.unknown-type", unit=self.unit, type=error.args[0]) from None

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text."""
        return [self.encode(text) for text in texts]

    def document(self, text: str) -> list[int]:
        """``[begin]``, the ids of the text, ``[end]``."""
        return [self.begin, *self.encode(text), self.end]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids; ``<s>`` and ``</s>`` are left out unless ``special``."""
        names = [self.names[number] for number in ids if special or number not in (self.begin, self.end)]
        return (" " if self.unit == "word" else "").join(names)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The name of each id, for a reader."""
        return [self.names[number] for number in ids]

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides which ids a text has."""
        return hashlib.blake2b(self._json().encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json`` into a folder that exists."""
        write_atomically(folder / FILE, self._json())

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """What ``save`` wrote; ModelError when the file is missing or malformed."""
        try:
            stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls(stored["types"], stored["unit"], open=stored["open"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError("ngram.bad-folder", folder=folder, reason=error) from None

    def _json(self) -> str:
        is_open = self.unknown is not None
        stored = {"unit": self.unit, "open": is_open, "types": self.names[2 + is_open :]}
        return json.dumps(stored, ensure_ascii=False)


def _pieces(text: str, unit: Unit) -> Sequence[str]:
    return text.split() if unit == "word" else text
