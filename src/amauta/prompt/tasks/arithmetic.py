"""Word problems of two steps, whose reasoning is told: 5 + 2 * 3 = 11 is shown, 23 - 20 + 6 = 9 is asked first.

The pair is that of Wei et al. 2022 (arXiv 2201.11903, figure 1), in other words; 27 is the wrong answer told there for
a prompt without a chain of thought.
"""

import random
from collections.abc import Callable

from amauta.base.seeds import derive
from amauta.prompt.task import Example, Task

Maker = Callable[[int, int, int], Example]
NAMES = ("Rosa", "Luis", "Inés", "Mateo", "Ana", "Tomás", "Elena", "Pedro")


def packs(a: int, b: int, c: int, name: str = "Rosa") -> Example:
    """a + b * c."""
    return Example(
        f"{name} has {a} books. {name} buys {b} boxes with {c} books each. How many books does {name} have now?",
        str(a + b * c),
        {"reasoning": f"{name} started with {a} books. {b} boxes of {c} books are {b * c} books. "
                      f"{a} + {b * c} = {a + b * c}."},
    )  # fmt: skip


def kitchen(a: int, b: int, c: int, name: str = "The kitchen") -> Example:
    """a - b + c."""
    return Example(
        f"{name} had {a} potatoes. It used {b} of them for lunch and bought {c} more. How many potatoes are there now?",
        str(a - b + c),
        {"reasoning": f"There were {a} potatoes. {b} were used, so {a} - {b} = {a - b} were left. "
                      f"{c} more were bought, so {a - b} + {c} = {a - b + c}."},
    )  # fmt: skip


def shared(a: int, b: int, c: int, name: str = "Luis") -> Example:
    """a - b * c."""
    return Example(
        f"{name} has {a} coins and gives {c} coins to each of {b} friends. How many coins does {name} have left?",
        str(a - b * c),
        {"reasoning": f"{name} gives away {b} * {c} = {b * c} coins. {a} - {b * c} = {a - b * c}."},
    )  # fmt: skip


def rows(a: int, b: int, c: int, name: str = "A farmer") -> Example:
    """a * b - c."""
    return Example(
        f"{name} plants {a} rows of {b} trees. Then {c} of the trees die. How many trees are left?",
        str(a * b - c),
        {"reasoning": f"{a} rows of {b} trees are {a} * {b} = {a * b} trees. {c} die, so {a * b} - {c} = {a * b - c}."},
    )  # fmt: skip


def drawn(count: int, seed: int) -> list[Example]:
    """The question of the pair, then others that no demonstration shows."""
    source = random.Random(derive(seed, "arithmetic"))
    shown = {one.question for one in SHOWN}
    found = {ASKED.question: ASKED}
    while len(found) < count:
        b, c, kind = source.randint(2, 9), source.randint(2, 9), source.randrange(4)
        name = source.choice(NAMES)
        if kind == 0:
            made = packs(source.randint(2, 40), b, c, name)
        elif kind == 1:
            used = source.randint(2, 40)
            made = kitchen(used + source.randint(1, 30), used, source.randint(2, 30))
        elif kind == 2:
            made = shared(b * c + source.randint(1, 30), b, c, name)
        else:
            made = rows(b, c, source.randint(1, b * c - 1))
        if made.question not in shown:
            found.setdefault(made.question, made)
    return list(found.values())[:count]


ASKED = kitchen(23, 20, 6)
SHOWN = (
    packs(5, 2, 3), kitchen(15, 7, 4), shared(30, 4, 6), rows(6, 5, 8),
    packs(12, 3, 4, "Ana"), kitchen(40, 31, 12), shared(25, 3, 7, "Elena"), rows(3, 9, 5),
)  # fmt: skip
TASK = Task("arithmetic", examples=drawn, demonstrations=SHOWN)
