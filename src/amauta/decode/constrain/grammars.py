"""From the form of an answer to the grammar that llguidance reads: a variant of Lark's notation.

Every grammar ends with ``no_forcing``: without it the library would allow only one spelling, its own, of a text that
must come, where here every token stays allowed that keeps the answer possible.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.names import one_of
from amauta.decode.constrain.settings import Constraining, Kind
from amauta.tokenize.tokenizer import utf8

TAIL = '%llguidance {"no_forcing": true}\n'  # last, so that the lines of a user's grammar keep their numbers
DIGITS = 18  # most digits of a CSV's integers, so that they fit 64 bits, and of each part of its numbers
_INTEGER = rf"-?(0|[1-9][0-9]{{0,{DIGITS - 1}}})"
_CELLS = {
    # Neither kind of cell holds control characters, but for line ends within quotes.
    "string": r'(/[^",\x00-\x1f\x7f]+/ | /"([^"\x00-\x09\x0b-\x1f\x7f]|"")*"/)',
    "integer": f"/{_INTEGER}/",
    "number": rf"/{_INTEGER}(\.[0-9]{{1,{DIGITS}}})?/",
    "boolean": '("true" | "false")',
}


def grammar_of(settings: Constraining) -> str | None:
    """The grammar of the answer, None when it is free. ConfigError or DataError for a form that cannot be read."""
    kind = settings.kind
    if kind is None:
        return None
    given = getattr(settings, kind)
    for text in [given] if isinstance(given, str) else given:
        utf8(text)  # half of a UTF-16 pair cannot be written
    return f"{_WRITERS[kind](settings)}\n{TAIL}"


def _schema(settings: Constraining) -> str:
    """The schema's keys stay in their order: it is that of the answer's."""
    given = settings.schema or ""
    text = given if given.lstrip().startswith("{") or given in ("true", "false") else _file(given, "schema")
    try:
        return f"start: %json {json.dumps(json.loads(text))}"
    except ValueError as error:
        raise ConfigError("constrain.not-json", text=_short(given), reason=error) from None


def _regex(settings: Constraining) -> str:
    from llguidance import regex_to_lark

    return f"start: /{regex_to_lark(settings.regex or '', 'd')}/"  # \\d is 0-9: a model may like another script's


def _choice(settings: Constraining) -> str:
    choices = settings.choice or ()
    if not choices or "" in choices:
        raise ConfigError("constrain.no-choice", count=len(choices))
    return f"start: CHOICE\nCHOICE: {_one_of(choices)}"


def _grammar(settings: Constraining) -> str:
    given = settings.grammar or ""
    return given if re.search(r"^\s*start\b[^:\n]*:", given, re.MULTILINE) else _file(given, "grammar")


def _csv(settings: Constraining) -> str:
    r"""RFC 4180 with \n between rows and none after the last; cells are quoted where they must be, and may be."""
    columns = _columns(settings.csv_columns or "")
    header = _literal(",".join(map(_quoted, columns)) + "\n") if settings.csv_header else '""'
    more = f'("\\n" ROW){{{settings.csv_rows - 1}}}' if settings.csv_rows > 1 else ""
    more = '("\\n" ROW)*' if settings.csv_rows == 0 else more
    row = ' "," '.join(columns.values())
    return f"start: TABLE\nTABLE: {header} ROW {more}\nROW: {row}"


def _columns(given: str) -> dict[str, str]:
    """Name -> terminal of its cells, from ``name:string,age:integer,colour:red|blue``; a bare name is a string."""
    found: dict[str, str] = {}
    for part in given.split(","):
        name, colon, kind = part.strip().rpartition(":")
        name, kind = (name.strip(), kind.strip()) if colon else (kind, "string")
        if not name or name in found:
            raise ConfigError("constrain.column-name", name=name, columns=given)
        if kind not in _CELLS and "|" not in kind:
            raise ConfigError("constrain.column-type", name=name, type=kind, allowed=one_of(kind, [*_CELLS, "a|b|c"]))
        found[name] = _CELLS.get(kind) or f"({_one_of([_quoted(cell) for cell in kind.split('|')])})"
    return found


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if not cell or re.search('[",\r\n]', cell) else cell


def _one_of(texts: tuple[str, ...] | list[str]) -> str:
    return " | ".join(_literal(text) for text in texts)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _file(name: str, kind: Kind) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # also a name that cannot be one, and what is no UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError("constrain.no-file", name=_short(name), kind=kind, reason=reason) from None


def _short(text: Any, longest: int = 80) -> str:
    text = str(text)
    return text if len(text) <= longest else text[:longest] + "…"


_WRITERS: dict[Kind, Callable[[Constraining], str]] = {
    "schema": _schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "csv_columns": _csv,
}
