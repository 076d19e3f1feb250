"""Adapters that are weights of the model itself: biases (BitFit; Ben Zaken et al. 2022, arXiv 2106.10199), norms
(Zhao et al. 2023, arXiv 2312.11420), embeddings (Artetxe et al. 2020, arXiv 1910.11856, section 2)."""

from collections.abc import Sequence

from torch import nn

from amauta.adapt.settings import EMBEDDINGS, HELD, Kind
from amauta.base.errors import ConfigError
from amauta.models.adapters.parts import base_weights
from amauta.models.transformer import Transformer
from amauta.nn.norms import LayerNorm, RMSNorm

STACKS = ("encoder.", "decoder.")


def chosen(model: Transformer, kinds: Sequence[Kind], also: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """The model's own weights that these kinds train: every bias of its stacks, every norm of them, every table of
    embeddings; and those whose names begin like one of ``also``.

    ConfigError for a kind that the model has nothing of, with the kinds that it has something of.
    """
    weights = base_weights(model)
    norms = {id(p) for part in model.modules() if isinstance(part, RMSNorm | LayerNorm) for p in part.parameters()}
    groups: dict[str, dict[str, nn.Parameter]] = {
        "bitfit": {n: p for n, p in weights.items() if n.startswith(STACKS) and n.endswith(".bias")},
        "norms": {n: p for n, p in weights.items() if n.startswith(STACKS) and id(p) in norms},
        "embeddings": {n: p for n, p in weights.items() if n.startswith(EMBEDDINGS) and n not in HELD},
    }
    for kind in kinds:
        if not groups[kind]:
            there = ", ".join(name for name, group in groups.items() if group)
            raise ConfigError("adapters.nothing-to-train", kind=kind, there=there)
    wanted = set().union(*(groups[kind] for kind in kinds))
    return {n: p for n, p in weights.items() if n in wanted or n.startswith(also)}
