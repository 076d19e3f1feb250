"""Chain of thought: the steps before the answer.

Few-shot (Wei et al. 2022, arXiv 2201.11903): every demonstration shows its reasoning and then "The answer is N."
Zero-shot (Kojima et al. 2022, arXiv 2205.11916): the answer is made to begin with "Let's think step by step."; when the
reasoning is there, a second call asks for "Therefore, the answer is". In a chat both stand at the beginning of the
assistant's own turn, where the paper has them in plain text.
"""

from dataclasses import dataclass
from typing import Any

from amauta.prompt.asking import Asking, ended, lay
from amauta.prompt.demonstrations import has
from amauta.prompt.outcome import Meter, Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task

ANSWER = "{reasoning} The answer is {answer}."
STEPS = 256  # tokens of reasoning where the user does not say


@dataclass(frozen=True)
class Path:
    """One chain of thought. ``text``: all that the answer consists of; ``parts``: what the model wrote of it, each
    after the ids in ``read``."""

    text: str
    answer: str | None
    parts: tuple[Any, ...]  # Generations
    read: tuple[list[int], ...]

    @property
    def logprob(self) -> float:
        """Of all that was written, under the model, in nats."""
        return sum(sum(part.logprobs) for part in self.parts)

    @property
    def tokens(self) -> int:
        return sum(len(part.tokens) for part in self.parts)


def chain(model: Any, task: Task, example: Example, settings: Prompting) -> Outcome:
    """One chain of thought, greedy; zero-shot where no demonstrations are asked for."""
    meter = Meter(model)
    asking, paths = paths_of(meter, task, example, settings, 1, {"temperature": 0.0})
    tree = asking.tree("cot", meter.settings)
    tree.choose(grow(tree, paths[0]))
    path = paths[0]
    return meter.outcome(path.answer, path.text, tree, finish=path.parts[-1].finish, parsed=path.answer is not None,
                         **asking.record)  # fmt: skip


def paths_of(
    meter: Meter, task: Task, example: Example, settings: Prompting, samples: int, usual: dict[str, Any]
) -> tuple[Asking, list[Path]]:
    """``samples`` chains of thought of one example."""
    drawn = {"max_tokens": STEPS, **settings.drawn(**usual)}
    if settings.shots:
        asking = lay(meter.model, task, example, settings, room=drawn["max_tokens"], answer=ANSWER,
                     suits=has("reasoning"))  # fmt: skip
        made = meter.generate([asking.ids] * samples, **{"stop": asking.stop, **drawn})
        return asking, [Path(one.text, task.extract(one.text), (one,), (asking.ids,)) for one in made]
    conclusion = f"\n{settings.conclusion}"
    room = drawn["max_tokens"] + task.max_tokens + len(meter.model.tokenizer.encode(conclusion)) + 1
    asking = lay(meter.model, task, example, settings, room=room, given=settings.trigger)
    stop = () if asking.chat else ended(asking.fitted.prompt)
    thought = meter.generate([asking.ids] * samples, **{"stop": stop, **drawn})
    begun = [f"{settings.trigger}{one.text.rstrip()}{conclusion}" for one in thought]
    short = {"stop": asking.stop, **drawn, "temperature": 0.0, "max_tokens": task.max_tokens}
    read = [asking.begun(text) for text in begun]
    said = meter.generate(read, **short)
    return asking, [
        Path(before + after.text, task.extract(settings.conclusion + after.text), (steps, after), (asking.ids, ids))
        for before, steps, after, ids in zip(begun, thought, said, read, strict=True)
    ]


def grow(tree: Any, path: Path) -> int:
    """Put a path below the root of a tree: its reasoning, then its answer. The number of its last node."""
    at = 0
    for place, part in enumerate(path.parts):
        last = place == len(path.parts) - 1
        given = {"given": path.read[place]} if place else {}
        at = tree.add(at, part.tokens, part.text, part.logprobs, part.sampled_logprobs,
                      kind="answer" if last else "thought", state="finished" if last else "kept", **given)  # fmt: skip
        tree.spend(read=part.prompt_tokens, calls=1)
    tree.set(at, answer=path.answer)
    return at
