"""Salient spans: the dates, numbers and names of a text, which language alone does not give away
(Guu et al. 2020, arXiv 2002.08909, section 3.4; for T5: Roberts, Raffel and Shazeer 2020, arXiv 2002.08910).

They find them by a named-entity tagger; here three regular expressions do, for English and Spanish:

- dates: ``12 March 1990``, ``March 12, 1990``, ``12 de marzo de 1990``, ``March 1990``, ``1990-03-12``, ``12/03/1990``;
- numbers: ``1990``, ``3,500``, ``3.500,25``, ``12 %``, ``40%``;
- names: runs of capitalised words, with ``de``, ``del``, ``la``, ``of``, ``the`` between them. A single capitalised
  word at the beginning of a sentence is none.
"""

import re
from collections.abc import Sequence

import numpy as np

_MONTH = (
    "January|February|March|April|May|June|July|August|September|October|November|December|enero|febrero|marzo|abril|"
    "mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
)
_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?: de)? (?:{_MONTH})(?:(?: de|,)? \d{{4}})?|(?:{_MONTH}) \d{{1,2}}(?:, \d{{4}})?"
    rf"|(?:{_MONTH})(?: de)? \d{{4}}|\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}/\d{{1,2}}/\d{{2,4}})\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b(?: ?%)?")
_WORD = r"[A-ZÀ-ÖØ-Þ][^\W\d_]*(?:['’-][^\W\d_]+)*"
_NAME = re.compile(rf"\b{_WORD}(?:(?: (?:de|del|la|of|the))* {_WORD})*")
_OPENS = set('.!?¡¿:\n"“«(')  # after these a capital says nothing


def salient(text: str) -> list[tuple[int, int]]:
    """The places (start, end) of dates, numbers and names, in order; where two overlap, the date, then the name."""
    found: list[tuple[int, int]] = []
    for pattern in (_DATE, _NAME, _NUMBER):
        for match in pattern.finditer(text):
            start, end = match.span()
            before = text[:start].rstrip(" ")[-1:]
            if pattern is _NAME and " " not in match[0] and (not before or before in _OPENS):
                continue
            if all(end <= s or e <= start for s, e in found):
                found.append((start, end))
    return sorted(found)


def salient_tokens(pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """The tokens [start, end) of each salient span, given the bytes of every token; spans that share a token are one.

    A token belongs to a span when any byte of it does, a space before the span aside.
    """
    whole = b"".join(pieces)
    text = whole.decode("utf-8", errors="surrogateescape")
    sizes = np.cumsum([len(character.encode("utf-8", errors="surrogateescape")) for character in text])
    offset = np.concatenate(([0], sizes))  # bytes before each character
    ends = np.cumsum([len(piece) for piece in pieces])
    found: list[tuple[int, int]] = []
    for start, end in salient(text):
        first = int(np.searchsorted(ends, offset[start], side="right"))
        last = int(np.searchsorted(ends, offset[end], side="left")) + 1
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def choose_salient(
    spans: Sequence[tuple[int, int]], length: int, room: int, rng: np.random.Generator, *, each: int = 0
) -> np.ndarray:
    """Salient spans in random order as long as they fit into ``room`` tokens, where every span costs ``each`` more:
    (T,) bool. None is chosen where none fits, and never the whole text."""
    chosen = np.zeros(length, dtype=bool)
    for i in rng.permutation(len(spans)).tolist():
        start, end = spans[i]
        if end - start + each <= room and int(chosen.sum()) + end - start < length:
            chosen[start:end] = True
            room -= end - start + each
    return chosen
