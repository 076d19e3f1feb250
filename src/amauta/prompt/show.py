"""The prompts that a method sends for an example, without a word of the model's: it answers nothing to each."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amauta.base.errors import ConfigError
from amauta.prompt.methods import METHODS
from amauta.prompt.settings import ShowPrompt
from amauta.prompt.task import Task
from amauta.prompt.template import read_ids

MOST = 8  # prompts of a search that are told; a search without answers may send the same ones over and over


class Silent:
    """A language model that writes nothing and keeps what it was asked."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.asked: list[tuple[list[int], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, prompts: Sequence[Any], **settings: Any) -> list[Any]:
        ids = [read_ids(self._model, one) if isinstance(one, str) else list(one) for one in prompts]
        self.asked += [(row, settings) for row in ids]
        return [
            SimpleNamespace(text="", tokens=[], logprobs=[], sampled_logprobs=[], finish="stop", prompt_tokens=len(row),
                            settings=settings) for row in ids
        ]  # fmt: skip


def shown(model: Any, task: Task, settings: ShowPrompt) -> dict[str, Any]:
    """Each different prompt once: its text, its tokens, the arguments of ``generate``; and what was dropped to make it
    fit. What follows an answer (the second call of a chain of thought) is shown after an empty one."""
    if settings.method not in METHODS:
        raise ConfigError("prompt.unknown-method", name=settings.method, hint=", ".join(METHODS))
    examples = task.examples(max(settings.examples, settings.number), settings.seed)
    if settings.number > len(examples):
        raise ConfigError("prompt.no-such-example", number=settings.number, count=len(examples))
    example = examples[settings.number - 1]
    silent = Silent(model)
    outcome = METHODS[settings.method](silent, task, example, settings)
    different = {tuple(ids): drawn for ids, drawn in reversed(silent.asked)}
    prompts = [
        {"text": model.tokenizer.decode(list(ids), special=True), "tokens": len(ids), "ids": list(ids),
         "pieces": model.tokenizer.pieces(list(ids)), "settings": drawn}
        for ids, drawn in list(reversed(different.items()))[:MOST]
    ]  # fmt: skip
    facts = {name: value for name, value in outcome.facts.items() if name in TOLD}
    return {"task": task.name, "method": settings.method, "question": example.question, "right": example.answer,
            "prompts": prompts, "calls": outcome.calls, **facts}  # fmt: skip


TOLD = ("template", "layout", "demonstrations", "dropped", "demonstration_seed", "order_seed", "verbalisers")
