"""A dialogue laid out as ids, with the role and the loss flag of every token, in one pass.

    <|begin|> <|system|> content <|turn|> <|user|> content <|turn|> <|assistant|> content <|turn|> …

The same function trains, evaluates, serves and exports. Contents are encoded one by one and laid between special
tokens; ids are never made from a rendered text, so there is no second ``<|begin|>``, no token across the border of a
prompt and its answer, and no mask to be found by comparing. ``template.py`` holds the same for other tools.

Another model's tokenizer lays its dialogues out by its own template: ``dialogue.py``.
"""

from collections.abc import Mapping, Sequence

from amauta.base.errors import DataError
from amauta.base.names import did_you_mean
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.rendered import Rendered
from amauta.tokenize.special import FOLLOWS, ROLES
from amauta.tokenize.tokenizer import Tokenizer


def render(
    tokenizer: Tokenizer | ForeignTokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    reply: bool = False,
    training: bool = False,
    tools: Sequence[Mapping[str, object]] | None = None,
    variables: Mapping[str, object] | None = None,
    where: str = "messages",
) -> Rendered:
    """The ids, roles and loss flags of ``messages`` ([{role, content}]).

    ``reply`` opens the assistant's next message at the end, for generation. ``training`` asks for at least one
    assistant message. ``tools`` (JSON schemas) and further ``variables`` are for another model's template; ours has
    no place for them. ``where`` (a file and a line) stands before every error.

    Raises DataError: no message, an unknown role (with the nearest name), a role that may not stand there (the system
    speaks first or not at all; user and assistant take turns; a tool answers the assistant), a content that is no
    string, tool calls outside the content, nothing to learn, tools where there is no place for them. ModelError for
    another model's tokenizer without a template.
    """
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.dialogues.render(
            messages, reply=reply, training=training, tools=tools, variables=variables, where=where
        )
    if tools or variables:
        raise DataError(
            "tokenize.no-tools", where=where, names=", ".join([*(["tools"] if tools else []), *(variables or {})])
        )
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


def render_answers(
    tokenizer: Tokenizer | ForeignTokenizer,
    prompt: Sequence[Mapping[str, object]],
    answers: Sequence[str],
    *,
    where: str = "messages",
) -> tuple[Rendered, list[Rendered]]:
    """A prompt that waits for its answer, and the dialogue that each of ``answers`` makes of it, with a loss on that
    answer only.

    All begin with the prompt's ids. Raises DataError as ``render``, and where another model's template writes the
    prompt otherwise once it is answered, or lets no one tell which tokens the answer is.
    """
    before = render(tokenizer, prompt, reply=True, where=where)
    begin = len(before.ids)
    made: list[Rendered] = []
    for answer in answers:
        whole = render(tokenizer, [*prompt, {"role": "assistant", "content": answer}], where=where)
        loss = [False] * begin + whole.loss[begin:]
        if whole.ids[:begin] != before.ids or not any(loss):
            raise DataError("tokenize.answer-unstable", where=where)
        made.append(Rendered(whole.ids, whole.roles, loss))
    return before, made


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
