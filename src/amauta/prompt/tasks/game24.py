"""Game of 24: four numbers, each used once, with + - * / and parentheses, to obtain 24 (Yao et al. 2023, section 4.1).

Everything is computed in fractions. A step takes two numbers and leaves their result among the rest:
``4 + 8 = 12 (left: 4 6 12)``; three of them are a solution. Differences from the paper: puzzles are drawn from all that
can be solved, instead of the hard ones of a web site; the answer is put together from the steps by program.
"""

import ast
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations_with_replacement
from random import Random

from amauta.base.errors import ConfigError
from amauta.base.seeds import derive
from amauta.prompt.task import Example
from amauta.prompt.template import Prompt, Shot, Template
from amauta.prompt.thoughts.steps import Path, SteppedTask, Steps, asked, lines_of, listed

GOAL, NUMBERS, LARGEST = 24, 4, 13
Move = tuple[Fraction, str, Fraction, Fraction, tuple[Fraction, ...]]  # a, operator, b, result, what is left
_VALUE = r"(-?\d+(?:/\d+)?)"
_STEP = re.compile(rf"{_VALUE} *([-+*/]) *{_VALUE} *= *{_VALUE} *\(left: *([^()]*)\)")
_EXPRESSION = re.compile(r"[\d(][\d\s+\-*/()]*")
_SIGNS = str.maketrans("×÷−·", "*/-*")
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_LONGEST = 200  # characters of an expression: no honest one comes near


def apply(a: Fraction, operator: str, b: Fraction) -> Fraction | None:
    """a operator b; None for a division by 0."""
    if operator == "/":
        return a / b if b else None
    return a + b if operator == "+" else a - b if operator == "-" else a * b


def moves(numbers: Sequence[Fraction]) -> list[Move]:
    """Every different step that the rules allow; ``left`` is sorted."""
    found: dict[tuple[Fraction, str, Fraction], Move] = {}
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = [number for place, number in enumerate(numbers) if place not in (i, j)]
            for operator in "+-*/":
                result = apply(a, operator, b)
                if result is not None and not (operator in "+*" and (b, operator, a) in found):
                    found[a, operator, b] = (a, operator, b, result, tuple(sorted([*rest, result])))
    return sorted(found.values(), key=_unnatural)  # so that solutions and proposals begin as people would


def _unnatural(move: Move) -> bool:
    return move[3] < 0 or move[3].denominator != 1


def solution(numbers: Sequence[int | Fraction], goal: int = GOAL) -> Path | None:
    """Steps that lead from the numbers to the goal, or None when nothing does: every way is tried."""
    dead: set[tuple[Fraction, ...]] = set()

    def walk(left: tuple[Fraction, ...]) -> list[Move] | None:
        if len(left) == 1:
            return [] if left[0] == goal else None
        if left in dead:
            return None
        for move in moves(left):
            rest = walk(move[-1])
            if rest is not None:
                return [move, *rest]
        dead.add(left)
        return None

    found = walk(tuple(sorted(Fraction(number) for number in numbers)))
    return None if found is None else tuple(spelt(move) for move in found)


def spelt(move: Move) -> str:
    """A step as a line."""
    a, operator, b, result, left = move
    return f"{a} {operator} {b} = {result} (left: {' '.join(map(str, left))})"


def read_steps(text: str) -> list[str]:
    """The steps in a text, a line each, spelt alike; whether they are right is not asked."""
    found: list[str] = []
    for line in lines_of(text.translate(_SIGNS)):
        match = _STEP.search(line)
        if match and all(re.fullmatch(_VALUE, number) for number in match[5].split()):
            a, operator, b, result, left = match.groups()
            found.append(f"{a} {operator} {b} = {result} (left: {' '.join(left.split())})")
    return found


def left(question: str, path: Path) -> list[str]:
    """The numbers that are left after the steps, as the last of them says."""
    match = _STEP.fullmatch(path[-1]) if path else None
    return (match[5] if match else question).split()


def expression(question: str, path: Path) -> str | None:
    """The expression that the steps build; None without steps, or where one takes a number that is not there.

    A result counts as what the step says that it is: a wrong one makes an expression that is not worth 24.
    """
    pool = [(Fraction(number), number) for number in question.split()]
    for step in path:
        match = _STEP.fullmatch(step)
        if match is None:
            return None
        taken: list[str] = []
        for number in (match[1], match[3]):
            found = next((each for each in pool if each[0] == _fraction(number)), None)
            if found is None:
                return None
            pool.remove(found)
            taken.append(found[1])
        result = _fraction(match[4])
        if result is None:
            return None
        pool.append((result, f"({taken[0]} {match[2]} {taken[1]})"))
    return pool[-1][1][1:-1] if path else None


def worth(text: str) -> tuple[Fraction, list[int]] | None:
    """What an expression is worth, exactly, and the numbers in it in order; None where it is none, or divides by 0.

    Only whole numbers, + - * / and parentheses: the text is parsed, never run.
    """
    if len(text) > _LONGEST or not re.fullmatch(r"[\d\s+\-*/()]+", text):
        return None
    try:
        return _worth(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _worth(node: ast.expr) -> tuple[Fraction, list[int]]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value), [node.value]
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
        raise ValueError("no expression of the game")
    (a, used), (b, also) = _worth(node.left), _worth(node.right)
    result = apply(a, _OPERATORS[type(node.op)], b)
    if result is None:
        raise ValueError("division by 0")
    return result, used + also


def extract(text: str) -> str | None:
    """The last expression with an operator that a text holds, without "= 24"; after "answer is" where that stands."""
    said = text.translate(_SIGNS).rpartition("answer is")[2]
    found = [match[0].strip() for match in _EXPRESSION.finditer(said)]
    found = [each for each in found if re.search(r"[-+*/]", each)]
    return found[-1] if found else None


def grade(example: Example, answer: str | None) -> float:
    """1 when the expression is worth 24 and uses each number once."""
    found = None if answer is None else worth(answer)
    return float(
        found is not None and found[0] == GOAL and sorted(found[1]) == sorted(map(int, example.question.split()))
    )


def examples(count: int, seed: int) -> list[Example]:
    """Different puzzles that can be solved, none of them a demonstration. ConfigError when there are not so many."""
    every = list(combinations_with_replacement(range(1, LARGEST + 1), NUMBERS))
    Random(derive(seed, "game24")).shuffle(every)
    shown = {each.question for each in DEMONSTRATIONS}
    found: list[Example] = []
    for numbers in every:
        if len(found) == count:
            break
        question = " ".join(map(str, numbers))
        path = None if question in shown else solution(numbers)
        if path is not None:
            found.append(_example(question, path))
    if len(found) < count:
        raise ConfigError("thoughts.too-many-examples", task="game24", count=count, known=len(found))
    return found


def _example(question: str, path: Path) -> Example:
    return Example(question, expression(question, path) or "", {"reasoning": "\n".join(path)})


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


INSTRUCTION = "Use the four numbers and + - * / to obtain 24. Use each number exactly once."
STEPPING = (
    f"{INSTRUCTION} At each step take two of the numbers, put their result in their place, and tell what is left."
)
PROPOSING = "Tell possible next steps towards 24: take two of the numbers, and tell the result and what is left then."
VALUING = "Can the given numbers reach 24, each used once? Say sure, likely or impossible."
VOTING = f"{INSTRUCTION} Which of these beginnings leads to 24 most likely? Say its number."
STEPS_TEMPLATE = Template("game24-steps", opening="Numbers: ", separator="\nSteps:\n")
VALUE_TEMPLATE = Template("game24-value", opening="Numbers: ", separator="\n")
JUDGED = (  # numbers, what is thought of them, and the word
    ("10 14", "10 + 14 = 24", "sure"),
    ("11 12", "11 + 12 = 23\n12 - 11 = 1\n11 * 12 = 132\n11 / 12 is below 1", "impossible"),
    ("4 4 10", "4 + 4 + 10 = 18\n4 * 10 - 4 = 36\n(10 - 4) * 4 = 24", "sure"),
    (
        "5 7 8",
        "5 + 7 + 8 = 20\n(8 - 5) * 7 = 21\nI cannot reach 24 now, but the numbers are of the right size",
        "likely",
    ),
    ("24", "24 = 24", "sure"),
    ("10 10 11", "10 + 10 + 11 = 31\n(11 - 10) * 10 = 10\nall that I can make is too small or too large", "impossible"),
    ("21", "21 is not 24", "impossible"),
)
DEMONSTRATIONS = tuple(
    _example(question, path)
    for question, path in (
        ("4 4 6 8", ("4 + 8 = 12 (left: 4 6 12)", "6 - 4 = 2 (left: 2 12)", "2 * 12 = 24 (left: 24)")),
        ("4 9 10 13", ("9 + 10 = 19 (left: 4 13 19)", "19 - 13 = 6 (left: 4 6)", "4 * 6 = 24 (left: 24)")),
        ("1 4 8 8", ("1 + 4 = 5 (left: 5 8 8)", "8 - 5 = 3 (left: 3 8)", "3 * 8 = 24 (left: 24)")),
        ("5 5 5 9", ("5 + 5 = 10 (left: 5 9 10)", "5 + 9 = 14 (left: 10 14)", "10 + 14 = 24 (left: 24)")),
        ("2 9 10 12", ("2 * 12 = 24 (left: 9 10 24)", "10 - 9 = 1 (left: 1 24)", "1 * 24 = 24 (left: 24)")),
    )
)


def _solve(example: Example, path: Path) -> Prompt:
    shown = [Shot(each.question, each.facts["reasoning"]) for each in DEMONSTRATIONS]
    return asked(STEPS_TEMPLATE, STEPPING, example.question, path, shown)


def _propose(example: Example, path: Path) -> Prompt:
    shown = [Shot(question, "\n".join(spelt(move) for move in moves([Fraction(each) for each in question.split()])[:8]))
             for question in ("2 8 8 14", "3 6")]  # fmt: skip
    return asked(STEPS_TEMPLATE, PROPOSING, " ".join(left(example.question, path)), (), shown)


def _value(example: Example, path: Path) -> Prompt:
    shown = [Shot(numbers, f"{thoughts}\n{word}") for numbers, thoughts, word in JUDGED]
    return asked(VALUE_TEMPLATE, VALUING, " ".join(left(example.question, path)), (), shown)


def _vote(example: Example, paths: Sequence[Path]) -> Prompt:
    return asked(VALUE_TEMPLATE, VOTING, f"{example.question}\n\n{listed(paths)}")


TASK = SteppedTask(
    "game24",
    examples,
    DEMONSTRATIONS,
    INSTRUCTION,
    extract=extract,
    grade=grade,
    steps=Steps(
        NUMBERS - 1,
        solve=_solve, propose=_propose, value=_value, vote=_vote, read=read_steps,
        finished=lambda example, path: bool(path) and len(left(example.question, path)) == 1,
        answer=lambda example, path: expression(example.question, path),
        check=lambda example, answer: grade(example, answer) == 1,
    ),
)  # fmt: skip
