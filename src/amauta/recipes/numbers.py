"""Figures as a person reads them, in the user's language and with their unit."""

import math

from amauta.base.messages import language, say


def figure(value: float | None, unit: str = "number") -> str:
    """``value`` in a unit of a recipe's ``shows`` (``share`` as per cent), with the marks of the user's language."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{grouped(100 * value, 1)} %"
    if unit == "count":
        return grouped(value, 0)
    if unit in ("bits/byte", "nats"):
        return grouped(value, 3)
    return short(value)


def grouped(value: float, decimals: int) -> str:
    """A number with thousands apart: 1,234.5 in English; 1 234,5 in Spanish (a thin space, as the RAE writes it)."""
    return _marks(f"{value:,.{decimals}f}")


def short(value: float) -> str:
    """A number of any size in about four digits; whole numbers whole."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return grouped(value, 0)
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        return grouped(value, max(0, 3 - size))
    return _marks(f"{value:.3e}")


def tick(value: float) -> str:
    """The value of a tick of an axis: as few digits as it takes."""
    return _marks(f"{value:,.6f}".rstrip("0").rstrip(".") if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:g}")


def duration(seconds: float) -> str:
    """A time: ``8.4 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if round(seconds, 1) < 60:
        return f"{grouped(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def size(count: float) -> str:
    """A number of bytes in the decimal units of disks."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{grouped(count, 0 if unit == 'B' else 1)} {unit}"
        count /= 1000
    return f"{grouped(count, 1)} GB"


def truth(value: bool) -> str:
    """Yes or no."""
    return say("recipes.yes") if value else say("recipes.no")


def _marks(english: str) -> str:
    if language() != "es":
        return english
    return english.translate(str.maketrans({",": "\u202f", ".": ","}))
