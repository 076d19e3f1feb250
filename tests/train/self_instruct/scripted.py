"""A writer that answers by rule: what it writes is a function of the request and of the seed alone."""

import random
from collections.abc import Sequence

from amauta.train.self_instruct.wording import Request
from amauta.train.self_instruct.writers import Draw, Written

VERBS = ("Write", "Explain", "Classify", "List", "Translate", "draw", "Compare", "Name")
THINGS = ("a letter", "the weather", "two rivers", "an old song", "the news", "a recipe", "seven birds", "this proof",
          "the market", "a long journey", "the moon", "potatoes")  # fmt: skip
WAYS = ("for a child", "in the voice of a judge", "as positive or negative", "with three examples each",
        "without the letter e", "before sunrise", "by size and by colour", "to your neighbour")  # fmt: skip


class Scripted:
    """Counts what it is asked; ``break_at``: raises KeyboardInterrupt instead of that call (from 1)."""

    def __init__(self, break_at: int | None = None) -> None:
        self.calls: list[tuple[list[Request], Draw]] = []
        self.break_at = break_at

    def __call__(self, requests: Sequence[Request], draw: Draw) -> list[Written]:
        if len(self.calls) + 1 == self.break_at:
            raise KeyboardInterrupt
        self.calls.append((list(requests), draw))
        return [self._answer(request, draw.seed + i) for i, request in enumerate(requests)]

    def _answer(self, request: Request, seed: int) -> Written:
        rng = random.Random(f"{seed} {request.text[-200:]}")
        if request.begun.startswith("Task"):
            made = [f"{rng.choice(VERBS)} {rng.choice(THINGS)} {rng.choice(WAYS)}." for _ in range(7)]
            text = f" {made[0]}" + "".join(f"\nTask {n}: {one}" for n, one in enumerate(made[1:], start=10))
            return Written(text + "\n", rng.random() < 0.7)
        instruction = request.text.rsplit("Task: ", 1)[1]
        if "classification?" in request.begun:
            return Written(" Yes" if "Classify" in instruction else rng.choice([" No", " no.", " Perhaps"]), True)
        if request.begun:
            return Written(" good\nInput: the first\nClass label: bad\nInput: the second", True)
        kinds = (
            "\nExample 1\nInput: x\nOutput: one\nExample 2\nInput: y\nOutput: two",
            "\nOutput: alone <b>&",
            "\nExample 1\nInput: x\nOutput: one\nExample 2\nInput: x\nOutput: other",
            "\nno form at all",
        )
        return Written(rng.choice(kinds), rng.random() < 0.8)
