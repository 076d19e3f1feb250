"""One catalogue for everything that the package says to its user, in English and in Spanish.

A file a subject (``data.toml``, ``train.toml`` …); a table a message; both languages side by side in it. The key of a
message is ``subject.name``, and ``{blanks}`` are filled by keyword.
"""

import os
import tomllib
from functools import cache
from importlib import resources

LANGUAGES = ("en", "es")


def language() -> str:
    """``AMAUTA_LANG`` if it is set, else the locale's language if we speak it, else English."""
    for variable in ("AMAUTA_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return value[:2].lower() if value[:2].lower() in LANGUAGES else "en"
    return "en"


@cache
def subject(name: str) -> dict[str, dict[str, str]]:
    """All messages of one subject: ``{message: {language: text}}``."""
    return tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def say(key: str, /, **fields: object) -> str:
    """The message ``key`` in the user's language, its blanks filled with ``fields``."""
    area, _, name = key.partition(".")
    return subject(area)[name][language()].format(**fields)
