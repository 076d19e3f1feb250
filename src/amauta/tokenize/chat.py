"""A dialogue laid out as ids, with the role and the loss flag of every token, in one pass.

    <|begin|> <|system|> content <|turn|> <|user|> content <|turn|> <|assistant|> content <|turn|> …

The same function trains, evaluates, serves and exports. Contents are encoded one by one and laid between special
tokens; ids are never made from a rendered text, so there is no second ``<|begin|>``, no token across the border of a
prompt and its answer, and no mask to be found by comparing. ``template.py`` holds the same for other tools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amauta.base.errors import DataError
from amauta.base.names import did_you_mean
from amauta.tokenize.special import FOLLOWS, ROLES
from amauta.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Rendered:
    """A dialogue's tokens; the three lists are equally long (T).

    ``roles`` names the message's role for each token, its opening and its ``<|turn|>`` included, and is ``""`` for
    ``<|begin|>``. ``loss`` is True on the tokens that the assistant must learn to write: its content and the
    ``<|turn|>`` that ends it, not the ``<|assistant|>`` that opens it.
    """

    ids: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    loss: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], role: str, *, loss: bool) -> None:
        """Put ``ids`` at the end, all with one role and one flag."""
        self.ids.extend(ids)
        self.roles.extend([role] * len(ids))
        self.loss.extend([loss] * len(ids))


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    reply: bool = False,
    training: bool = False,
    where: str = "messages",
) -> Rendered:
    """The ids, roles and loss flags of ``messages`` ([{role, content}]).

    ``reply`` opens the assistant's next message at the end, for generation. ``training`` asks for at least one
    assistant message. ``where`` (a file and a line) stands before every error.

    Raises DataError: no message, an unknown role (with the nearest name), a role that may not stand there (the system
    speaks first or not at all; user and assistant take turns; a tool answers the assistant), a content that is no
    string, tool calls outside the content, nothing to learn.
    """
    out = Rendered()
    out.add([tokenizer.begin], "", loss=False)
    before = ""
    for number, message in enumerate(messages, start=1):
        role, content = _checked(message, before, number, where)
        answer = role == "assistant"
        out.add([tokenizer.roles[role]], role, loss=False)
        out.add(tokenizer.encode(content), role, loss=answer)
        out.add([tokenizer.turn], role, loss=answer)
        before = role
    if not before:
        raise DataError("tokenize.no-messages", where=where)
    if training and not any(out.loss):
        raise DataError("tokenize.no-assistant", where=where, count=len(messages))
    if reply:
        if "assistant" not in FOLLOWS[before]:
            raise DataError("tokenize.no-reply", where=where, role=before)
        out.add([tokenizer.roles["assistant"]], "assistant", loss=False)
    return out


def _checked(message: Mapping[str, object], before: str, number: int, where: str) -> tuple[str, str]:
    """The role and the content of one message, or a DataError."""
    place = {"where": where, "number": number}
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        seen = ", ".join(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
        raise DataError("tokenize.bad-message", **place, seen=seen or "{}")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or role not in ROLES:
        raise DataError("tokenize.unknown-role", **place, role=role, hint=did_you_mean(str(role), ROLES))
    if role not in FOLLOWS[before]:
        allowed = ", ".join(FOLLOWS[before])
        if not before:
            raise DataError("tokenize.first-role", **place, role=role, allowed=allowed)
        raise DataError("tokenize.role-order", **place, role=role, before=before, allowed=allowed)
    if message.get("tool_calls"):
        raise DataError("tokenize.tool-calls", **place, role=role)
    if not isinstance(content, str):
        raise DataError("tokenize.content-no-text", **place, role=role, kind=type(content).__name__)
    return role, content
