"""What a method of prompting gives for one example, and what it spent: tokens, calls, seconds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from amauta.decode.tree.tree import Tree
    from amauta.prompt.settings import Prompting
    from amauta.prompt.task import Example, Task


@dataclass
class Outcome:
    """``answer``: None where no text of the model gave one. ``calls``: prompts that were sent, each sample one of them.
    ``facts``: what the record of the example must tell besides."""

    answer: str | None
    text: str
    generated_tokens: int = 0
    read_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    tree: "Tree | None" = None
    facts: dict[str, Any] = field(default_factory=dict)


Method: TypeAlias = "Callable[[Any, Task, Example, Prompting], Outcome]"  # the first is a language model


class Meter:
    """A language model whose work is counted from here on; ``outcome`` tells it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.generated = self.read = self.calls = 0
        self.settings: dict[str, Any] = {}  # those that held in the first call
        self._later: list[dict[str, Any]] = []  # others that held afterwards, but for the seed
        self._began = time.perf_counter()

    def generate(self, prompts: Sequence[Any], **settings: Any) -> list[Any]:
        """As ``LanguageModel.generate``: a Generation for each prompt, in their order; none for none."""
        if not prompts:
            return []
        made = self.model.generate(prompts, **settings)
        self.calls += len(made)
        self.generated += sum(len(one.tokens) for one in made)
        self.read += sum(one.prompt_tokens for one in made)
        self._note(dict(made[0].settings))
        return made

    def _note(self, settings: dict[str, Any]) -> None:
        self.settings = self.settings or settings
        if _seedless(settings) not in map(_seedless, (self.settings, *self._later)):
            self._later.append(settings)

    def outcome(self, answer: str | None, text: str, tree: "Tree | None" = None, **facts: Any) -> Outcome:
        """What was spent so far, with the settings that held: those of the first call, and others that held later."""
        seconds = time.perf_counter() - self._began
        later = {"settings_later": list(self._later)} if self._later else {}
        facts = {"settings": self.settings, **later, **facts}
        return Outcome(answer, text, self.generated, self.read, self.calls, seconds, tree, facts)


def _seedless(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}
