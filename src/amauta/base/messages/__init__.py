"""One catalogue for everything that the package says to its user, in English and in Spanish.

A file a subject (``data.toml``, ``train.toml`` …); a table a message; both languages side by side in it. The key of a
message is ``subject.name``, and ``{blanks}`` are filled by keyword.

Help is another matter: its English stands in the code (a field's Doc, a command's docstring), and ``help.toml`` holds
the translations alone, each with a hash ``of`` the English that it was made from (tests/rules/test_help.py).
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


@cache
def translations() -> dict[str, dict[str, dict[str, str]]]:
    """``help.toml``: ``{owner: {name: {language: text, "of": hash of the English}}}``."""
    return tomllib.loads(resources.files(__name__).joinpath("help.toml").read_text(encoding="utf-8"))


def translated(owner: str, name: str, english: str) -> str:
    """A text of help in the user's language; the English itself where it has no translation.

    ``owner`` and ``name`` are a settings class and its field, or ``files``, ``commands`` or ``sections`` and a name.
    """
    spoken = language()
    if spoken == "en":
        return english
    return translations().get(owner, {}).get(name, {}).get(spoken, english)


def say(key: str, /, **fields: object) -> str:
    """The message ``key`` in the user's language, its blanks filled with ``fields``."""
    area, _, name = key.partition(".")
    return subject(area)[name][language()].format(**fields)
