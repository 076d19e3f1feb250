"""How a family's tensors map to ours: a table of names that is read in both directions.

A family lists its entries once; reading and writing follow from them. An entry says which of their tensors make one of
ours, and in what form; what the table does not name is missing or extra, and is named in an error.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One tensor of ours and what it is made of."""

    ours: str
    theirs: tuple[str, ...]  # several stand one above another in ours
    rows: tuple[int, ...] = ()  # the rows of each of several
    turned: bool = False  # theirs is (in, out), as GPT-2's Conv1D keeps it
    shift: float = 0.0  # ours = theirs + shift (Gemma keeps the gain of a norm less 1)
    shape: tuple[int, ...] | None = None  # theirs, where it is not ours
    optional: bool = False  # theirs may be absent: then ours is 0


@dataclass(frozen=True)
class Layout:
    """All entries of a model, and what else its files may hold."""

    entries: tuple[Entry, ...]
    prefix: str = ""  # before the names of the base model inside a model with a head; read with and without it
    aliases: tuple[tuple[str, str], ...] = ()  # (regular expression, replacement) for names of older files
    ignored: tuple[str, ...] = ()  # regular expressions of names that carry nothing of their own


def both(ours: str, theirs: str | tuple[str, ...], *, bias: bool = True, **form: Any) -> list[Entry]:
    """The weight, and the bias where there is one, of one layer; names without their last part."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    kinds = ("weight", "bias") if bias else ("weight",)
    return [
        Entry(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in names), **form | ({} if kind == "weight" else
              {"turned": False}))
        for kind in kinds
    ]  # fmt: skip


def to_theirs(layout: Layout, tensors: "Mapping[str, Tensor]", *, bare: bool = False) -> "dict[str, Tensor]":
    """Our tensors under their names; ``bare`` leaves the prefix out, as files of a base model do."""
    theirs: dict[str, Tensor] = {}
    written: set[str] = set()
    for entry in layout.entries:
        value = tensors[entry.ours]
        pieces = value.split(entry.rows) if entry.rows else (value,)
        for name, piece in zip(entry.theirs, pieces, strict=True):
            name = name.removeprefix(layout.prefix) if bare else name
            piece = piece - entry.shift if entry.shift else piece
            piece = piece.T if entry.turned else piece
            piece = piece if entry.shape is None else piece.reshape(entry.shape)
            theirs[name] = piece.clone() if entry.ours in written else piece  # no two names of a file share memory
        written.add(entry.ours)
    return theirs


@dataclass(frozen=True)
class Found:
    """What their tensors gave: ours, and the names of those that are missing, of those that nothing asked for, and of
    copies of the embedding table that are none."""

    tensors: "dict[str, Tensor]"
    missing: list[str]
    extra: list[str]
    unequal: list[str]


def to_ours(
    layout: Layout, names: Iterable[str], read: "Callable[[str], Tensor]", *, wanted: "Mapping[str, torch.Size]"
) -> Found:
    """Our tensors, made of those that ``read`` gives by their names in the file.

    ``wanted`` holds the shapes of ours, for what is optional and absent.
    """
    import torch

    held = {_aliased(layout, name): name for name in names}
    tensors: dict[str, Tensor] = {}
    missing: list[str] = []
    for entry in layout.entries:
        spellings = [_spelling(layout, name, held) for name in entry.theirs]
        absent = [name for name, spelt in zip(entry.theirs, spellings, strict=True) if spelt is None]
        if absent and entry.optional and len(absent) == len(spellings):
            tensors[entry.ours] = torch.zeros(wanted[entry.ours])
        elif absent:
            missing += absent
        else:
            pieces = [_formed(entry, read(held.pop(spelt))) for spelt in spellings if spelt is not None]
            tensors[entry.ours] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    carried = {name for alias, name in held.items() if _is_ignored(layout, alias)}
    table = tensors.get("embedding.weight")
    copies = [name for name in carried if name.endswith("weight")]  # the rest are masks and the like
    unequal = [name for name in copies if table is not None and _is_another(read(name), table)]
    extra = [name for name in held.values() if name not in carried]
    return Found(tensors, missing, extra, unequal)


def _formed(entry: Entry, value: "Tensor") -> "Tensor":
    value = value.reshape(-1) if entry.shape is not None and value.dim() != 1 else value
    value = value.T.contiguous() if entry.turned else value  # in memory as a matrix that is made here
    return value + entry.shift if entry.shift else value


def _aliased(layout: Layout, name: str) -> str:
    for pattern, replacement in layout.aliases:
        name = re.sub(pattern, replacement, name)
    return name


def _spelling(layout: Layout, name: str, held: Mapping[str, str]) -> str | None:
    """The name as the file has it: as it is, without the prefix, or with it."""
    spellings = (name, name.removeprefix(layout.prefix), layout.prefix + name)
    return next((spelt for spelt in spellings if spelt in held), None)


def _is_ignored(layout: Layout, name: str) -> bool:
    bare = name.removeprefix(layout.prefix)
    return any(re.fullmatch(pattern, spelt) for pattern in layout.ignored for spelt in (name, bare))


def _is_another(value: "Tensor", table: "Tensor") -> bool:
    """Whether a tensor that should be a copy of the embedding table is a table of its own."""
    return value.shape == table.shape and not bool((value == table).all())
