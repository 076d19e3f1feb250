"""GPT-2's layout: learned positions, LayerNorm, biases; its Conv1D keeps matrices as (in, out)."""

from typing import Any

from torch import Tensor

from amauta.models.exchange.options import refuse
from amauta.models.spec import Spec

MODEL_TYPE = "gpt2"
ACTIVATION = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
OUTER = {"embedding": "wte", "positions": "wpe", "norm": "ln_f"}
BLOCK = {  # ours: theirs, below blocks.{i} and h.{i}
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feedforward_norm": "ln_2",
    "feedforward.up": "mlp.c_fc",
    "feedforward.down": "mlp.c_proj",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    plain = spec.head * spec.heads == spec.width and spec.groups == spec.heads and spec.tied
    if spec.positions != "learned" or spec.norm != "layer" or spec.gated or not spec.bias or spec.qk_norm or not plain:
        return None
    return {
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": spec.vocabulary,
        "n_positions": spec.context,
        "n_embd": spec.width,
        "n_layer": spec.layers,
        "n_head": spec.heads,
        "n_inner": spec.inner,
        "activation_function": ACTIVATION[spec.activation],
        "layer_norm_epsilon": spec.norm_eps,
        "initializer_range": spec.init_std,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
    }


def to_spec(config: dict[str, Any]) -> Spec:
    refuse(config, {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
                    "reorder_and_upcast_attn": (False,), "add_cross_attention": (False,),
                    "tie_word_embeddings": (True,),
                    "activation_function": (*ACTIVATION.values(), "gelu_pytorch_tanh")})  # fmt: skip
    ours = {theirs: ours for ours, theirs in ACTIVATION.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    return Spec(
        vocabulary=config["vocab_size"],
        context=config["n_positions"],
        width=config["n_embd"],
        layers=config["n_layer"],
        heads=config["n_head"],
        feedforward=config.get("n_inner"),
        positions="learned",
        norm="layer",
        activation=ours[config.get("activation_function", "gelu_new")],
        gated=False,
        bias=True,
        tied=True,
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        init_std=config.get("initializer_range", 0.02),
    )


def to_theirs(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    for name, value in tensors.items():
        path, kind = name.rsplit(".", 1)
        if path in OUTER:
            theirs[f"transformer.{OUTER[path]}.{kind}"] = value
        else:
            _, layer, part = path.split(".", 2)
            theirs[f"transformer.h.{layer}.{BLOCK[part]}.{kind}"] = _turn(part, kind, value)
    return theirs


def to_ours(spec: Spec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    outer = {theirs: ours for ours, theirs in OUTER.items()}
    inner = {theirs: ours for ours, theirs in BLOCK.items()}
    ours: dict[str, Tensor] = {}
    for name, value in tensors.items():
        path, kind = name.removeprefix("transformer.").rsplit(".", 1)
        if path in outer:
            ours[f"{outer[path]}.{kind}"] = value
        elif path.startswith("h."):
            _, layer, part = path.split(".", 2)
            if part in inner:  # older files also hold attn.bias and attn.masked_bias, which are masks
                ours[f"blocks.{layer}.{inner[part]}.{kind}"] = _turn(inner[part], kind, value)
            elif part != "attn":
                ours[name] = value
        elif path != "lm_head":
            ours[name] = value  # named in the error
    return ours


def _turn(part: str, kind: str, value: Tensor) -> Tensor:
    """(out, in) to (in, out) and back, for the matrices."""
    return value.T if kind == "weight" and not part.endswith("norm") else value
