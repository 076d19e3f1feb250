"""A dialogue by another model's chat template: ids, and for each the role and the loss flag, from one rendering.

The template gives a text. Marks go through it with the messages: round each content, and in place of each name of a
special token that a message spells. Taken out again they must leave the very text that the unmarked messages give;
then it is certain where each content stands, and which special tokens are the template's own. The text is encoded
once, whole, so that its ids are those of ``transformers.apply_chat_template``, except that a name in a message is
plain text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import tokenizers

from amauta.base.errors import DataError
from amauta.tokenize.jinja import ChatTemplate
from amauta.tokenize.marks import BEGIN, CLOSE, MARK, NAME, OPEN, SPECIAL, STOP, check, finder, mark, number_of
from amauta.tokenize.rendered import Rendered

Message = Mapping[str, Any]
Span = tuple[int, int]

# The shortest dialogues that end with a message of each role.
_SHORTEST = {"system": ("system",), "user": ("user",), "assistant": ("user", "assistant"),
             "tool": ("user", "assistant", "tool")}  # fmt: skip


@dataclass
class _Text:
    """A rendering. Special tokens of the template stand in ``text`` as marks; spans are (start, end) in it."""

    text: str = ""
    contents: dict[int, Span] = field(default_factory=dict)  # message -> its content, as far as the template kept it
    written: list[Span] = field(default_factory=list)  # {% generation %}
    special: list[Span] = field(default_factory=list)
    marked: bool = True  # whether contents could be marked
    seen: set[int] = field(default_factory=set)  # messages of which at least one mark came through


class Dialogues:
    """Lays out dialogues by ``template`` for a tokenizer whose special tokens are ``names`` (id -> name).

    ``inner`` gives the tokenizer that knows those by their marks (``marks.renamed``).
    """

    def __init__(
        self, template: ChatTemplate, inner: Callable[[], tokenizers.Tokenizer], names: Mapping[int, str]
    ) -> None:
        self._template, self._inner = template, inner
        self._names = dict(names)
        self._ids = {name: id for id, name in names.items()}
        self._find = finder(names.values())
        self._parts = re.compile(f"{MARK.pattern}|{self._find.pattern}")
        self._tails: dict[str, str | None] = {}

    def render(
        self,
        messages: Sequence[Message],
        *,
        reply: bool = False,
        training: bool = False,
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        where: str = "messages",
    ) -> Rendered:
        """As ``chat.render``. What stands before a message's content belongs to it: the begin token and a system
        message of the template's own to the first. Where the spans are not certain a role is "" and there is no loss.

        Raises DataError with the template's words where it refuses, where it leaves out a message, a tool call or the
        tools, and with ``training`` where it is not certain which tokens the assistant writes.
        """
        _check(messages, where)
        given = {"tools": tools, "variables": variables, "now": datetime.now(), "where": where}
        whole = self._lay(messages, reply=reply, **given)
        self._no_tool_left_out(messages, whole, reply, given)
        for number, message in enumerate(messages):
            if whole.marked and number not in whole.seen and str(message.get("content") or "").strip():
                raise DataError("tokenize.message-left-out", where=where, number=number + 1, role=message["role"],
                                template=self._template.where)  # fmt: skip
        bounds = self._bounds(messages, whole, reply)
        if self._template.marks_answers(tools):
            learnt = whole.written
        else:
            learnt = self._answers(messages, whole, given, strict=training)
        if training and not learnt:
            raise DataError("tokenize.no-assistant", where=where, count=len(messages))
        return self._encode(whole.text, bounds, learnt)

    def _no_tool_left_out(self, messages: Sequence[Message], whole: _Text, reply: bool, given: dict[str, Any]) -> None:
        """DataError where the text would be the same without the tools, or without a message's calls."""
        for number, message in enumerate(messages):
            if message.get("tool_calls"):
                bare = {key: value for key, value in message.items() if key != "tool_calls"}
                less = [*messages[:number], {**bare, "content": bare.get("content") or ""}, *messages[number + 1 :]]
                if self._laid(less, reply, given) == whole.text:
                    raise DataError("tokenize.calls-left-out", where=given["where"], number=number + 1,
                                    template=self._template.where)  # fmt: skip
        if given["tools"] and self._laid(messages, reply, {**given, "tools": None}) == whole.text:
            raise DataError("tokenize.tools-left-out", where=given["where"], template=self._template.where)

    def _laid(self, messages: Sequence[Message], reply: bool, given: dict[str, Any]) -> str | None:
        """The text of messages, or None where the template refuses them."""
        try:
            return self._lay(messages, reply=reply, **given).text
        except DataError:
            return None

    def ending(self) -> int | None:
        """The special token with which the template ends an assistant's message, or None."""
        tail = self._tail("assistant")
        found = MARK.search(tail) if tail else None
        return number_of(found[2]) if found else None

    def _encode(self, text: str, bounds: Sequence[tuple[int, str]], learnt: Sequence[Span]) -> Rendered:
        """``bounds``: (end, role) of each message in order, the last reaching to the end of the text."""
        out = Rendered()
        encoded = self._inner().encode(text, add_special_tokens=False)
        at = span = 0
        for id, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            while at < len(bounds) and start >= bounds[at][0]:
                at += 1
            while span < len(learnt) and start >= learnt[span][1]:
                span += 1
            loss = span < len(learnt) and max(end, start + 1) > learnt[span][0]
            role = "assistant" if loss else bounds[at][1] if at < len(bounds) else ""  # a tool call ends no content
            out.add([id], role, loss=loss)
        return out

    def _bounds(self, messages: Sequence[Message], whole: _Text, reply: bool) -> list[tuple[int, str]]:
        """Where each message ends; what follows its content belongs to it as far as its role's ending goes."""
        last = len(messages) - 1
        whole_end = len(whole.text) + 1
        bounds: list[tuple[int, str]] = []
        for number, (_, close) in sorted(whole.contents.items()):
            role = messages[number]["role"]
            tail = self._tail(role) or ""
            bounds.append((close + len(tail) if whole.text.startswith(tail, close) else close, role))
        if reply:
            return [*bounds, (whole_end, "assistant" if last in whole.contents else "")]
        return [*bounds, (whole_end, messages[last]["role"] if whole.marked else "")]

    def _answers(self, messages: Sequence[Message], whole: _Text, given: dict[str, Any], *, strict: bool) -> list[Span]:
        """What the assistant writes: each content of its, with the special tokens that end it."""
        found = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            span = self._answer(messages, number, whole, given, strict=strict)
            if span is not None:
                found.append(span)
            elif strict:
                raise DataError("tokenize.template-unstable", where=given["where"], number=number + 1,
                                template=self._template.where)  # fmt: skip
        return found

    def _answer(
        self, messages: Sequence[Message], number: int, whole: _Text, given: dict[str, Any], *, strict: bool
    ) -> Span | None:
        """The span of one answer, or None where it is not certain."""
        asked = ""
        if strict and number:  # what the model is given when it must write this is how the dialogue begins
            try:
                asked = self._lay(messages[:number], reply=True, **given).text
            except DataError:
                return None
        if not whole.text.startswith(asked):
            return None
        if number in whole.contents:
            start, close = whole.contents[number]
        elif whole.marked and not str(messages[number].get("content") or "").strip() and asked:
            start = close = len(asked)  # nothing was written
        else:
            return None
        if start < len(asked):
            return None
        tail = self._tail("assistant")
        if tail is None or messages[number].get("tool_calls") or not whole.text.startswith(tail, close):
            cut = self._lay(messages[: number + 1], reply=False, **given)
            if number not in cut.contents and number in whole.contents:
                return None
            tail = cut.text[cut.contents[number][1] if number in cut.contents else close :]
            if not whole.text.startswith(tail, close):
                return None
        ends = [found.end() for found in MARK.finditer(tail)]
        return start, close + (ends[-1] if ends else len(tail))

    def _tail(self, role: str) -> str | None:
        """What the template writes after the content of the last message, of this role; None where it refuses."""
        if role not in self._tails:
            self._tails[role] = None
            roles = _SHORTEST.get(role, ("user", role))
            messages = [{"role": one, "content": f"text {number}"} for number, one in enumerate(roles)]
            try:
                found = self._lay(messages, reply=False, tools=None, variables=None, now=None, where=role)
                if len(roles) - 1 in found.contents:
                    self._tails[role] = found.text[found.contents[len(roles) - 1][1] :]
            except DataError:
                pass
        return self._tails[role]

    def _lay(
        self, messages: Sequence[Message], *, reply: bool, tools: Any, variables: Any, now: Any, where: str
    ) -> _Text:
        """Render with marks, or, where the template works on the contents themselves, with marked names only."""
        wanted = self._template.render(messages, reply=reply, tools=tools, variables=variables, now=now, where=where)
        known = {"tools": self._hide(tools), "variables": self._hide(variables), "now": now, "where": where}
        hidden = [self._hide(message) for message in messages]
        framings = [[_framed(one, i, trim=trim) for i, one in enumerate(hidden)] for trim in (False, True)]
        for given in (*framings, hidden):
            try:
                text = self._template.render(given, reply=reply, marked=True, **known)
            except DataError:
                continue
            if self._restored(text) == wanted:
                return self._read(text, given is not hidden)
        raise DataError("tokenize.template-reads-names", where=where, template=self._template.where)

    def _hide(self, value: Any) -> Any:
        """``value`` with a mark in place of each special token's name, in every string of it."""
        if isinstance(value, str):
            return self._find.sub(lambda found: mark(NAME, self._ids[found[0]]), value)
        if isinstance(value, Mapping):
            return {key: self._hide(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._hide(one) for one in value]
        return value

    def _restored(self, text: str) -> str:
        return MARK.sub(lambda found: self._names[number_of(found[2])] if found[1] == NAME else "", text)

    def _read(self, marked: str, contents: bool) -> _Text:
        """The text without marks but those of the template's special tokens, and where everything stands in it."""
        out = _Text(marked=contents)
        pieces: list[str] = []
        length = at = 0
        opened: dict[int, int] = {}
        closed: dict[int, list[int]] = {}
        began = 0
        for found in self._parts.finditer(marked):
            pieces.append(marked[at : found.start()])
            length += len(pieces[-1])
            at = found.end()
            kind, number = found[1], number_of(found[2]) if found[1] else 0
            piece = ""
            if kind is None:
                piece = mark(SPECIAL, self._ids[found[0]])
                out.special.append((length, length + len(piece)))
            elif kind == NAME:
                piece = self._names[number]
            elif kind == OPEN:
                opened[number] = -1 if number in opened else length  # twice: not certain
            elif kind == CLOSE:
                closed.setdefault(number, []).append(length)
            elif kind == BEGIN:
                began = length
            elif kind == STOP:
                out.written.append((began, length))
            pieces.append(piece)
            length += len(piece)
        out.text = "".join([*pieces, marked[at:]])
        out.seen = opened.keys() | closed.keys()
        before = 0
        for number, start in sorted(opened.items()):
            ends = closed.get(number, [])
            if before <= start and len(ends) == 1 and ends[0] >= start:
                out.contents[number] = (start, ends[0])
                before = ends[0]
        return out


def _framed(message: Message, number: int, *, trim: bool) -> Message:
    """The message with marks round its content; ``trim``: inside of the white space that templates may cut off."""
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        return message
    core = content.strip() if trim else content
    before, _, after = content.partition(core)
    return {**message, "content": before + mark(OPEN, number) + core + mark(CLOSE, number) + after}


def _check(messages: Sequence[Message], where: str) -> None:
    """DataError for what no template takes."""
    if not messages:
        raise DataError("tokenize.no-messages", where=where)
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            seen = ", ".join(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
            raise DataError("tokenize.bad-message", where=where, number=number, seen=seen or "{}")
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            raise DataError("tokenize.bad-message", where=where, number=number, seen=", ".join(map(str, message)))
        if content is not None and not isinstance(content, str):
            raise DataError("tokenize.content-no-text", where=where, number=number, role=message["role"],
                            kind=type(content).__name__)  # fmt: skip
        for value in _strings(message):
            check(value, f"{where}, {number}")


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [found for one in value.values() for found in _strings(one)]
    return [found for one in value for found in _strings(one)] if isinstance(value, list | tuple) else []
