"""What every report is made with: speaking one language, pages that ask for nothing from outside, pictures whose bytes
follow from what they show."""

import base64
import hashlib
import io
import json
import math
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from amauta.base.messages import subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = ("svg", "png", "pdf")


class Speech:
    """Messages and numbers in one language, whatever the user's own is."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, /, **fields: object) -> str:
        area, _, name = key.partition(".")
        return subject(area)[name][self.language].format(**fields)

    def number(self, value: float, decimals: int = 3) -> str:
        """1,234.500 in English, 1 234,500 in Spanish (a thin space, as the RAE writes it)."""
        if not math.isfinite(value):
            return "−∞" if value < 0 else "∞"
        text = f"{value:,.{decimals}f}".replace("-", "−")
        return text if self.language == "en" else text.translate({ord(","): "\u202f", ord("."): ","})

    def figure(self, value: float) -> str:
        """With as many decimals as it takes, three at most."""
        whole = float(value).is_integer()
        return self.number(value, 0 if whole else 3)

    def share(self, p: float) -> str:
        """36.5% in English, 36,5 % in Spanish; what is above 0 never reads as 0."""
        mark = "%" if self.language == "en" else "\u00a0%"
        return ("<" + self.number(0.1, 1) if 0 < p < 0.0005 else self.number(100 * p, 1)) + mark


@cache
def asset(package: str, name: str) -> str:
    """The text of a file that lies beside the modules of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


@cache
def template(package: str, name: str = "page.html") -> Any:
    """A package's page, to be rendered. Whatever a model or a user wrote is text in it, never markup."""
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(asset(package, name))


def markup(ready: str) -> Any:
    """What goes into a page as it is: our own files, and what was escaped before."""
    from markupsafe import Markup

    return Markup(ready)


def script_hash(script: str) -> str:
    """By which a page's policy allows this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def harmless(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def look(salt: str) -> dict[Any, Any]:
    """How pictures look; ``salt`` is a name, from which the ids inside an SVG follow."""
    return {
        "svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "DejaVu Sans", "font.size": 9.0,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    }  # fmt: skip


def picture_bytes(figure: "Figure", kind: str = "svg") -> bytes:
    """A figure as a file of one of ``PICTURES``; equal figures give equal bytes."""
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return data.getvalue()


def inline(svg: bytes) -> Any:
    """The ``<svg>`` element of a picture, to stand in a page; matplotlib escapes the texts in it."""
    text = svg.decode()
    return markup(text[text.index("<svg") :])
