"""Constrained decoding: at each step only tokens that keep the answer a beginning of something in its language.

The automaton is llguidance's (Earley's parser over lexemes that are derivatives of regular expressions, walked along
the trie of the vocabulary). It reads bytes, so one way serves every tokenizer: byte-level BPE, SentencePiece with byte
fallback, WordPiece. A token that ends within a character is allowed where the character can be. What comes out is the
model's distribution, restricted to the allowed tokens and renormalised at each step: every spelling of an allowed text
may be drawn, not only the tokenizer's own. (That is not the model's distribution over whole answers that obey.)

The text is the joined bytes of the tokens: where a tokenizer's words begin with a space, so does the first one's text,
and a form that wants none allows only tokens without it.

JSON: an object's keys come in the order of ``properties``, then of ``required``; additional keys come last, in any
order, and may repeat. White space is free between tokens, none before or after the whole; ``"x-guidance":
{"whitespace_flexible": false}`` at the schema's top forbids it, which small models need that like to write it for ever.
What the library cannot enforce it refuses (``not``, ``uniqueItems``, ``if``); a key that JSON schema does not know is
ignored, as the standard says. Characters stand for themselves, without ``\\u`` escapes but for control characters.
Regular expressions are those of Rust's regex crate, without look-around and backward references, and match the whole
answer; ``\\d`` is 0-9.
"""

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ConfigError, ModelError
from amauta.decode.constrain.grammars import TAIL, grammar_of
from amauta.decode.constrain.settings import Constraining, Kind
from amauta.tokenize.either import AnyTokenizer, piece_bytes

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

SPECIAL = b"\xff"  # before a special token's name: the byte is in no UTF-8 text, and a grammar may say <|name|>
FORBIDDEN = ("doesn't satisfy the grammar", "parser stopped")  # the library's words for a token out of place
SHOWN = 60  # most characters of an answer that an error shows


class Constraint:
    """What one answer may still become: one a request, changed by every token that it takes."""

    def __init__(self, matcher: "LLMatcher", tokenizer: AnyTokenizer, size: int, stops: np.ndarray) -> None:
        self._matcher, self._tokenizer, self._size, self._stops = matcher, tokenizer, size, stops
        self._ids: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether the text so far, or the one that has ended, is a whole answer."""
        return self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether the text is whole and nothing can follow but its end: the request may stop here."""
        return self.complete and self._matcher.is_stopped()

    def mask(self) -> Tensor:
        """(V,) bool on the CPU: the tokens that may come next; stop ids only where the text may end.

        All False only in a ``finished`` one of a model without stop ids. ModelError when no token can follow and the
        text is not whole: the vocabulary cannot spell what must come, or the grammar grew beyond the library's limits.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)  # one a token, and one for the end
        if self._matcher.is_error():
            raise self._fault()
        allowed = np.unpackbits(bits, count=self._size, bitorder="little").view(bool)  # (V,)
        if self.complete:
            allowed[self._stops] = True
        return torch.from_numpy(allowed)

    def take(self, id: int) -> None:
        """One more token was chosen, by the mask; ValueError for one that the mask forbids."""
        if id in self._stops and self.complete:
            return  # the end; a grammar may also name a stop token itself
        if not self._matcher.consume_token(id) and any(words in self._matcher.get_error() for words in FORBIDDEN):
            raise ValueError(f"token {id} is not allowed here")
        self._ids.append(id)  # where the parser gave up the next mask tells

    def copy(self) -> "Constraint":
        """One that goes its own way from here."""
        twin = Constraint(self._matcher.deep_copy(), self._tokenizer, self._size, self._stops)
        twin._ids = list(self._ids)
        return twin

    def forced(self) -> list[int]:
        """The tokenizer's own spelling of the bytes that must come next, as far as it is certain; often empty.

        A draft for a model to check, not a choice: other tokens may spell the same text, the last of them longer.
        """
        must = self._matcher.deep_copy().compute_ff_bytes()
        found: list[int] = []
        for id in self._tokenizer.encode(must.decode("utf-8", errors="ignore")):
            piece = self._tokenizer.token_bytes(id)
            if not piece or not must.startswith(piece):
                break
            found.append(id)
            must = must[len(piece) :]
        return found

    def _fault(self) -> ModelError:
        text = b"".join(piece_bytes(self._tokenizer, id) for id in self._ids).decode("utf-8", errors="replace")
        shown = text if len(text) <= SHOWN else "…" + text[-SHOWN:]
        reason = _first_line(self._matcher.get_error())
        if reason.startswith("NoExtension"):
            return ModelError("constrain.stuck", text=shown, tokens=len(self._ids))
        return ModelError("constrain.failed", text=shown, tokens=len(self._ids), reason=reason)


class Constrainer:
    """Makes the constraints of one model's requests. What the library needs of the vocabulary is made once, when a
    request first asks: .25 s for 49,152 tokens.

    ``vocabulary`` is V, the width of the logits: ids beyond the tokenizer's (a padded vocabulary) are never allowed,
    nor are special tokens, but for those that a grammar names. ``stops``: the ids that end an answer.
    """

    def __init__(self, tokenizer: AnyTokenizer, vocabulary: int, stops: Collection[int]) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.stops = np.array(sorted(id for id in stops if id < vocabulary), dtype=np.int64)

    def start(self, settings: Sequence[Constraining]) -> list[Constraint | None]:
        """A fresh constraint for each request, None for a free one; equal grammars are read once.

        ConfigError: a form that cannot be read, that the library cannot enforce, or that no text satisfies; ModelError:
        one that no token of this vocabulary can begin.
        """
        known: dict[str, Constraint] = {}
        made: list[Constraint | None] = []
        for one in settings:
            grammar, kind = grammar_of(one), one.kind
            if grammar is None or kind is None:
                made.append(None)
                continue
            if grammar not in known:
                known[grammar] = self._first(grammar, kind)
            made.append(known[grammar].copy())
        return made

    def _first(self, grammar: str, kind: Kind) -> Constraint:
        matcher = _matcher(self._vocabulary, grammar)
        if matcher.is_error():
            raise _refusal(matcher.get_error(), kind)
        first = Constraint(matcher, self.tokenizer, self.vocabulary, self.stops)
        try:
            first.copy().mask()
        except ModelError as fault:
            if fault.key != "constrain.stuck":
                raise
            from llguidance import LLTokenizer

            anything = _matcher(LLTokenizer("byte"), grammar)  # could a vocabulary of single bytes begin it?
            anything.compute_bitmask()
            if anything.is_error():
                raise ConfigError("constrain.empty", kind=kind) from None
            raise
        return first

    @cached_property
    def _vocabulary(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        return LLTokenizer(_Vocabulary(self.tokenizer, self.vocabulary, set(self.stops.tolist())))  # type: ignore[arg-type]


class _Vocabulary:
    """The bytes of all tokens as llguidance asks for them. Without an ``eos_token_id`` it adds an end of its own at
    index V, so that no token of the model is one: which ids end an answer is for ``Constraint`` to say."""

    is_tokenizer_wrapper = True
    eos_token_id = bos_token_id = None
    special_token_ids = ()

    def __init__(self, tokenizer: AnyTokenizer, size: int, stops: Collection[int]) -> None:
        self.tokens = [b"" if id in stops else piece_bytes(tokenizer, id) for id in range(size)]
        for id, name in tokenizer.names.items():
            if id < size:
                self.tokens[id] = SPECIAL + name.encode()

    def __call__(self, text: bytes) -> list[int]:
        raise AssertionError("only a grammar that forces one spelling asks for the tokenizer's")


def constrained(logits: Tensor, constraints: Sequence[Constraint | None]) -> tuple[Tensor, dict[int, ModelError]]:
    """(B, V) logits with -inf where a row's constraint forbids the token, and the rows that cannot go on, each with
    its error. Rows without a constraint, and those that cannot go on, stay as they are.

    Applied to the model's logits, before any filter.
    """
    faults: dict[int, ModelError] = {}
    masks: dict[int, Tensor] = {}
    for row, one in enumerate(constraints):
        try:
            if one is not None:
                masks[row] = one.mask()
        except ModelError as fault:
            faults[row] = fault
    if masks:
        free = torch.ones(logits.shape[-1], dtype=torch.bool)
        allowed = torch.stack([masks.get(row, free) for row in range(len(constraints))])  # (B, V)
        logits = torch.where(allowed.to(logits.device), logits, -torch.inf)
    return logits, faults


def _matcher(vocabulary: "LLTokenizer", grammar: str) -> "LLMatcher":
    from llguidance import LLMatcher, LLParserLimits

    return LLMatcher(vocabulary, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))


def _refusal(error: str, kind: Kind) -> ConfigError:
    """The library's complaint about a grammar, in ours; only a user's own grammar keeps the place in it."""
    if kind == "grammar":
        return ConfigError("constrain.bad-grammar", kind=kind, reason=_own_lines(error))
    reason = _first_line(error)
    unsatisfiable = re.search(r"Unsatisfiable schema: (.*)", reason)
    unsupported = re.search(r"Unimplemented keys: \[(.*)\]", reason)
    if unsatisfiable:
        return ConfigError("constrain.unsatisfiable", kind=kind, reason=unsatisfiable[1])
    if unsupported:
        return ConfigError("constrain.unsupported", names=unsupported[1].replace('"', ""))
    return ConfigError("constrain.bad-grammar", kind=kind, reason=reason)


def _own_lines(error: str) -> str:
    """Without the line that was added to the grammar."""
    return "\n".join(line for line in error.strip().splitlines() if not line.endswith(TAIL.strip()))


def _first_line(error: str) -> str:
    r"""What is wrong, without the place in our rendering of it (``at 1(8): failed to compile …: reason\n   1 | …``)
    the marks below what is wrong, and the parser's state."""
    said = error.split("\n   1 | ")[0].split("\n<")[0].strip()
    said = re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", said)
    return re.sub(r"\s+", " ", re.sub(r"\n *\^+", "", said))
