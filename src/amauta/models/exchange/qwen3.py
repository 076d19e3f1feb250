"""Qwen3's layout: Llama's with an RMSNorm on the heads of q and k."""

from typing import Any

from amauta.models.exchange import llama
from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "qwen3"
to_theirs = llama.to_theirs
to_ours = llama.to_ours


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not llama.expresses(spec) or not spec.qk_norm or spec.bias:
        return None
    return llama.shared_config(spec, "Qwen3ForCausalLM")


def to_spec(config: dict[str, Any]) -> Spec:
    refuse(config, {"attention_bias": (False,)})
    return llama.shared_spec({"head_dim": 128} | config, bias=False, qk_norm=True)
