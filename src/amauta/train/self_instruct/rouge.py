"""How alike two instructions are: ROUGE-L (Lin 2004, section 3), the F of their longest common subsequence of words.

With l the subsequence's length, P = l/|a| and R = l/|b|, F = 2PR/(P+R) = 2l/(|a|+|b|). That is one minus the indel
distance over |a|+|b|, which rapidfuzz computes bit by bit.
"""

import re
from collections.abc import Iterable

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits of any script; for English those of the ``rouge_score`` library, which
    knows only a-z and 0-9."""
    return _WORD.findall(text.lower())


class Pool:
    """Texts in order, each a string with one character a word, so that one call compares a text with all of them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = []
        self._coded: list[str] = []
        self._codes: dict[str, str] = {}
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Put a text at the end."""
        self.texts.append(text)
        self._coded.append(self._code(text))

    def likeness(self, text: str) -> np.ndarray:
        """ROUGE-L F of ``text`` with each text of the pool, (N,) in f64; 0 where either has no word."""
        coded = self._code(text)
        if not coded or not self._coded:
            return np.zeros(len(self._coded))
        return process.cdist([coded], self._coded, scorer=Indel.normalized_similarity, dtype=np.float64)[0]

    def _code(self, text: str) -> str:
        return "".join(self._codes.setdefault(word, chr(len(self._codes))) for word in words(text))


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L F of two texts."""
    return float(Pool([a]).likeness(b)[0])
