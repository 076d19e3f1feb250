"""Names that were mistyped: find the one that was meant."""

from collections.abc import Iterable
from difflib import get_close_matches

from amauta.base.messages import say


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name`` (case and dashes aside), or None when nothing is close."""
    plain = {_plain(k): k for k in known}
    found = get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence for the end of an error: the nearest name, or all that are allowed."""
    known = sorted(known)
    close = nearest(name, known)
    if close is not None:
        return say("base.did-you-mean", name=close)
    return say("base.allowed", names=", ".join(known)) if known else ""


def one_of(name: str, choices: Iterable[str]) -> str:
    """A sentence for a value that is none of a few: all of them in their order, and the nearest."""
    choices = list(choices)
    close = nearest(name, choices)
    listed = say("base.allowed", names=", ".join(choices))
    return f"{listed} {say('base.did-you-mean', name=close)}" if close else listed


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
