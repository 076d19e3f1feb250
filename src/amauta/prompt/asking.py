"""One example, laid out and within the context, with all that must be known to ask it again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from amauta.decode.tree.tree import Tree
from amauta.prompt.budget import Fitted, fit
from amauta.prompt.demonstrations import choose, usual
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Prompt, Template, compose, read_template, wants_chat


@dataclass(frozen=True)
class Asking:
    """``record``: what the record of an example tells of its prompt. ``stop``: texts that end an answer."""

    model: Any
    fitted: Fitted
    chat: bool
    stop: tuple[str, ...]
    record: dict[str, Any]

    @property
    def ids(self) -> list[int]:
        return self.fitted.ids

    def begun(self, answer: str) -> list[int]:
        """The ids when the model's answer has begun with ``answer``."""
        prompt = self.fitted.prompt
        return replace(prompt, asked=replace(prompt.asked, answer=answer)).ids(self.model, chat=self.chat)

    def text(self) -> str:
        """The prompt as the model reads it, special tokens by their names."""
        return self.model.tokenizer.decode(self.ids, special=True)

    @property
    def lead(self) -> str:
        """The spaces that an answer begins with."""
        return "" if self.chat else self.fitted.prompt.template.lead

    def tree(self, method: str, settings: dict[str, Any]) -> Tree:
        """A tree that begins with this prompt."""
        return Tree(method, self.text(), settings, ids=self.ids)


def lay(
    model: Any,
    task: Task,
    example: Example,
    settings: Prompting,
    *,
    shots: int = 0,
    room: int,
    answer: str | Callable[[Example], str] | None = None,
    given: str = "",
    format: str = "",
    suits: Callable[[Example], bool] = lambda example: True,
) -> Asking:
    """The prompt of an example. ``shots``: demonstrations where the user names no number; ``room``: tokens of context
    that the answer needs; the others as in ``template.compose``, with ``format`` where the template has none."""
    template = task.template if settings.template is None else read_template(settings.template)
    if format and not template.format:
        template = replace(template, format=format.replace("{", "{{").replace("}", "}}"))
    count = usual(task, shots, suits) if settings.shots is None else settings.shots
    shown = choose(
        task, count, demonstration_seed=settings.demonstration_seed, order_seed=settings.order_seed, suits=suits
    )
    prompt = compose(template, example, shown.examples, instruction=task.instruction, answer=answer, given=given)
    chat = wants_chat(model, settings.layout)
    fitted = fit(model, prompt, room, chat=chat)
    record = {
        "template": template.name, "layout": "chat" if chat else "plain",
        "demonstrations": list(shown.places[fitted.dropped :]), "dropped": fitted.dropped,
        "demonstration_seed": settings.demonstration_seed, "order_seed": settings.order_seed,
        "verbalisers": None if task.labels is None else list(task.labels), "prompt_tokens": len(fitted.ids),
    }  # fmt: skip
    return Asking(model, fitted, chat, stops(template, chat=chat), record)


def stops(template: Template, *, chat: bool) -> tuple[str, ...]:
    """What ends an answer in plain text: the space between two demonstrations, or the opening of another question. In
    a chat the model ends its turn."""
    if chat:
        return ()
    opening = template.opening.strip()
    return tuple(text for text in (template.between, f"\n{opening}" if opening else "") if text)


def ended(prompt: Prompt) -> tuple[str, ...]:
    """What ends reasoning of several paragraphs: only another question."""
    opening = prompt.template.opening.strip()
    return (f"\n{opening}",) if opening else (prompt.template.between,)
