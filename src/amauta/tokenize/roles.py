"""The special tokens that pretraining objectives need, and what a token's text says about words and sentences.

Our own tokenizers hold the names that were reserved when they were trained; another model's tokenizer brings its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from amauta.base.errors import ModelError
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.special import CLASSIFIER, MASKS, SENTINEL, SEPARATOR

_NUMBERED = re.compile(r"<extra_id_(\d+)>")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*$")


@dataclass(frozen=True)
class Roles:
    """The special tokens of a tokenizer by what they are for; ModelError, with the way to have it, for one it lacks."""

    tokenizer: AnyTokenizer

    @cached_property
    def mask(self) -> int:
        """What stands for a hidden token."""
        if isinstance(self.tokenizer, ForeignTokenizer) and self.tokenizer.mask is not None:
            return self.tokenizer.mask
        for name in MASKS:
            if name in self._ids:
                return self._ids[name]
        raise self._lacks(MASKS[0], MASKS[:1])

    @cached_property
    def edges(self) -> tuple[list[int], list[int]]:
        """What stands before and after a text: ``[CLS]`` and ``[SEP]``, ``<s>`` and ``</s>``, nothing and ``</s>``."""
        if isinstance(self.tokenizer, ForeignTokenizer):
            ids, own = self.tokenizer.around("a")[0], self.tokenizer.encode("a")
            at = next(i for i in range(len(ids)) if ids[i : i + len(own)] == own)
            return ids[:at], ids[at + len(own) :]
        first, last = self.tokenizer.edges
        return [first], [last]

    @cached_property
    def pair(self) -> tuple[int, int]:
        """``[CLS]`` and ``[SEP]`` of ``[CLS] a [SEP] b [SEP]``."""
        if isinstance(self.tokenizer, ForeignTokenizer):
            found = self.tokenizer.classifier, self.tokenizer.separator
        else:
            found = self._ids.get(CLASSIFIER), self._ids.get(SEPARATOR)
        missing = [name for name, id in zip((CLASSIFIER, SEPARATOR), found, strict=True) if id is None]
        if found[0] is None or found[1] is None:
            raise self._lacks(" ".join(missing), missing)
        return found[0], found[1]

    @cached_property
    def sentinels(self) -> np.ndarray:
        """``<extra_id_0>``, ``<extra_id_1>`` … as far as there are any without a gap, (N,)."""
        found = ((id, _NUMBERED.fullmatch(name)) for id, name in self.tokenizer.names.items())
        numbers = {int(match[1]): id for id, match in found if match}
        count = next(n for n in range(len(numbers) + 1) if n not in numbers)
        return np.array([numbers[n] for n in range(count)], dtype=np.int64)

    def needed_sentinels(self, count: int) -> np.ndarray:
        """The first ``count`` sentinels."""
        held = len(self.sentinels)
        if held < count:
            names = " … ".join(dict.fromkeys(SENTINEL.format(n) for n in (held, count - 1)))
            raise self._lacks(names, [SENTINEL.format(n) for n in range(count)])
        return self.sentinels[:count]

    @property
    def end(self) -> int:
        """What closes a text."""
        if self.tokenizer.end is None:
            raise ModelError("tokenize.no-role", name="</s>")
        return self.tokenizer.end

    @property
    def pad(self) -> int:
        """What fills a row."""
        if self.tokenizer.pad is None:
            raise ModelError("tokenize.no-role", name="<pad>")
        return self.tokenizer.pad

    @cached_property
    def ordinary(self) -> np.ndarray:
        """The ids that a text can have, (N,)."""
        return np.setdiff1d(np.arange(self.tokenizer.size), list(self.tokenizer.special))

    @cached_property
    def is_ordinary(self) -> np.ndarray:
        """True for the ids that a text can have, (V,)."""
        found = np.zeros(self.tokenizer.size, dtype=bool)
        found[self.ordinary] = True
        return found

    @cached_property
    def bytes(self) -> list[bytes]:
        """The bytes of every token; a space that belongs to a word stands before it, or after it, as in the text."""
        return [self.tokenizer.token_bytes(id) for id in range(self.tokenizer.size)]

    @cached_property
    def sizes(self) -> np.ndarray:
        """The number of bytes of every token, (V,)."""
        return np.array([len(piece) for piece in self.bytes])

    def word_starts(self, ids: np.ndarray) -> np.ndarray:
        """True where a token begins a word: (T,). A space before it says so (byte-level, SentencePiece, a WordPiece
        without ``##``), one at the end of a token with text before it (openai-gpt), or that it is the first."""
        opens, closes = self._spaces
        return opens[ids] | np.concatenate(([True], closes[ids[:-1]]))

    def sentence_ends(self, ids: np.ndarray) -> np.ndarray:
        """True where a token ends a sentence: (T,). Its text ends with ``.``, ``!``, ``?`` or ``…``, quotes and
        brackets after it aside, or with a new line."""
        return self._ends[ids]

    @cached_property
    def _spaces(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([piece[:1].isspace() for piece in self.bytes]),
            np.array([piece[-1:].isspace() and not piece.isspace() for piece in self.bytes]),
        )

    @cached_property
    def _ends(self) -> np.ndarray:
        texts = (piece.decode("utf-8", errors="replace") for piece in self.bytes)
        return np.array([text.endswith("\n") or bool(_SENTENCE_END.search(text.rstrip(" "))) for text in texts])

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: id for id, name in self.tokenizer.names.items()}

    def _lacks(self, names: str, reserve: Sequence[str]) -> ModelError:
        flags = " ".join(f"--reserve '{name}'" for name in reserve) if len(reserve) <= 3 else "--for t5"
        return ModelError("tokenize.no-special", names=names, flags=flags)
