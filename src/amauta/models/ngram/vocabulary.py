"""Words or characters as ids, for an n-gram model that stands on no tokenizer.

Words are what stands between ASCII white space (and NUL), as lmplz, the kenlm library and the ARPA format have it: a
no-break space is part of its word.

Text comes as blobs: UTF-8 bytes in which every document ends with a NUL. So many documents are split and looked up at
once, in the C of Python and of Arrow.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amauta.base.errors import DataError, ModelError
from amauta.models.ngram_settings import Unit
from amauta.runs import write_atomically

SPECIAL = ("<s>", "</s>", "<unk>")
FILE = "vocabulary.json"
Ids = NDArray[np.int32]
END = "\0"  # ends a document in a blob


class Vocabulary:
    """``types`` behind ``<s>``, ``</s>`` and (if open) ``<unk>``: words, or single characters.

    It offers what a tokenizer offers; what it decodes is not the exact text when words are the unit (one space between
    words) or when a type is unknown. A type that reads like a mark is none: in a text it is unknown.
    """

    has_chat = False
    pad = None
    max_length = None

    def __init__(self, types: Iterable[str], unit: Unit, *, open: bool = True) -> None:
        self.unit: Unit = unit
        self.begin, self.end = 0, 1
        self.unknown = 2 if open else None
        self.entries = [*SPECIAL[: 2 + open], *types]
        self.size = len(self.entries)
        self.names = dict(enumerate(SPECIAL[: 2 + open]))
        self.special = frozenset(self.names)
        self.stops = (self.end,)
        self._ids = {name: number for number, name in enumerate(self.entries) if number >= 2 + open}

    @classmethod
    def of(cls, texts: Iterable[str], unit: Unit, *, open: bool = True) -> "Vocabulary":
        """The vocabulary of all types in ``texts``, in the order of their code points."""
        learner = Learner(unit, open=open)
        for text in texts:
            learner.add(blob([text]))
        return learner.finish()[0]

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a type not in the vocabulary is ``<unk>``, or a DataError if the vocabulary is closed."""
        return self.stream(blob([text]))[1:-1].tolist()

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text."""
        return [ids[1:-1].tolist() for ids in self.documents(texts)]

    def documents(self, texts: Sequence[str]) -> list[Ids]:
        """``document`` of each text, looked up together."""
        stream = self.stream(blob(texts))
        return np.split(stream, np.flatnonzero(stream == self.begin)[1:]) if len(stream) else []

    def stream(self, blob: bytes) -> Ids:
        """The ids of the documents of a blob, each as ``[begin, …, end]``, laid end to end, (T,)."""
        places, types = _pieces(blob, self.unit)
        ids = np.array([self._id(piece) for piece in types], np.int32)
        return _framed(ids[places], self.begin, self.end)

    def document(self, text: str) -> list[int]:
        """``[begin]``, the ids of the text, ``[end]``."""
        return [self.begin, *self.encode(text), self.end]

    def prompt(self, text: str) -> list[int]:
        """``[begin]`` and the ids of the text: what a model continues."""
        return [self.begin, *self.encode(text)]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids; ``<s>`` and ``</s>`` are left out unless ``special``."""
        names = [self.entries[number] for number in ids if special or number not in (self.begin, self.end)]
        return (" " if self.unit == "word" else "").join(names)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The name of each id, for a reader."""
        return [self.entries[number] for number in ids]

    def token_bytes(self, id: int) -> bytes:
        """What an id adds to a text that is written on: a word has a space before it."""
        if id in (self.begin, self.end):
            return b""
        return ((" " if self.unit == "word" else "") + self.entries[id]).encode()

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides which ids a text has."""
        return hashlib.blake2b(self._json().encode(), digest_size=16).hexdigest()

    def save(self, folder: Path, *, max_length: int | None = None) -> None:
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

    def _id(self, piece: str) -> int:
        if piece == END:
            return self.end
        found = self._ids.get(piece, self.unknown)
        if found is None:
            raise DataError("ngram.unknown-type", unit=self.unit, type=piece)
        return found

    def _json(self) -> str:
        is_open = self.unknown is not None
        stored = {"unit": self.unit, "open": is_open, "types": self.entries[2 + is_open :]}
        return json.dumps(stored, ensure_ascii=False)


class Learner:
    """A vocabulary in the making: every blob gets its ids at once, numbered as the types come; ``finish`` gives the
    vocabulary in the order of code points, and what each of those ids is in it.
    """

    def __init__(self, unit: Unit, *, open: bool = True, skip_marks: bool = False) -> None:
        self.unit, self.open, self.skip_marks = unit, open, skip_marks
        self.skipped = 0  # words that read like a mark
        self.documents = 0
        self._numbers: dict[str, int] = {END: 1}

    def add(self, blob: bytes) -> Ids:
        """The ids of a blob's documents, ``[0, …, 1]`` each, (T,). DataError where a word reads like a mark."""
        places, types = _pieces(blob, self.unit)
        marks = [place for place, piece in enumerate(types) if piece in SPECIAL] if self.unit == "word" else []
        if marks:
            wrong = np.flatnonzero(np.isin(places, marks))
            if not self.skip_marks:
                document = self.documents + 1 + int(np.count_nonzero(places[: wrong[0]] == types.index(END)))
                raise DataError("ngram.mark-in-text", mark=types[places[wrong[0]]], document=document)
            self.skipped += len(wrong)
            places = np.delete(places, wrong)
        numbers = self._numbers
        ids = np.array([numbers.setdefault(piece, len(numbers) + 2) for piece in types], np.int32)[places]
        self.documents += int(np.count_nonzero(ids == 1))
        return _framed(ids, 0, 1)

    def finish(self) -> tuple[Vocabulary, Ids]:
        """The vocabulary, and the id in it of each id that ``add`` gave."""
        names = sorted(piece for piece in self._numbers if piece not in (END, *SPECIAL))
        vocabulary = Vocabulary(names, self.unit, open=self.open)
        new = np.zeros(len(self._numbers) + 3, np.int32)
        new[1] = vocabulary.end
        new[[self._numbers[name] for name in names]] = np.arange(2 + self.open, vocabulary.size)
        return vocabulary, new


def blob(texts: Iterable[str]) -> bytes:
    """Documents as bytes in which each ends with a NUL; a NUL inside of one is white space."""
    try:
        return "".join(text.replace(END, " ") + END for text in texts).encode()
    except UnicodeEncodeError as error:
        character = f"U+{ord(error.object[error.start]):04X}"
        raise DataError("tokenize.lone-surrogate", character=character, at=error.start) from None


def _pieces(blob: bytes, unit: Unit) -> tuple[NDArray[Any], list[str]]:
    """The words or characters of a blob as places in the list of its types; ``END`` is one of them."""
    if unit == "character":
        points, places = np.unique(np.frombuffer(blob.decode().encode("utf-32-le"), np.uint32), return_inverse=True)
        return places, [chr(point) for point in points.tolist()]
    import pyarrow

    coded = pyarrow.array(blob.replace(b"\0", b" \0 ").split(), pyarrow.binary()).dictionary_encode()
    return coded.indices.to_numpy(), [piece.decode() for piece in coded.dictionary.to_pylist()]


def _framed(ids: Ids, begin: int, end: int) -> Ids:
    """A begin before each document; every one ends with its ``end`` already."""
    ends = ids == end
    before = np.cumsum(ends) - ends  # documents that ended before each id
    framed = np.empty(len(ids) + int(np.count_nonzero(ends)), np.int32)
    places = np.arange(len(ids)) + before + 1
    framed[places] = ids
    framed[places[np.flatnonzero(ends)[:-1]] + 1] = begin
    framed[:1] = begin
    return framed
