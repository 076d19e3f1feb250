"""The answer at once: zero-shot, or after demonstrations (Brown et al. 2020, arXiv 2005.14165, section 2).

No parameter changes. Greedy, unless the user asks otherwise.
"""

from dataclasses import replace
from typing import Any

from amauta.prompt.asking import Asking, lay
from amauta.prompt.formats import Form, Unreadable, allowed, form_of
from amauta.prompt.outcome import Meter, Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Shot

FORM = 32  # tokens that braces, tags and names may take besides the answer
SHOTS = 4  # demonstrations of the methods that show some, where the user names no number
REPAIR = "This answer cannot be read: {reason}. Write the same answer again, in the right form."


def ask(
    model: Any, task: Task, example: Example, settings: Prompting, shots: int, usual: dict[str, Any]
) -> tuple[Asking, Form, dict[str, Any]]:
    """The prompt for an answer at once, the answer's form, and the arguments of ``generate``."""
    form = form_of(settings.output, task)
    plain = settings.output.form == "text"
    longest = task.max_tokens if plain else task.max_tokens + FORM
    drawn = {"max_tokens": longest, **settings.drawn(**usual)}
    asking = lay(
        model, task, example, settings, shots=shots, room=drawn["max_tokens"],
        answer=None if plain else form.write, format=form.ask,
    )  # fmt: skip
    drawn.setdefault("stop", asking.stop)
    return asking, form, drawn | (allowed(form, asking.lead) if settings.output.constrain else {})


def direct(model: Any, task: Task, example: Example, settings: Prompting, shots: int = 0) -> Outcome:
    """One answer; where it has not the wanted form, one call for its repair."""
    meter = Meter(model)
    asking, form, drawn = ask(model, task, example, settings, shots, {"temperature": 0.0})
    made = meter.generate([asking.ids], **drawn)[0]
    tree = asking.tree("direct", meter.settings)
    tree.spend(read=made.prompt_tokens, calls=1)
    last = tree.add(0, made.tokens, made.text, made.logprobs, made.sampled_logprobs, kind="answer")
    found, reason = reading(form, made.text)
    facts: dict[str, Any] = {"parsed": found is not None, "repaired": False}
    if found is None and settings.output.repair:
        again = repair_ids(asking, made.text, reason)
        made = meter.generate([again], **drawn)[0]
        tree.set(last, "dropped", fault=reason)
        tree.spend(read=made.prompt_tokens, calls=1)
        last = tree.add(0, made.tokens, made.text, made.logprobs, made.sampled_logprobs, kind="answer",
                        given=again)  # fmt: skip
        found, _ = reading(form, made.text)
        facts |= {"repaired": found is not None, "fault": reason}
    tree.choose(last)
    answer = None if found is None else task.extract(found[form.answer])
    return meter.outcome(answer, made.text, tree, finish=made.finish, **facts, **asking.record)


def few_shot(model: Any, task: Task, example: Example, settings: Prompting) -> Outcome:
    """As ``direct``, after demonstrations."""
    return direct(model, task, example, settings, shots=SHOTS)


def reading(form: Form, text: str) -> tuple[dict[str, str] | None, str]:
    """What a text says in this form, or None and why it says nothing."""
    try:
        return form.read(text.strip()), ""
    except Unreadable as fault:
        return None, str(fault)


def repair_ids(asking: Asking, text: str, reason: str) -> list[int]:
    """The prompt, the answer that cannot be read, and what is wrong with it, as one more turn."""
    prompt = asking.fitted.prompt
    shown = (*prompt.shown, replace(prompt.asked, answer=text.strip()))
    again = replace(prompt, shown=shown, asked=Shot(REPAIR.format(reason=reason)))
    return again.ids(asking.model, chat=asking.chat)
