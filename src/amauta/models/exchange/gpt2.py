"""GPT-2's layout: learned positions, LayerNorm, biases; its Conv1D keeps matrices as (in, out)."""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Activation, Output, Spec

MODEL_TYPE = "gpt2"
ACTIVATION: dict[Activation, str] = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "LMHeadModel": ("language",),
    "ForSequenceClassification": ("classifier",),
    "Model": (),
}
MARKS: dict[str, Output] = {"score.weight": "classifier"}


def expresses(spec: Spec) -> bool:
    """Whether the layout of GPT-1 and GPT-2 can hold the spec, the place of its norms aside."""
    plain = spec.head * spec.heads == spec.width and spec.groups == spec.heads and spec.tied and spec.bias
    manner = spec.positions == "learned" and spec.norm == "layer" and not spec.gated and not spec.qk_norm
    rest = spec.kind == "decoder" and spec.reformer is None and not spec.segments and spec.embedding_width is None
    scales = spec.embedding_scale == spec.output_scale == 1.0 and spec.attention_scale is None
    heads = spec.outputs in ((), ("language",), ("classifier",)) and not spec.output_bias and spec.pooler == "none"
    own = (
        spec.biased_qkv
        and not spec.embedding_norm
        and spec.distinct_layers is None
        and not spec.window
        and not spec.position_offset
    )
    head = spec.outputs != ("classifier",) or not spec.classifier_bias and spec.pooling == "last"
    return plain and manner and rest and scales and heads and own and head


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not expresses(spec) or spec.norm_place != "pre":
        return None
    suffix = next(suffix for suffix, outputs in ARCHITECTURES.items() if outputs == spec.outputs)
    return {
        "architectures": ["GPT2" + suffix],
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
        "embd_pdrop": spec.embedding_dropout,
        "attn_pdrop": spec.attention_dropout,
        "tie_word_embeddings": True,
        **label_config(spec),
    }


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
                    "reorder_and_upcast_attn": (False,), "add_cross_attention": (False,),
                    "tie_word_embeddings": (True,),
                    "activation_function": (*ACTIVATION.values(), "gelu_pytorch_tanh")})  # fmt: skip
    ours: dict[str, Activation] = {
        **{theirs: ours for ours, theirs in ACTIVATION.items()},
        "gelu_pytorch_tanh": "gelu_tanh",
    }
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
        dropout=config.get("resid_pdrop", 0.1),
        embedding_dropout=config.get("embd_pdrop", 0.1),
        attention_dropout=config.get("attn_pdrop", 0.1),
        outputs=outputs_of(config, names, ARCHITECTURES, MARKS),
        pooling="last",
        classifier_bias=False,
        **labels_of(config),
    )


def layout(spec: Spec) -> Layout:
    entries = [
        Entry("embedding.weight", ("transformer.wte.weight",)),
        Entry("decoder.positions.weight", ("transformer.wpe.weight",)),
        *both("decoder.norm", "transformer.ln_f"),
    ]
    for i in range(spec.layers):
        entries += block(f"decoder.blocks.{i}", f"transformer.h.{i}")
    if "classifier" in spec.outputs:
        entries.append(Entry("outputs.classifier.weight", ("score.weight",)))
    masks = (r"h\.\d+\.attn\.(masked_)?bias",)  # buffers of older files
    return Layout(tuple(entries), prefix="transformer.", ignored=(*masks, "lm_head.weight"))


def block(ours: str, theirs: str) -> list[Entry]:
    """One layer of GPT-1 or GPT-2."""
    return [
        *both(f"{ours}.attention_norm", f"{theirs}.ln_1"),
        *both(f"{ours}.attention.qkv", f"{theirs}.attn.c_attn", turned=True),
        *both(f"{ours}.attention.out", f"{theirs}.attn.c_proj", turned=True),
        *both(f"{ours}.feedforward_norm", f"{theirs}.ln_2"),
        *both(f"{ours}.feedforward.up", f"{theirs}.mlp.c_fc", turned=True),
        *both(f"{ours}.feedforward.down", f"{theirs}.mlp.c_proj", turned=True),
    ]
