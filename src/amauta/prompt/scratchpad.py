"""Scratchpads: intermediate states are written before the answer, and only the answer counts (Nye et al. 2021, arXiv
2112.00114). A model is prompted for them, or trained on them: ``record`` makes what fine-tuning reads.

    <scratch>
    2 9 + 5 7 , C: 0
    2 + 5 , 6 C: 1
    , 8 6 C: 0
    0 8 6
    </scratch>
    8 6
"""

from typing import Any

from amauta.prompt.asking import lay
from amauta.prompt.demonstrations import has
from amauta.prompt.direct import SHOTS
from amauta.prompt.outcome import Meter, Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.template import compose

OPEN, CLOSE = "<scratch>", "</scratch>"
TARGET = f"{OPEN}\n{{scratch}}\n{CLOSE}\n{{answer}}"
TOKENS = 512  # of a scratchpad and its answer where the user does not say


def scratchpad(model: Any, task: Task, example: Example, settings: Prompting) -> Outcome:
    """One scratchpad, greedy; after demonstrations, or without any for a model that was trained to write them."""
    meter = Meter(model)
    drawn = {"max_tokens": TOKENS, **settings.drawn(temperature=0.0)}
    asking = lay(
        model, task, example, settings, shots=SHOTS, room=drawn["max_tokens"], answer=TARGET, suits=has("scratch")
    )
    made = meter.generate([asking.ids], **{"stop": asking.stop, **drawn})[0]
    tree = asking.tree("scratchpad", meter.settings)
    tree.spend(read=made.prompt_tokens, calls=1)
    tree.choose(tree.add(0, made.tokens, made.text, made.logprobs, made.sampled_logprobs, kind="answer"))
    after = after_scratch(made.text)
    answer = None if after is None else task.extract(after)
    facts = {"finish": made.finish, "parsed": after is not None, "scratch_right": _same_scratch(made.text, example)}
    return meter.outcome(answer, made.text, tree, **facts, **asking.record)


def after_scratch(text: str) -> str | None:
    """What follows the last end of a scratchpad; None for a text that ends none: its answer cannot be told from the
    intermediate lines."""
    _, mark, after = text.rpartition(CLOSE)
    return after if mark else None


def record(task: Task, example: Example, *, steps: bool = True) -> dict[str, str]:
    """``{"prompt", "completion"}`` for ``amauta sft``; without ``steps`` the completion is the answer alone.

    The prompt is what a chat asks without demonstrations, so the trained model is asked with ``--layout chat --shots
    0``.
    """
    answer = TARGET if steps else task.template.answer
    asked = compose(task.template, example, [example], instruction=task.instruction, answer=answer)
    question, said = asked.messages()[:2]
    return {"prompt": question["content"], "completion": said["content"]}


def _same_scratch(text: str, example: Example) -> bool | None:
    """Whether the intermediate lines are right as well; None where the example does not tell them."""
    if "scratch" not in example.facts:
        return None
    inside = text.partition(OPEN)[2].rpartition(CLOSE)[0]
    return inside.strip() == example.facts["scratch"].strip()
