"""From what a model wrote to instructions, a yes or a no, and instances; and why some of it is not taken.

The rules are those of the published work, section 2.2 and its authors' code, but for these: an instruction may begin
with any letter or digit, or with ¿ and ¡, and may ask for a program; only its first letter is made a capital.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from amauta.train.self_instruct.rouge import words
from amauta.train.self_instruct.wording import Wording

Instance = tuple[str, str]  # input, output


@dataclass(frozen=True)
class Found:
    """What an answer gave, and why other parts of it were not taken: reason -> how many."""

    instances: list[Instance]
    dropped: dict[str, int]


def instructions(answer: str, wording: Wording) -> list[str]:
    """The instructions of an answer that goes on after "Task 9:"; each on one line, its first letter a capital."""
    parts = re.split(rf"\n\s*(?:{re.escape(wording.task)}\s*)?\d+\s*[.:)]\s*", "\n" + answer.lstrip("\n"))
    lines = [" ".join(part.strip().split("\n\n")[0].split()) for part in parts]
    return [line[:1].upper() + line[1:] for line in lines]


def refusal(instruction: str, wording: Wording, least: int, most: int) -> str | None:
    """Why an instruction cannot be taken, or None: "empty", "short", "long", "barred" (it needs what is no text) or
    "start" (it begins with a sign, as what is left of another one does)."""
    found = words(instruction)
    if not found:
        return "empty"
    if len(found) < least:
        return "short"
    if len(found) > most:
        return "long"
    if set(found) & set(wording.barred):
        return "barred"
    return None if instruction[0].isalnum() or instruction[0] in "¿¡" else "start"


def is_classification(answer: str, wording: Wording) -> bool | None:
    """Yes, no, or None for an answer that is neither."""
    first = next(iter(words(answer)), "")
    return {words(wording.yes)[0]: True, words(wording.no)[0]: False}.get(first)


def instances(answer: str, wording: Wording, *, classification: bool, whole: bool, most: int) -> Found:
    """The instances of an answer; ``whole``: it came to its own end, or else its last instance is not taken.

    Reasons: "unread" (no output is named), "cut", "no-output", "same" (the output is the input), "unfinished" (it ends
    with a colon), "duplicate", "contradiction" (one input with several outputs: then none of the task is taken), "many"
    (above ``most``).
    """
    pairs = _labelled(answer, wording) if classification else _examples(answer, wording)
    dropped: dict[str, int] = {}
    if not pairs:
        return Found([], {"unread": 1})
    if not whole:
        pairs = pairs[:-1]
        dropped["cut"] = 1
    kept: list[Instance] = []
    for given, output in pairs:
        reason = None
        if not output:
            reason = "no-output"
        elif given == output:
            reason = "same"
        elif given.endswith(":") or output.endswith(":"):
            reason = "unfinished"
        elif (given, output) in kept:
            reason = "duplicate"
        if reason is None:
            kept.append((given, output))
        else:
            dropped[reason] = dropped.get(reason, 0) + 1
    inputs = [given for given, _ in kept if given]
    if len(set(inputs)) < len(inputs):
        return Found([], {**dropped, "contradiction": len(kept)})
    if len(kept) > most:
        dropped["many"] = len(kept) - most
    return Found(kept[:most], dropped)


def _examples(answer: str, wording: Wording) -> list[Instance]:
    """Input-first: "Example 1", "Input: …", "Output: …"; a single instance stands without a number."""
    parts = re.split(rf"(?:^|\n)\s*{re.escape(wording.example)}\s*\d+\s*[.:]?", answer)
    return [pair for part in parts if (pair := _pair(part, wording)) is not None]


def _pair(part: str, wording: Wording) -> Instance | None:
    """The input, if any, and the output of one example; None where no output is named."""
    before, named, after = _cut(part, wording.output)
    if not named:
        return None
    output = _cut(after, wording.input)[0]  # the model went on with an input of its own
    return _plain(before, wording), output.strip()


def _labelled(answer: str, wording: Wording) -> list[Instance]:
    """Output-first: "Class label: …", then its input, if the task needs one."""
    parts = re.split(rf"(?:^|\n)\s*{re.escape(wording.label)}\s*:", "\n" + answer)[1:]
    halves = [part.strip().partition("\n") for part in parts]
    return [(_plain(given, wording), label.strip()) for label, _, given in halves]


def _plain(given: str, wording: Wording) -> str:
    """An input without the word that names it."""
    return re.sub(rf"^\s*{re.escape(wording.input)}\s*\d*\s*:", "", given).strip()


def _cut(text: str, name: str) -> Sequence[str]:
    """What stands before and after the line that a name and a colon begin."""
    found = re.search(rf"(?:^|\n)\s*{re.escape(name)}\s*\d*\s*:", text)
    return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])
