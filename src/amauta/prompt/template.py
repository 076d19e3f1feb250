"""A prompt's layout: instruction, demonstrations, the question, and what stands before an answer.

    instruction
    format
                                   (a blank line: ``between``)
    Q: question 1
    A: answer 1
                                   (a blank line)
    Q: question
    A:

The prompt ends where the answer starts, without a trailing space: a byte-level tokenizer joins the space to the word
after it, so it belongs to the answer. For a chat model the same parts are turns of a dialogue: a question the user's,
an answer the assistant's, the instruction before the first question (some chat templates know no system message).
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.base.names import one_of
from amauta.config import build, read_toml
from amauta.tokenize.chat import render

Message = dict[str, str]


@dataclass(frozen=True)
class Template:
    """How a question is laid out. ``{names}`` stand for ``instruction``, ``question``, ``answer`` and the example's
    facts; a brace that is meant is doubled."""

    name: Annotated[str, Doc("told in every record")]
    instruction: Annotated[str, Doc("what is to be done; stands first, once")] = "{instruction}"
    format: Annotated[str, Doc("what an answer must look like; stands after the instruction")] = ""
    input: Annotated[str, Doc("a question")] = "{question}"
    answer: Annotated[str, Doc("an answer, as demonstrations show it")] = "{answer}"
    opening: Annotated[str, Doc("before a question, in plain text only: a chat marks its turns itself")] = ""
    separator: Annotated[str, Doc("between question and answer, in plain text only")] = "\n"
    between: Annotated[str, Doc("between demonstrations, in plain text only; it also ends an answer")] = "\n\n"

    @property
    def lead(self) -> str:
        """The spaces that the answer begins with instead of the prompt ending with them."""
        return self.separator[len(self.separator.rstrip(" \t")) :]


QUESTION = Template("question", opening="Q: ", separator="\nA: ")
LINES = Template("lines")  # a text, and its answer on the next line


def read_template(path: Path) -> Template:
    """A template from a TOML file; ConfigError for an unknown setting, with the nearest name."""
    return build(Template, {"name": path.stem}, read_toml(path), where=str(path))


def fill(text: str, values: Mapping[str, Any], where: str) -> str:
    """``text`` with its ``{names}`` filled. ConfigError: a name that is not there, or a format that cannot be read."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigError("prompt.bad-format", where=where, text=text, reason=error) from None
    for name in names:
        if name not in values:
            raise ConfigError("prompt.unknown-field", where=where, name=name, hint=one_of(name, sorted(values)))
    return string.Formatter().vformat(text, (), values)


@dataclass(frozen=True)
class Shot:
    """A question and its answer, laid out: a demonstration; or the question that is asked, whose answer begins with
    what the model is given of it (mostly nothing)."""

    question: str
    answer: str = ""


@dataclass(frozen=True)
class Prompt:
    """What is asked, laid out but not yet joined, so that demonstrations can be dropped from the front."""

    template: Template
    head: str  # instruction and format
    shown: tuple[Shot, ...]
    asked: Shot

    def text(self) -> str:
        """As plain text."""
        t = self.template
        parts = [self.head] if self.head else []
        parts += [_shown(t, shot) for shot in self.shown]
        return t.between.join([*parts, f"{t.opening}{self.asked.question}{self._begun()}"])

    def messages(self) -> list[Message]:
        """As turns of a dialogue, the last the user's; ``asked.answer`` is not in them."""
        turns: list[Message] = []
        for shot in (*self.shown, self.asked):
            before = f"{self.head}\n\n" if self.head and not turns else ""
            turns.append({"role": "user", "content": before + shot.question})
            turns.append({"role": "assistant", "content": shot.answer})
        return turns[:-1]

    def ids(self, model: Any, *, chat: bool) -> list[int]:
        """As the model reads it."""
        if chat:
            # what the answer begins with is encoded apart, after the tokens that open the assistant's turn
            begun = model.tokenizer.encode(self.asked.answer) if self.asked.answer else []
            return [*render(model.tokenizer, self.messages(), reply=True).ids, *begun]
        return read_ids(model, self.text())

    def _begun(self) -> str:
        """What follows the question: the separator, and the answer as far as it is given."""
        separator = self.template.separator
        return separator + self.asked.answer if self.asked.answer else separator.rstrip(" \t")


def _shown(template: Template, shot: Shot) -> str:
    """A demonstration; one without a question or without an answer is what there is of it."""
    if not shot.question:
        return shot.answer
    question = template.opening + shot.question
    return question + template.separator + shot.answer if shot.answer else question


def read_ids(model: Any, text: str) -> list[int]:
    """A text as the model reads it when it is to be continued; the input of an encoder-decoder."""
    tokenizer = model.tokenizer
    return tokenizer.around(text)[0] if model.kind == "encoder-decoder" else tokenizer.prompt(text)


def wants_chat(model: Any, layout: str) -> bool:
    """Whether prompts are dialogues: ``auto`` where the tokenizer lays dialogues out."""
    return getattr(model.tokenizer, "has_chat", False) if layout == "auto" else layout == "chat"


def compose(
    template: Template,
    example: Any,
    shown: Sequence[Any] = (),
    *,
    instruction: str = "",
    answer: str | Callable[[Any], str] | None = None,
    given: str = "",
) -> Prompt:
    """The prompt of an example after demonstrations. ``answer``: how those are answered, instead of as the template
    says (a format, or a function of the example); ``given``: what the model's own answer begins with."""
    where = f"template {template.name}"
    head = [fill(text, {"instruction": instruction}, where) for text in (template.instruction, template.format)]
    answered = answer if callable(answer) else partial(_answered, answer or template.answer, where)
    shots = [Shot(fill(template.input, _values(one), where), answered(one)) for one in shown]
    asked = Shot(fill(template.input, _asked(example), where), given)
    return Prompt(template, "\n".join(part for part in head if part), tuple(shots), asked)


def _answered(answer: str, where: str, example: Any) -> str:
    return fill(answer, _values(example), where)


def _values(example: Any) -> dict[str, Any]:
    return {**example.facts, "question": example.question, "answer": example.answer}


def _asked(example: Any) -> dict[str, Any]:
    """Of an example that is to be answered: not its answer."""
    return {name: value for name, value in _values(example).items() if name != "answer"}
