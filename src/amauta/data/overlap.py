"""How much of what a model is graded on stands in what it learns: whole texts, and runs of words.

Runs of 13 words, as GPT-3's authors compared (Brown et al. 2020, arXiv 2005.14165, appendix C); a shorter text is
compared whole. Words are compared in lower case, without punctuation.
"""

import re
from collections.abc import Iterable, Sequence

RUN = 13
_WORD = re.compile(r"\w+")


def overlaps(learnt: Iterable[str], held_out: Sequence[str], *, run: int = RUN) -> tuple[list[int], list[int]]:
    """The held-out texts (by place) that are a learnt text word for word, and those that share a run with one."""
    whole: set[tuple[str, ...]] = set()
    runs: set[int] = set()
    for text in learnt:
        words = _words(text)
        whole.add(words)
        runs.update(hash(words[i : i + run]) for i in range(len(words) - run + 1))
    same: list[int] = []
    shared: list[int] = []
    for n, text in enumerate(held_out):
        words = _words(text)
        if words in whole:
            same.append(n)
        if words in whole or any(hash(words[i : i + run]) in runs for i in range(len(words) - run + 1)):
            shared.append(n)
    return same, shared


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))
