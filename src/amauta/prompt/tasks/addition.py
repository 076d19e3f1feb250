"""Long addition, digits apart, with the carry written down (Nye et al. 2021, arXiv 2112.00114, section 3 and figure 2).

Sums of 1 to 8 digits. One sum in ten, by a hash of its question, is asked and never learnt.
"""

import random
import re
from collections.abc import Callable

from amauta.base.seeds import derive
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Template

DIGITS = 8
HELD_OUT = 10  # one question in so many


def spaced(number: int) -> str:
    """``2 9`` for 29."""
    return " ".join(str(number))


def scratch(a: int, b: int) -> str:
    """The lines of the scratchpad: what remains of both numbers, the digits found, the carry."""
    left, right = list(str(a)), list(str(b))
    found: list[str] = []
    carry = 0
    lines = [_line(left, right, found, carry)]
    while left or right:
        total = int(left.pop() if left else 0) + int(right.pop() if right else 0) + carry
        carry, digit = divmod(total, 10)
        found.insert(0, str(digit))
        lines.append(_line(left, right, found, carry))
    return "\n".join([*lines, " ".join([str(carry), *found])])


def _line(left: list[str], right: list[str], found: list[str], carry: int) -> str:
    sums = [*left, "+", *right] if left or right else []
    return " ".join([*sums, ",", *found, "C:", str(carry)])


def example(a: int, b: int) -> Example:
    facts = {"scratch": scratch(a, b), "digits": max(len(str(a)), len(str(b)))}
    return Example(f"{spaced(a)} + {spaced(b)}", spaced(a + b), facts)


def drawn(count: int, seed: int, held_out: bool) -> list[Example]:
    """``count`` different sums, those that are asked or those that may be learnt; each number of digits as often."""
    source = random.Random(derive(seed, "addition", held_out))
    found: dict[str, Example] = {}
    tries = 0
    while len(found) < count and tries < 1000 * (count + 1):
        digits = 1 + tries % DIGITS
        tries += 1
        low = 10 ** (digits - 1) if digits > 1 else 0
        made = example(source.randrange(low, 10**digits), source.randrange(low, 10**digits))
        if asked(made) == held_out:
            found.setdefault(made.question, made)
    return list(found.values())


def asked(one: Example) -> bool:
    """Whether a sum belongs to those that are asked."""
    return derive(0, "addition", one.question) % HELD_OUT == 0


def number(text: str) -> str | None:
    """The digits of the first line that has any, without the spaces between them."""
    for line in text.splitlines():
        digits = re.search(r"\d(?: ?\d)*", line)
        if digits:
            return digits[0].replace(" ", "")
    return None


def grade(one: Example, answer: str | None) -> float:
    return float(answer is not None and answer.replace(" ", "") == one.answer.replace(" ", ""))


def _of(held_out: bool) -> Callable[[int, int], list[Example]]:
    return lambda count, seed: drawn(count, seed, held_out)


TASK = Task(
    "addition",
    examples=_of(True),
    training=_of(False),
    demonstrations=tuple(drawn(32, 0, held_out=False)),
    template=Template("addition", opening="Input:\n", separator="\nTarget:\n"),
    extract=number,
    grade=grade,
    max_tokens=2 * DIGITS + 4,
)
