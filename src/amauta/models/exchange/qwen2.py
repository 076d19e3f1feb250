"""Qwen2's layout: Llama's with biases on q, k and v alone (Yang et al. 2024, arXiv 2407.10671, section 2.2.1)."""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange import llama
from amauta.models.exchange.mistral import FULL, WINDOWED, layer_types, windows
from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "qwen2"
layout = llama.layout


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not llama.expresses(spec) or spec.qk_norm or spec.bias or not spec.biased_qkv:
        return None
    if spec.window is not None and spec.local_theta is not None:
        return None
    config = llama.shared_config(spec, "Qwen2") | {"use_sliding_window": spec.window is not None}
    if spec.window is not None:
        config |= {"sliding_window": spec.window, "layer_types": layer_types(spec), "max_window_layers": 0}
    return config


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"attention_bias": (False,), "mlp_bias": (False,)})
    head = config["hidden_size"] // config["num_attention_heads"]
    given = {"num_key_value_heads": 32, "max_position_embeddings": 32_768, "head_dim": head} | config
    fields: dict[str, Any] = {}
    if config.get("use_sliding_window", False):
        layers, first = config["num_hidden_layers"], config.get("max_window_layers", 28)
        types = config.get("layer_types") or [WINDOWED if layer >= first else FULL for layer in range(layers)]
        fields = windows(types, config.get("sliding_window", 4096))
    return llama.shared_spec(given, names, bias=False, qkv_bias=True, **fields)
