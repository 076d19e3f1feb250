"""What a record means: every shape of field names, and the one way in which each is read.

| shape | fields | read by | as |
|---|---|---|---|
| preference | ``chosen rejected`` and ``prompt``, or ``instruction`` (``input``), or neither | preference_of | see there |
| ranking | ``prompt completions`` and ``ranks`` or ``scores``, or neither | rankings.ranking_of | see there |
| messages | ``messages`` [{role, content}] | messages_of | as it stands |
| sharegpt | ``conversations`` [{from, value}] | messages_of | human user, gpt assistant, system, tool |
| unpaired | ``prompt completion label`` (true or false) | unpaired_of | an answer that is wanted or not |
| completion | ``prompt completion``: two texts, or two lists of messages | messages_of | user, assistant |
| alpaca | ``instruction`` (``input``) ``output`` | messages_of | user: instruction, blank line, input; assistant |
| question | ``question`` (``context``) ``answers`` or ``answer`` | messages_of, question_of | user: context, blank line, question; assistant: the first answer |
| labelled | ``text`` (``text_pair``) ``label`` | labelled_of, text_of | text_of gives ``text`` alone |
| text | ``text`` | text_of | as it stands |

Where a row fits several shapes, each reader takes the topmost that it reads: a row with ``messages`` and ``prompt`` is
read from ``messages``, and ``output`` beside ``chosen`` and ``rejected`` counts for messages_of alone. A field that is
null counts as missing (Parquet fills gaps so). ``answers`` is a text, a list of texts, or SQuAD's {"text": [texts]}.
A row with ``choices`` is no question: without them it could not be answered. Fields not named here pass untouched.

``dialogue_of`` reads what messages_of reads, and with it ``tools`` (a list of JSON schemas, or that list as a text) and
the ``tool_calls`` of the assistant's messages, whose ``content`` may then be null.
"""  # noqa: E501

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from amauta.base.errors import DataError
from amauta.base.messages import say
from amauta.data.read import Row, excerpt

Message = dict[str, Any]  # {"role": one of ROLES, "content": text}, and tool_calls where they were asked for
ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant"} | {role: role for role in ROLES}
_HH = {"Human": "user", "Assistant": "assistant"}
_HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?")


@dataclass(frozen=True)
class Dialogue:
    """Messages to learn from: those of the assistant from number ``first`` (from 0) on; ``tools`` it may call."""

    messages: list[Message]
    first: int = 0
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, the better one first."""

    prompt: list[Message]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Unpaired:
    """One answer, and whether it is wanted."""

    prompt: list[Message]
    completion: str
    label: bool


@dataclass(frozen=True)
class Labelled:
    """A text or a pair of texts with its label (a class's name or number, or a score)."""

    text: str
    pair: str | None
    label: str | int | float | bool


@dataclass(frozen=True)
class Question:
    """A question, the passage that it is about ("" for none), and all accepted answers (none: unanswerable)."""

    question: str
    context: str
    answers: list[str]


def shape_of(row: Row) -> str | None:
    """The name of the topmost shape of the table that the row's fields fit, or None."""
    return next((shape for shape, fits in SHAPES.items() if fits(_fields(row))), None)


def text_of(row: Row) -> str:
    """The running text of a row (shapes text, labelled).

    Raises DataError: no ``text``, or one that is no text.
    """
    if "text" not in _fields(row):
        raise _unknown(row, "text_of")
    return _string(row, "text")


def messages_of(row: Row) -> list[Message]:
    """The dialogue of a row, as fresh {"role", "content"} messages (shapes messages to question, but not unpaired).

    Raises DataError: no dialogue in the row, a role that is not known, a content that is no text, tool calls, no
    assistant turn with a text in it.
    """
    return _dialogue(row, "messages_of", calls=False).messages


def dialogue_of(row: Row) -> Dialogue:
    """The dialogue of a row as ``messages_of`` reads it, with its tools and tool calls. What stands in the ``prompt``
    of a completion is not there to be learnt, the assistant's turns in it included.

    Raises DataError as ``messages_of``, and where ``tools`` are no list of objects.
    """
    found = _dialogue(row, "messages_of", calls=True)
    return replace(found, tools=_tools(row))


def _dialogue(row: Row, reading: str, *, calls: bool) -> Dialogue:
    value = _fields(row)
    first = 0
    shape = next((name for name in _DIALOGUES if SHAPES[name](value)), None)
    if shape == "messages":
        dialogue = _messages(row, "messages", calls=calls)
    elif shape == "sharegpt":
        dialogue = _messages(row, "conversations", calls=calls)
    elif shape == "completion":
        dialogue = _turns(row, "prompt", "user", calls=calls)
        first = len(dialogue)
        dialogue = dialogue + _turns(row, "completion", "assistant", calls=calls)
    elif shape == "alpaca":
        dialogue = [_instruction(row), _message("assistant", _string(row, "output"))]
    elif shape == "question":
        asked = question_of(row)
        content = f"{asked.context}\n\n{asked.question}" if asked.context else asked.question
        dialogue = [_message("user", content), *(_message("assistant", answer) for answer in asked.answers[:1])]
    else:
        raise _unknown(row, reading)
    answers = (one for one in dialogue[first:] if one["role"] == "assistant")
    if not any(one["content"].strip() or one.get("tool_calls") for one in answers):
        raise _fault(row, "data.no-assistant")
    return Dialogue(dialogue, first)


def prompt_of(row: Row) -> list[Message]:
    """What is to be answered: the turns before a row's answer, whether it holds one or not (every shape but labelled
    and text, and ``prompt`` or ``instruction`` alone).

    Raises DataError: nothing of the kind in the row, or no turn before the answer.
    """
    value = _fields(row)
    if "prompt" in value:
        turns = _turns(row, "prompt", "user")
    elif "instruction" in value:
        turns = [_instruction(row)]
    elif SHAPES["preference"](value):
        turns = preference_of(row).prompt
    elif "messages" in value or "conversations" in value:
        turns = _messages(row, "messages" if "messages" in value else "conversations")
    elif SHAPES["question"](value):
        turns = messages_of(row)
    else:
        raise _unknown(row, "prompt_of")
    turns = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
    if not turns:
        raise _fault(row, "data.no-prompt")
    return turns


def preference_of(row: Row) -> Preference:
    """The two answers of a row and what they answer.

    - ``prompt`` (a text or messages) or ``instruction``/``input`` given: ``chosen`` and ``rejected`` are texts, or an
      assistant message, or whole dialogues that begin with the prompt.
    - Neither: both are whole dialogues, as messages or as a text in the form ``\\n\\nHuman: …\\n\\nAssistant: …``; the
      turns that they share are the prompt, and only the last one, the assistant's, differs (Bai et al. 2022,
      arXiv 2204.05862). A blank line before ``Human:`` or ``Assistant:`` always begins a turn there.

    Raises DataError: no pair in the row, no prompt, dialogues that part before their last turn, and two answers that
    are equal (white space at their ends aside), which teach nothing.
    """
    value = _fields(row)
    if not SHAPES["preference"](value):
        raise _unknown(row, "preference_of")
    prompt: list[Message] | None = None
    if "prompt" in value:
        prompt = _turns(row, "prompt", "user")
    elif "instruction" in value:
        prompt = [_instruction(row)]
    sides = [_side(row, field, whole=prompt is None) for field in ("chosen", "rejected")]
    if prompt is None:
        shared = 0
        while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
            shared += 1
        prompt = sides[0][:shared]
    answers: list[str] = []
    for side in sides:
        rest = side[len(prompt) :] if side[: len(prompt)] == prompt else side
        if len(rest) != 1 or rest[0]["role"] != "assistant":
            raise _fault(row, "data.dialogues-part", turn=len(side) - len(rest) + 1)
        answers.append(rest[0]["content"])
    if not prompt:
        raise _fault(row, "data.no-prompt")
    if answers[0].strip() == answers[1].strip():
        raise _fault(row, "data.equal-pair", answer=excerpt(answers[0]))
    return Preference(prompt, *answers)


def unpaired_of(row: Row) -> Unpaired:
    """A prompt, one answer, and whether it is wanted. Raises DataError for missing fields and other types."""
    if not SHAPES["unpaired"](_fields(row)):
        raise _unknown(row, "unpaired_of")
    answer = _turns(row, "completion", "assistant")
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise _bad_field(row, "completion", say("data.want-answer"))
    return Unpaired(_turns(row, "prompt", "user"), answer[0]["content"], row.value["label"])


def labelled_of(row: Row) -> Labelled:
    """A text, or two, with a label. Raises DataError for missing fields and fields of another type."""
    if not SHAPES["labelled"](_fields(row)):
        raise _unknown(row, "labelled_of")
    if not isinstance(row.value["label"], str | int | float):
        raise _bad_field(row, "label", say("data.want-label"))
    pair = _string(row, "text_pair") if "text_pair" in _fields(row) else None
    return Labelled(_string(row, "text"), pair, row.value["label"])


def question_of(row: Row) -> Question:
    """A question with its context and all its answers. Raises DataError for missing fields and other types."""
    value = _fields(row)
    if not SHAPES["question"](value):
        raise _unknown(row, "question_of")
    field = "answers" if "answers" in value else "answer"
    answers = value[field]
    if isinstance(answers, dict):
        answers = answers.get("text")
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise _bad_field(row, field, say("data.want-answers"))
    return Question(_string(row, "question"), _string(row, "context") if "context" in value else "", list(answers))


def _fields(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.value.items() if value is not None}


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _string(row: Row, field: str) -> str:
    if not isinstance(row.value[field], str):
        raise _bad_field(row, field, say("data.want-text"))
    return row.value[field]


def _instruction(row: Row) -> Message:
    """Alpaca's user turn: the instruction, and after a blank line its input, where there is one."""
    added = _string(row, "input") if "input" in _fields(row) else ""
    return _message("user", _string(row, "instruction") + (f"\n\n{added}" if added else ""))


def _tools(row: Row) -> list[Any] | None:
    """The ``tools`` of a row; none and an empty list are the same."""
    given = _fields(row).get("tools")
    tools = given
    if isinstance(given, str):
        try:
            tools = json.loads(given) if given.strip() else None
        except ValueError:
            raise _bad_field(row, "tools", say("data.want-tools")) from None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(one, dict) for one in tools)):
        raise _bad_field(row, "tools", say("data.want-tools"))
    return tools or None


def _turns(row: Row, field: str, role: str, *, calls: bool = False) -> list[Message]:
    """A field that holds a text (a turn of ``role``) or messages."""
    if isinstance(row.value[field], str):
        return [_message(role, row.value[field])]
    return _messages(row, field, calls=calls)


def _messages(row: Row, field: str, *, calls: bool = False) -> list[Message]:
    """The messages of a field, checked: {role, content}, or ShareGPT's {from, value}; with ``calls`` tool_calls too."""
    items = row.value[field]
    if not isinstance(items, list):
        raise _bad_field(row, field, say("data.want-messages"))
    return [_checked(row, field, number, item, calls=calls) for number, item in enumerate(items, start=1)]


def _checked(row: Row, field: str, number: int, item: Any, *, calls: bool = False) -> Message:
    place = f"{field}[{number}]"
    if not isinstance(item, dict):
        raise _bad_field(row, place, say("data.want-message"), item)
    foreign = field == "conversations" and "from" in item
    role, content = (item.get("from"), item.get("value")) if foreign else (item.get("role"), item.get("content"))
    known = _SHAREGPT if foreign else {name: name for name in ROLES}
    if not isinstance(role, str) or role not in known:
        raise _fault(row, "data.bad-role", place=place, role=excerpt(role), roles=", ".join(known))
    called = item.get("tool_calls")
    if called and not calls:  # their text would be lost without a word
        raise _bad_field(row, f"{place}.tool_calls", say("data.want-no-calls"), called)
    if called and (known[role] != "assistant" or not isinstance(called, list)):
        raise _bad_field(row, f"{place}.tool_calls", say("data.want-calls"), called)
    if called:
        return {**_message("assistant", content if isinstance(content, str) else ""), "tool_calls": called}
    if not isinstance(content, str):
        raise _bad_field(row, f"{place}.{'value' if foreign else 'content'}", say("data.want-text"), content)
    return _message(known[role], content)


def _side(row: Row, field: str, *, whole: bool) -> list[Message]:
    """``chosen`` or ``rejected`` as messages; ``whole``: a text is a whole dialogue, not an answer."""
    value = row.value[field]
    if isinstance(value, dict):
        return [_checked(row, field, 1, value)]
    if not isinstance(value, str):
        return _messages(row, field)
    if not whole:
        return [_message("assistant", value)]
    before, *parts = _HH_TURN.split(value)
    if before or not parts:
        raise _bad_field(row, field, say("data.want-dialogue"))
    return [_message(_HH[name], content) for name, content in zip(parts[::2], parts[1::2], strict=True)]


def _fault(row: Row, key: str, **fields: object) -> DataError:
    return DataError(key, file=row.file, line=row.line, **fields)


def _bad_field(row: Row, field: str, allowed: str, value: object = ...) -> DataError:
    shown = row.value.get(field) if value is ... else value
    return _fault(row, "data.bad-field", field=field, value=excerpt(shown), allowed=allowed)


def _unknown(row: Row, reading: str) -> DataError:
    return _fault(row, "data.unknown-shape", seen=", ".join(_fields(row)) or "–", allowed=READINGS[reading])


SHAPES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "preference": lambda value: "chosen" in value and "rejected" in value,
    "messages": lambda value: "messages" in value,
    "sharegpt": lambda value: "conversations" in value,
    "unpaired": lambda value: "prompt" in value and "completion" in value and isinstance(value.get("label"), bool),
    "completion": lambda value: "prompt" in value and "completion" in value and "label" not in value,
    "alpaca": lambda value: "instruction" in value and "output" in value,
    "question": lambda value: (
        "question" in value and ("answers" in value or "answer" in value) and "choices" not in value
    ),
    "labelled": lambda value: "text" in value and "label" in value,
    "text": lambda value: "text" in value,
}  # the order of the table: topmost first
_DIALOGUES = ("messages", "sharegpt", "completion", "alpaca", "question")
READINGS = {
    "text_of": "text",
    "messages_of": "messages | conversations | prompt, completion | instruction, (input), output | "
    "question, (context), answer",
    "preference_of": "prompt, chosen, rejected | chosen, rejected | instruction, (input), chosen, rejected",
    "unpaired_of": "prompt, completion, label",
    "prompt_of": "prompt | instruction, (input) | messages | conversations | chosen, rejected | "
    "question, (context), answer",
    "labelled_of": "text, (text_pair), label",
    "question_of": "question, (context), answers",
}
