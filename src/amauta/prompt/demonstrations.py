"""Which demonstrations are shown, and in which order: both from seeds, both recorded, for both move accuracy."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from amauta.base.errors import ConfigError
from amauta.base.seeds import derive
from amauta.prompt.task import Example, Task


@dataclass(frozen=True)
class Demonstrations:
    """``places``: which of the task's demonstrations these are, from 0, in the order in which they are shown."""

    examples: tuple[Example, ...] = ()
    places: tuple[int, ...] = ()


def choose(
    task: Task,
    count: int,
    *,
    demonstration_seed: int = 0,
    order_seed: int = 0,
    suits: Callable[[Example], bool] = lambda example: True,
) -> Demonstrations:
    """``count`` of the task's demonstrations, those that ``suits``. One seed decides the set, the other its order.

    ConfigError where the task has fewer.
    """
    pool = [place for place, example in enumerate(task.demonstrations) if suits(example)]
    if count > len(pool):
        raise ConfigError("prompt.too-few-demonstrations", task=task.name, wanted=count, seen=len(pool))
    chosen = sorted(random.Random(derive(demonstration_seed, "demonstrations", task.name)).sample(pool, count))
    random.Random(derive(order_seed, "order", task.name)).shuffle(chosen)
    return Demonstrations(tuple(task.demonstrations[place] for place in chosen), tuple(chosen))


def usual(task: Task, shots: int, suits: Callable[[Example], bool] = lambda example: True) -> int:
    """``shots``, or as many as the task has where these are fewer."""
    return min(shots, sum(map(suits, task.demonstrations)))


def has(*facts: str) -> Callable[[Example], bool]:
    """Whether an example has these facts."""
    return lambda example: all(fact in example.facts for fact in facts)
