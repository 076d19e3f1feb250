"""Marks in a text that no text has: what is a special token, and what only spells one.

Libraries look for the names of special tokens in the text that a chat template gives, so that a message which spells
``<|im_end|>`` ends its own turn. Here a second tokenizer knows the special tokens by marks made of noncharacters
(U+FDD0 … U+FDEF, which Unicode keeps for such internal use), and the names are plain text to it.
"""

import json
import re
from collections.abc import Iterable

import tokenizers

from amauta.base.errors import DataError

_END = "\ufdd1"
_DIGITS = [chr(0xFDD2 + digit) for digit in range(16)]  # U+FDD2 … U+FDE1
SPECIAL, NAME, OPEN, CLOSE, BEGIN, STOP = "\ufdd0\ufde2\ufde3\ufde4\ufde5\ufde6"  # kinds of marks
MARK = re.compile(f"([{SPECIAL}{NAME}{OPEN}{CLOSE}{BEGIN}{STOP}])([{''.join(_DIGITS)}]*){_END}")
_KEPT = re.compile("[\ufdd0-\ufdef]")


def mark(kind: str, number: int = 0) -> str:
    """The mark number ``number`` of a kind."""
    return kind + "".join(_DIGITS[int(digit, 16)] for digit in f"{number:x}") + _END


def number_of(digits: str) -> int:
    """The number in a mark, from the second group of MARK."""
    return int("".join(f"{ord(digit) - 0xFDD2:x}" for digit in digits), 16)


def check(text: str, where: str) -> None:
    """DataError where ``text`` holds one of the noncharacters."""
    if found := _KEPT.search(text):
        raise DataError("tokenize.noncharacter", where=where, character=f"U+{ord(found[0]):04X}", at=found.start())


def finder(names: Iterable[str]) -> re.Pattern[str]:
    """A regular expression that finds the names, at each place the longest, as the library does."""
    longest = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or "(?!)")


def renamed(inner: tokenizers.Tokenizer, names: dict[int, str]) -> tokenizers.Tokenizer:
    """A copy of ``inner`` in which each special token (id -> name) is called ``mark(SPECIAL, id)``.

    It gives the same ids for marks as ``inner`` for the names, and splits a name in a text like any other word: there
    is no entry and no merge left that could make it whole.
    """
    whole = json.loads(inner.to_str())
    calls = {name: mark(SPECIAL, id) for id, name in names.items()}
    for token in whole["added_tokens"]:
        token["content"] = calls.get(token["content"], token["content"])
    model = whole["model"]
    if isinstance(model["vocab"], list):  # Unigram: [piece, score]
        model["vocab"] = [[calls.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {calls.get(piece, piece): id for piece, id in model["vocab"].items()}
    if "merges" in model:
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [(a, b) for a, b in pairs if not {a, b, a + b} & calls.keys()]
    if model.get("unk_token") in calls:
        model["unk_token"] = calls[model["unk_token"]]
    whole |= {"post_processor": None, "truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(whole))
