"""Mistral's layout: Llama's with a window on every layer (Jiang et al. 2023, arXiv 2310.06825, section 2)."""

from collections.abc import Collection, Sequence
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.exchange import llama
from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "mistral"
FULL, WINDOWED = "full_attention", "sliding_attention"
layout = llama.layout


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not llama.expresses(spec) or spec.qk_norm or spec.bias or spec.biased_qkv:
        return None
    if spec.window is not None and (spec.full_every is not None or spec.local_theta is not None):
        return None
    return llama.shared_config(spec, "Mistral") | {"sliding_window": spec.window}


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"layer_types": (None,), "attention_bias": (False,), "mlp_bias": (False,)})
    given = {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096} | config
    return llama.shared_spec(given, names, bias=False, window=given["sliding_window"])


def layer_types(spec: Spec) -> list[str]:
    """Which layers have a window, as newer configs list them."""
    return [WINDOWED if spec.windowed(layer) else FULL for layer in range(spec.layers)]


def windows(types: Sequence[str], window: int | None) -> dict[str, int | None]:
    """``window`` and ``full_every`` for layers of these types; ModelError where the full ones come at no even step."""
    if window is None or all(one == FULL for one in types):
        return {"window": None, "full_every": None}
    first = types.index(FULL) + 1 if FULL in types else None
    even = [FULL if first and (layer + 1) % first == 0 else WINDOWED for layer in range(len(types))]
    if list(types) != even:
        allowed = f"{FULL} in every n-th layer, {WINDOWED} in the others"
        raise ModelError("exchange.unsupported-option", name="layer_types", value=list(types), allowed=allowed)
    return {"window": window, "full_every": first}
