"""Qwen3's layout: Llama's with an RMSNorm on the heads of q and k."""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange import llama
from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "qwen3"
layout = llama.layout


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not llama.expresses(spec) or not spec.qk_norm or spec.bias or spec.biased_qkv or spec.window:
        return None
    return llama.shared_config(spec, "Qwen3")


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"attention_bias": (False,), "use_sliding_window": (False, None)})
    return llama.shared_spec({"head_dim": 128} | config, names, bias=False, qk_norm=True)
