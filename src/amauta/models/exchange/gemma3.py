"""Gemma 3's layout, text alone (Gemma Team 2025, arXiv 2503.19786, section 2): norms before and after each part, norms
on the heads of q and k, five layers with a window to one without, and rotary frequencies of their own for each kind.

The files keep the gain of a norm less 1.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.exchange import llama
from amauta.models.exchange.layout import Entry, Layout
from amauta.models.exchange.mistral import FULL, WINDOWED, layer_types, windows
from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "gemma3_text"
ALIASES = ("gemma3",)  # with a vision tower: known in order to say what to do with it
BASE = "Gemma3Text"  # before the architectures other than Gemma3ForCausalLM
NORMS = {
    "attention_norm": "input_layernorm",
    "attention_after": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_after": "post_feedforward_layernorm",
}


def expresses(spec: Spec) -> bool:
    """Whether the layout can hold the spec: Llama's conditions but for what is Gemma's own."""
    own = spec.norm_place == "both" and spec.qk_norm and not spec.bias and not spec.biased_qkv
    scales = spec.embedding_scale == spec.width**0.5 and _queries(spec) ** -0.5 == spec.scale
    local = spec.window is None or spec.local_theta is not None
    plain = replace(spec, norm_place="pre", embedding_scale=1.0, attention_scale=None)
    return own and scales and local and llama.expresses(plain)


def _queries(spec: Spec) -> int:
    """``query_pre_attn_scalar``: the width whose root the products of queries and keys are divided by."""
    return max(1, round(spec.scale**-2))


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not expresses(spec):
        return None
    config = llama.shared_config(spec, "Gemma3" if spec.outputs == ("language",) else BASE)
    activation = config.pop("hidden_act")
    rope = config.pop("rope_parameters")
    for name in ("rope_theta", "rope_scaling", "mlp_bias"):
        config.pop(name, None)
    local = {"rope_type": "default", "rope_theta": spec.local_theta or 10_000.0}
    return config | {
        "hidden_activation": activation,
        "query_pre_attn_scalar": _queries(spec),
        "sliding_window": spec.window,
        "layer_types": layer_types(spec),
        "rope_parameters": {FULL: rope, WINDOWED: local},
        # the same, as older versions read it
        "rope_theta": spec.rope_theta,
        "rope_local_base_freq": local["rope_theta"],
        "rope_scaling": {key: value for key, value in rope.items() if key != "rope_theta"} if len(rope) > 2 else None,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    if "text_config" in config or config.get("model_type") in ALIASES:
        raise ModelError("exchange.text-and-images", model_type=config.get("model_type"))
    refuse(config, {"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,), "attention_bias": (False,),
                    "use_bidirectional_attention": (False, None), "hidden_act": (None,),
                    "hidden_activation": (*llama.ACTIVATION.values(), "gelu_new")})  # fmt: skip
    rope = config.get("rope_parameters") or {}
    whole, local = rope.get(FULL) or config.get("rope_scaling") or {}, rope.get(WINDOWED) or {}
    refuse({f"rope_parameters.{WINDOWED}.rope_type": local.get("rope_type", "default")},
           {f"rope_parameters.{WINDOWED}.rope_type": ("default",)})  # fmt: skip
    defaults = {"head_dim": 256, "num_key_value_heads": 4, "max_position_embeddings": 131_072, "rope_theta": 1e6,
                "tie_word_embeddings": True}  # fmt: skip
    given = defaults | config | {"hidden_act": config.get("hidden_activation", "gelu_pytorch_tanh"),
                                 "rope_parameters": whole}  # fmt: skip
    fields = windows(_types(config), config.get("sliding_window", 4096))
    theta = local.get("rope_theta") or config.get("rope_local_base_freq", 10_000.0)
    return llama.shared_spec(
        given,
        names,
        bias=False,
        qk_norm=True,
        norm_place="both",
        embedding_scale=config["hidden_size"] ** 0.5,
        attention_scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
        local_theta=theta if fields["window"] else None,
        **fields,
    )


def _types(config: dict[str, Any]) -> list[str]:
    """The kind of each layer; older configs give only the step at which full ones come."""
    step = config.get("sliding_window_pattern", 6)
    layers = config["num_hidden_layers"]
    return config.get("layer_types") or [FULL if (layer + 1) % step == 0 else WINDOWED for layer in range(layers)]


def layout(spec: Spec) -> Layout:
    plain = llama.layout(spec)
    entries = [entry for entry in plain.entries if not entry.ours.endswith("norm.weight")]
    entries.append(Entry("decoder.norm.weight", ("model.norm.weight",), shift=1.0))
    for i in range(spec.layers):
        ours, theirs = f"decoder.blocks.{i}", f"model.layers.{i}"
        entries += [_gain(f"{ours}.{name}", f"{theirs}.{norm}") for name, norm in NORMS.items()]
        entries += [_gain(f"{ours}.attention.{x}_norm", f"{theirs}.self_attn.{x}_norm") for x in "qk"]
    return replace(plain, entries=tuple(entries))


def _gain(ours: str, theirs: str) -> Entry:
    return Entry(f"{ours}.weight", (f"{theirs}.weight",), shift=1.0)
