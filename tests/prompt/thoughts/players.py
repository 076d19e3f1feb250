"""Models by script that play the game of 24, perfectly or as told, and sort digits with a known rate of errors."""

import re
import zlib
from collections.abc import Callable
from fractions import Fraction
from random import Random

from amauta.prompt.outcome import Outcome
from amauta.prompt.tasks import game24, sorting


def asked(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The numbers that a prompt of the game ends with, and the steps after them."""
    first, *rest = prompt.rpartition("Numbers: ")[2].splitlines()
    return first, tuple(step for step in rest[1:] if step)


def legal(prompt: str) -> list[str]:
    """The steps that the rules allow next."""
    numbers = game24.left(*asked(prompt))
    return [game24.spelt(move) for move in game24.moves([Fraction(number) for number in numbers])]


def perfect(prompt: str, times: int) -> str:
    """Proposes all steps, samples them in turn, and knows from which states 24 can be reached."""
    if prompt.startswith(game24.VALUING):
        numbers = [Fraction(number) for number in asked(prompt)[0].split()]
        return "sure" if game24.solution(numbers) is not None else "impossible"
    steps = legal(prompt)
    if prompt.startswith(game24.PROPOSING):
        return "\n".join(steps)
    assert prompt.startswith(game24.STEPPING), prompt[:80]
    return steps[times % len(steps)]


def noisy_sorter(rate: float, seed: int) -> Callable[[str, int], str]:
    """Sorts, merges and mends, but loses each number with probability ``rate`` (and a lost one is replaced by another
    digit half of the time); so a list of n numbers comes out right with probability (1 - rate)^n."""
    random = Random(seed)

    def sort(prompt: str, times: int) -> str:
        question = prompt.rpartition("\n\n")[2]
        if prompt.startswith(sorting.IMPROVING):
            question = question.partition("Sorted with errors")[0]
        numbers = [int(number) for number in re.findall(r"\d", question)]
        found: list[int] = []
        for number in numbers:
            if random.random() >= rate:
                found.append(number)
            elif random.random() < 0.5:
                found.append((number + random.randrange(1, 10)) % 10)
        return f"{sorted(found)}"

    return sort


def wanderer(seed: int) -> Callable[[str, int], str]:
    """Plays on at random, by the rules, to the end; judges as ``perfect`` does."""
    random = Random(seed)

    def play(prompt: str, times: int) -> str:
        if not prompt.startswith(game24.STEPPING):
            return perfect(prompt, times)
        question, path = asked(prompt)
        left = [Fraction(number) for number in game24.left(question, path)]
        lines: list[str] = []
        while len(left) > 1:
            move = random.choice(game24.moves(left))
            lines.append(game24.spelt(move))
            left = list(move[-1])
        return "\n".join(lines)

    return play


def fitful(prompt: str, times: int) -> str:
    """Solves a puzzle every second time; else, and after any step, it plays on at random, by prompt and time alone."""
    question, path = asked(prompt)
    if not path and times % 2 == 0:
        return "\n".join(game24.solution([int(number) for number in question.split()]) or ())
    return wanderer(zlib.crc32(prompt.encode()) + times)(prompt, 0)


def spendings(outcome: Outcome) -> dict[str, int]:
    """What a search spent, by the names of its limits."""
    return {
        "most_calls": outcome.calls,
        "most_tokens": outcome.generated_tokens,
        "most_thoughts": outcome.facts["thoughts"],
    }
