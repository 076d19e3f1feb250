"""What an answer must look like: a field a way of saying it, of which a request may use one. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc

from amauta.base.errors import ConfigError

Kind = Literal["schema", "regex", "choice", "grammar", "csv_columns"]
KINDS: tuple[Kind, ...] = ("schema", "regex", "choice", "grammar", "csv_columns")


@dataclass(frozen=True)
class Constraining:
    """The form of one request's answer; without any of these fields it is free.

    Raises ConfigError when more than one form is given, or a detail of a form that is not.
    """

    schema: Annotated[str | None, Doc("the answer is JSON of this schema: a file, or the schema itself")] = None
    regex: Annotated[str | None, Doc("the whole answer matches this regular expression")] = None
    choice: Annotated[tuple[str, ...] | None, Doc("the answer is one of these texts; may be given several times")] = (
        None
    )
    grammar: Annotated[
        str | None, Doc("the answer follows this grammar in Lark's notation: a file, or the grammar itself")
    ] = None
    csv_columns: Annotated[
        str | None,
        Doc("the answer is CSV with these columns, name:type,…; types are string, integer, number, boolean, or a|b|c"),
    ] = None
    csv_rows: Annotated[int, Ge(0), Doc("rows of the CSV below its header; 0: as many as the model likes")] = 0
    csv_header: Annotated[bool, Doc("the CSV begins with the names of its columns")] = True

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) > 1:
            raise ConfigError("constrain.several", names=", ".join(given))
        if self.csv_columns is None and (self.csv_rows or not self.csv_header):
            raise ConfigError("constrain.no-columns", name="csv_rows" if self.csv_rows else "csv_header")

    @property
    def kind(self) -> Kind | None:
        """The field that holds the form; None when the answer is free."""
        return next((kind for kind in KINDS if getattr(self, kind) is not None), None)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file could hold them, from what Python may give: a schema as a dict or a bool, a single choice."""
    import json

    found = dict(values)
    if isinstance(found.get("schema"), Mapping | bool):
        found["schema"] = json.dumps(found["schema"])
    if isinstance(found.get("choice"), str):
        found["choice"] = (found["choice"],)
    return found
