"""Llama's layout: rotary, RMSNorm, gated feed-forward (SmolLM2, Llama 2 and 3 without rope scaling, TinyLlama)."""

from typing import Any

import torch
from torch import Tensor

from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "llama"
ACTIVATION = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
BLOCK = {  # ours: theirs, below blocks.{i} and model.layers.{i}
    "attention_norm": "input_layernorm",
    "feedforward_norm": "post_attention_layernorm",
    "attention.out": "self_attn.o_proj",
    "feedforward.down": "mlp.down_proj",
}
PACKED = {  # our packed matrix: theirs, in the order of the rows
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "feedforward.up": ("mlp.gate_proj", "mlp.up_proj"),
}


def expresses(spec: Spec) -> bool:
    """Whether this layout can hold the spec, q/k norms aside."""
    return spec.positions == "rotary" and spec.norm == "rms" and spec.gated


def to_config(spec: Spec) -> dict[str, Any] | None:
    return shared_config(spec, "LlamaForCausalLM") if expresses(spec) and not spec.qk_norm else None


def shared_config(spec: Spec, architecture: str) -> dict[str, Any]:
    """What the configs of Llama and its relatives have in common."""
    return {
        "architectures": [architecture],
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.context,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.groups,
        "head_dim": spec.head,
        "intermediate_size": spec.inner,
        "hidden_act": ACTIVATION[spec.activation],
        "attention_bias": spec.bias,
        "mlp_bias": spec.bias,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "tie_word_embeddings": spec.tied,
        "initializer_range": spec.init_std,
        "attention_dropout": 0.0,
    }


def to_spec(config: dict[str, Any]) -> Spec:
    refuse(config, {"mlp_bias": (config.get("attention_bias", False),)})
    return shared_spec(config, bias=config.get("attention_bias", False), qk_norm=False)


def shared_spec(config: dict[str, Any], *, bias: bool, qk_norm: bool) -> Spec:
    """The spec of Llama or a relative."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    refuse({"rope_type": rope.get("rope_type", rope.get("type", "default"))}, {"rope_type": ("default",)})
    refuse(config, {"pretraining_tp": (1,), "attention_dropout": (0, 0.0, None)})
    refuse(config, {"hidden_act": (*ACTIVATION.values(), "gelu_new"), "use_sliding_window": (False, None)})
    ours = {theirs: ours for ours, theirs in ACTIVATION.items()} | {"gelu_new": "gelu_tanh"}
    return Spec(
        vocabulary=config["vocab_size"],
        context=config.get("max_position_embeddings", 2048),
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads"),
        head_width=config.get("head_dim"),
        feedforward=config["intermediate_size"],
        activation=ours[config.get("hidden_act", "silu")],
        bias=bias,
        qk_norm=qk_norm,
        tied=config.get("tie_word_embeddings", False),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        init_std=config.get("initializer_range", 0.02),
    )


def row_counts(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Rows of each matrix inside our packed ones."""
    kv = spec.groups * spec.head
    return {"attention.qkv": (spec.heads * spec.head, kv, kv), "feedforward.up": (spec.inner, spec.inner)}


def to_theirs(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs = {"model.embed_tokens.weight": tensors["embedding.weight"], "model.norm.weight": tensors["norm.weight"]}
    if not spec.tied:
        theirs["lm_head.weight"] = tensors["head.weight"]
    for name, value in tensors.items():
        if not name.startswith("blocks."):
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        below = f"model.layers.{layer}"
        if part in PACKED:
            pieces = value.split(row_counts(spec)[part])
            theirs |= {f"{below}.{to}.{kind}": piece for to, piece in zip(PACKED[part], pieces, strict=True)}
        elif part in BLOCK:
            theirs[f"{below}.{BLOCK[part]}.{kind}"] = value
        else:  # attention.q_norm and attention.k_norm
            theirs[f"{below}.self_attn.{part.removeprefix('attention.')}.{kind}"] = value
    return theirs


def to_ours(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    ours = {"embedding.weight": tensors.pop("embed_tokens.weight"), "norm.weight": tensors.pop("norm.weight")}
    head = tensors.pop("lm_head.weight", None)
    if not spec.tied and head is not None:
        ours["head.weight"] = head
    kinds = ("weight", "bias") if spec.bias else ("weight",)
    for layer in range(spec.layers):
        below, block = f"layers.{layer}", f"blocks.{layer}"
        for part, froms in PACKED.items():
            for kind in kinds:
                ours[f"{block}.{part}.{kind}"] = torch.cat([tensors.pop(f"{below}.{name}.{kind}") for name in froms])
        for name in [name for name in tensors if name.startswith(below + ".")]:
            part, kind = name.removeprefix(below + ".").rsplit(".", 1)
            if part.endswith("rotary_emb"):
                tensors.pop(name)
                continue
            to = {theirs: ours for ours, theirs in BLOCK.items()}.get(part, part.replace("self_attn.", "attention."))
            ours[f"{block}.{to}.{kind}"] = tensors.pop(name)
    return ours | tensors  # what is left is named in the error
