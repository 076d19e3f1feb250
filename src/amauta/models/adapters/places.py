"""Where an adapter can stand: the linear layers of a model, each with what it makes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from amauta.adapt.around import Around, Rows
from amauta.base.errors import ConfigError
from amauta.models.transformer import Transformer
from amauta.nn.attention import Attention, CrossAttention
from amauta.nn.feedforward import FeedForward
from amauta.nn.local import LocalAttention
from amauta.nn.lsh import LSHAttention
from amauta.nn.quantized import Quantized, QuantizedEmbedding

ATTENTION, FEEDFORWARD = ("q", "k", "v", "o"), ("gate", "up", "down")
GROUPS = {"attention": ATTENTION, "feedforward": FEEDFORWARD, "all": ATTENTION + FEEDFORWARD}
PACKED = ("qkv", "kv", "gate_up")  # whole matrices that hold several; "qkv" names the second too, a decoder's k|v


@dataclass(frozen=True)
class Place:
    """A linear layer, or some rows of one. ``name`` is what a regular expression is compared with:
    ``decoder.blocks.0.attention.q``; ``path`` is the layer's in the model: ``decoder.blocks.0.attention.qkv``."""

    path: str
    role: str  # q k v o gate up down qkv kv gate_up; "" for layers that stand outside the blocks
    rows: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.path.rpartition('.')[0]}.{self.role}" if self.role else self.path


def places(model: Transformer) -> list[Place]:
    """All places of a model, a matrix that holds several after its parts."""
    found = [place for path, part in model.named_modules() for place in _of(path, part)]
    taken = {place.path for place in found}
    for path, part in model.named_modules():
        linear = isinstance(part, nn.Linear | Quantized | Around) and not isinstance(part, QuantizedEmbedding)
        if linear and path not in taken and not path.endswith((".linear", ".table")):
            found.append(Place(path, "", (0, part.out_features)))  # type: ignore[arg-type]
    return found


def _of(path: str, part: nn.Module) -> Iterator[Place]:
    if isinstance(part, Attention | LocalAttention | LSHAttention):
        sizes = part.split_sizes()
        yield from _parts(f"{path}.qkv", "qkv" if len(sizes) == 3 else "qv", sizes, whole="qkv")
        yield _whole(f"{path}.out", "o", part.out)
    elif isinstance(part, CrossAttention):
        yield _whole(f"{path}.q", "q", part.q)
        yield from _parts(f"{path}.kv", "kv", (part.kv.out_features // 2,) * 2, whole="kv")
        yield _whole(f"{path}.out", "o", part.out)
    elif isinstance(part, FeedForward):
        if part.gated:
            halves = (part.up.out_features // 2,) * 2
            yield from _parts(f"{path}.up", ("gate", "up"), halves, whole="gate_up")
        else:
            yield _whole(f"{path}.up", "up", part.up)
        yield _whole(f"{path}.down", "down", part.down)


def _whole(path: str, role: str, layer: nn.Module) -> Place:
    return Place(path, role, (0, layer.out_features))  # type: ignore[arg-type]


def _parts(path: str, roles: Sequence[str], sizes: Sequence[int], *, whole: str) -> Iterator[Place]:
    at = 0
    for role, size in zip(roles, sizes, strict=True):
        yield Place(path, role, (at, at + size))
        at += size
    yield Place(path, whole, (0, at))


def targeted(
    model: Transformer, targets: Sequence[str], *, everything: Sequence[str] = GROUPS["all"]
) -> dict[str, Rows]:
    """The rows of each layer that ``targets`` name: roles, groups of roles ("all" is ``everything``), or regular
    expressions, found anywhere in the name of a place.

    Of a matrix that holds several, a target that fits any of its parts means those parts; "qkv" and an expression that
    fits its own name alone mean it whole. ConfigError for a target that fits nothing, with what there is.
    """
    all_places = places(model)
    chosen: dict[Place, None] = {}
    for target in targets:
        fitting = [place for place in all_places if _fits(place, target, everything)]
        if not fitting:
            raise ConfigError("adapters.no-target", target=target, roles=", ".join(_roles(all_places)),
                              groups=", ".join(GROUPS), names=_sample(all_places))  # fmt: skip
        parts = {place.path for place in fitting if place.role not in PACKED}
        chosen |= dict.fromkeys(place for place in fitting if place.role not in PACKED or place.path not in parts)
    rows: dict[str, set[tuple[int, int]]] = {}
    for place in chosen:
        rows.setdefault(place.path, set()).add(place.rows)
    return {place.path: _apart(rows.pop(place.path)) for place in all_places if place.path in rows}


def _fits(place: Place, target: str, everything: Sequence[str]) -> bool:
    if target == "all":
        return place.role in everything
    if target in GROUPS:
        return place.role in GROUPS[target]
    if target in GROUPS["all"] or target in PACKED:
        return place.role == target or (target == "qkv" and place.role == "kv")
    try:
        return re.search(target, place.name) is not None
    except re.error as error:
        raise ConfigError("adapters.bad-expression", target=target, reason=error) from None


def _apart(rows: set[tuple[int, int]]) -> Rows:
    """Rows in order, without those that a larger part holds already."""
    return tuple(sorted(one for one in rows if not any(a <= one[0] and one[1] <= b and (a, b) != one for a, b in rows)))


def _roles(all_places: Sequence[Place]) -> list[str]:
    return list(dict.fromkeys(place.role for place in all_places if place.role))


def _sample(all_places: Sequence[Place]) -> str:
    """The names of the first block's places, and of those outside."""
    names = [place.name for place in all_places]
    return ", ".join(name for name in names if ".blocks." not in name or ".blocks.0." in name)
