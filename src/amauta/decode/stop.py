"""Tokens into text while they come: characters that are whole, and stop texts that are not shown."""

import codecs
from collections.abc import Callable, Iterable, Sequence

from amauta.base.errors import ModelError


def cut(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """``text`` up to the stop text that is complete first, and that stop text (None when there is none).

    First means the smallest end, as a reader of single characters sees it; of several with one end, the longest.
    """
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return text, None
    _, start, stop = min(found)
    return text[:start], stop


class TextStream:
    """The text of a growing list of tokens, released as soon as it is certain.

    Bytes of an unfinished UTF-8 character are held back, and so is text that may be the beginning of a stop text. What
    ``push`` and ``close`` return, joined, is ``cut`` of the whole decoded text, however the tokens divide it. Bytes
    that can never become a character are shown as U+FFFD.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stops: Iterable[str] = ()):
        self._bytes = token_bytes
        self._stops = tuple(stops)
        if "" in self._stops:
            raise ModelError("decode.empty-stop")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.text = ""  # all that was released
        self.stopped: str | None = None  # the stop text that was met

    def push(self, token: int) -> str:
        """The text that became certain with one more token; "" when a stop text was met before."""
        return "" if self.stopped else self._take(self._decoder.decode(self._bytes(token)))

    def close(self) -> str:
        """No token follows: what was held back."""
        if self.stopped:
            return ""
        return self._take(self._decoder.decode(b"", final=True)) + self._release(len(self._held))

    def _take(self, new: str) -> str:
        self._held += new
        kept, self.stopped = cut(self._held, self._stops)
        if self.stopped:
            self._held = kept
            return self._release(len(kept))
        return self._release(len(self._held) - self._unfinished())

    def _unfinished(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        self.text += released
        return released
