"""The answer in a text that a model wrote, and whether it is the right one."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

_DIGITS = r"\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\$?\.\d+"
_NUMBER = re.compile(rf"[-+−]?(?:{_DIGITS})")
_SUM = rf"(?:[-+−]?(?:{_DIGITS})\s*[-+−*/×÷]\s*)+(?:{_DIGITS})\s*="  # "84 + 146 =": what follows is the answer
_SAID_NUMBER = re.compile(rf"answer is[:=*\s]*(?:{_SUM}\s*)?([-+−]?(?:{_DIGITS}))", re.IGNORECASE)
_SAID = re.compile(r"answer is\b[:*\s]*([^\n]*)", re.IGNORECASE)
_OPERAND = re.compile(r"[\d)%]\s*$|\w$")  # a hyphen after one is a minus between two numbers, not a sign
_STRIPPED = "$, %"


def number_in(text: str) -> str | None:
    """The number of the last "answer is 9", else the last number of the text; None without one.

    ``$ , %`` and a trailing period are no part of it: "The answer is $1,234.50." gives "1234.50", "The answer is
    84 + 146 = 230." gives 230, and "23-20" ends with 20.
    """
    said = _SAID_NUMBER.findall(text)
    if said:
        return _bare(said[-1])
    last: str | None = None
    for match in _NUMBER.finditer(text):
        minus = match[0][0] in "-+−" and _OPERAND.search(text, 0, match.start())
        last = _bare(match[0][1:] if minus else match[0])
    return last


def _bare(number: str) -> str:
    """Without signs of money, commas and plus; a typographic minus is a minus."""
    return "".join(one for one in number.replace("−", "-") if one not in _STRIPPED + "+")


def decimal(text: str | None) -> Decimal | None:
    """A number as it stands, exactly; None for what is none."""
    try:
        value = None if text is None else Decimal("".join(one for one in text if one not in _STRIPPED).rstrip("."))
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def same_number(answer: str | None, right: str) -> bool:
    """Whether two numbers are equal as decimals: 9, 9.0 and $9 are; None is equal to nothing."""
    one, other = decimal(answer), decimal(right)
    return one is not None and one == other


def label_in(labels: Sequence[str]) -> Callable[[str], str | None]:
    """A function that finds the label after the last "answer is", else the one that a text begins with, else the only
    one that stands in it; None where there is none, or more than one. Case does not count; whole words do."""
    listed = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{listed})(?!\w)", re.IGNORECASE)
    spelt = {label.lower(): label for label in labels}

    def find(text: str) -> str | None:
        said = _SAID.findall(text)
        if said and (match := pattern.search(said[-1])):
            return spelt[match[0].lower()]
        if match := pattern.match(text.strip()):
            return spelt[match[0].lower()]
        seen = {match.lower() for match in pattern.findall(text)}
        return spelt[seen.pop()] if len(seen) == 1 else None

    return find


def words_in(text: str) -> str | None:
    """What stands after the last "answer is" on its line, else the first line that is not blank; None for no text."""
    said = _SAID.findall(text)
    lines = [line.strip() for line in ([said[-1]] if said else text.splitlines()) if line.strip()]
    return lines[0].rstrip(".") if lines and lines[0].rstrip(".") else None
