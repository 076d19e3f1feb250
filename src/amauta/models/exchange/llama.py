"""Llama's layout: rotary, RMSNorm, gated feed-forward (SmolLM2, Llama 1 to 3, TinyLlama)."""

from collections.abc import Collection
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Activation, Output, RopeScaling, Spec

MODEL_TYPE = "llama"
ACTIVATION: dict[Activation, str] = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "ForCausalLM": ("language",),
    "ForSequenceClassification": ("classifier",),
    "Model": (),
}
MARKS: dict[str, Output] = {"score.weight": "classifier"}


def expresses(spec: Spec) -> bool:
    """Whether this layout can hold the spec, q/k norms, biases and windows aside."""
    plain = spec.positions == "rotary" and spec.norm == "rms" and spec.gated and spec.norm_place == "pre"
    rest = spec.kind == "decoder" and spec.reformer is None and not spec.segments and spec.embedding_width is None
    scales = spec.embedding_scale == spec.output_scale == 1.0 and spec.attention_scale is None
    heads = spec.outputs in ((), ("language",), ("classifier",)) and not spec.output_bias and spec.pooler == "none"
    head = spec.outputs != ("classifier",) or not spec.classifier_bias and spec.pooling == "last"
    return plain and rest and scales and heads and head and not spec.embedding_norm and spec.distinct_layers is None


def to_config(spec: Spec) -> dict[str, Any] | None:
    if not expresses(spec) or spec.qk_norm or spec.window or spec.biased_qkv != spec.bias:
        return None
    return shared_config(spec, "Llama")


def shared_config(spec: Spec, name: str) -> dict[str, Any]:
    """What the configs of Llama and its relatives have in common; ``name`` begins their architecture."""
    suffix = next(suffix for suffix, outputs in ARCHITECTURES.items() if outputs == spec.outputs)
    config = {
        "architectures": [name + suffix],
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
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta} | _scaling(spec.rope_scaling),
        "tie_word_embeddings": spec.tied,
        "initializer_range": spec.init_std,
        "attention_dropout": spec.attention_dropout,
    }
    if spec.rope_scaling is not None:
        config["rope_scaling"] = _scaling(spec.rope_scaling)
    return config | label_config(spec)


def label_config(spec: Spec) -> dict[str, Any]:
    """The names of a classifier's classes, or their number."""
    if "classifier" not in spec.outputs:
        return {}
    names = spec.label_names or tuple(f"LABEL_{i}" for i in range(spec.labels))
    return {"id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)}}  # fmt: skip


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"mlp_bias": (config.get("attention_bias", False),)})
    return shared_spec(config, names, bias=config.get("attention_bias", False))


def shared_spec(config: dict[str, Any], names: Collection[str], *, bias: bool, **more: Any) -> Spec:
    """The spec of Llama or a relative; ``more`` are its own fields."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    refuse(config, {"pretraining_tp": (1,), "partial_rotary_factor": (1, 1.0, None),
                    "hidden_act": (*ACTIVATION.values(), "gelu_new")})  # fmt: skip
    ours: dict[str, Activation] = {**{theirs: ours for ours, theirs in ACTIVATION.items()}, "gelu_new": "gelu_tanh"}
    fields: dict[str, Any] = {
        "vocabulary": config["vocab_size"],
        "context": config.get("max_position_embeddings", 2048),
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "kv_heads": config.get("num_key_value_heads"),
        "head_width": config.get("head_dim"),
        "feedforward": config["intermediate_size"],
        "activation": ours[config.get("hidden_act", "silu")],
        "bias": bias,
        "tied": config.get("tie_word_embeddings", False),
        "rope_theta": rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        "rope_scaling": rope_scaling(rope),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "init_std": config.get("initializer_range", 0.02),
        "attention_dropout": config.get("attention_dropout") or 0.0,
        "outputs": outputs_of(config, names, ARCHITECTURES, MARKS),
        "pooling": "last",
        "classifier_bias": False,
        **labels_of(config),
    }
    return Spec(**fields | more)


def labels_of(config: dict[str, Any]) -> dict[str, Any]:
    """A classifier's classes, as the config names them."""
    names = config.get("id2label")
    if not names:
        return {"labels": config.get("num_labels", 2)}
    ordered = tuple(names[key] for key in sorted(names, key=int))
    plain = ordered == tuple(f"LABEL_{i}" for i in range(len(ordered)))
    return {"labels": len(ordered), "label_names": () if plain else ordered}


def rope_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    """The scaling that ``rope_parameters`` (or the older ``rope_scaling``) describes; ModelError for other kinds."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    refuse({"rope_type": kind}, {"rope_type": ("default", "linear", "llama3")})
    if kind == "default":
        return None
    try:
        if kind == "linear":
            return RopeScaling("linear", float(rope["factor"]))
        return RopeScaling("llama3", float(rope["factor"]), float(rope["low_freq_factor"]),
                           float(rope["high_freq_factor"]), rope["original_max_position_embeddings"])  # fmt: skip
    except KeyError as error:
        raise ModelError("exchange.no-option", name=f"rope_parameters.{error.args[0]}") from None


def _scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {}
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high, "original_max_position_embeddings": scaling.original}  # fmt: skip


def layout(spec: Spec) -> Layout:
    entries = [
        Entry("embedding.weight", ("model.embed_tokens.weight",)),
        Entry("decoder.norm.weight", ("model.norm.weight",)),
    ]
    for i in range(spec.layers):
        entries += block(spec, f"decoder.blocks.{i}", f"model.layers.{i}")
    entries += head(spec)
    return Layout(tuple(entries), prefix="model.", ignored=(r".*rotary_emb\.inv_freq", *tied_copies(spec)))


def tied_copies(spec: Spec) -> tuple[str, ...]:
    """Copies of the tied table that some files hold; a base model has no output table at all."""
    return ("lm_head.weight",) if spec.tied and "language" in spec.outputs else ()


def head(spec: Spec) -> list[Entry]:
    """The output table, or the linear layer of a classifier."""
    if "classifier" in spec.outputs:
        return [Entry("outputs.classifier.weight", ("score.weight",))]
    if "language" in spec.outputs and not spec.tied:
        return [Entry("outputs.language.table.weight", ("lm_head.weight",))]
    return []


def block(spec: Spec, ours: str, theirs: str) -> list[Entry]:
    """One layer."""
    kv = spec.groups * spec.head
    attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
    entries = [
        Entry(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",)),
        Entry(f"{ours}.feedforward_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
        *both(f"{ours}.attention.qkv", tuple(f"{attention}.{x}_proj" for x in "qkv"), bias=spec.biased_qkv,
              rows=(spec.heads * spec.head, kv, kv)),
        *both(f"{ours}.attention.out", f"{attention}.o_proj", bias=spec.bias),
        *both(f"{ours}.feedforward.up", (f"{mlp}.gate_proj", f"{mlp}.up_proj"), bias=spec.bias,
              rows=(spec.inner, spec.inner)),
        *both(f"{ours}.feedforward.down", f"{mlp}.down_proj", bias=spec.bias),
    ]  # fmt: skip
    if spec.qk_norm:
        entries += [Entry(f"{ours}.attention.{x}_norm.weight", (f"{attention}.{x}_norm.weight",)) for x in "qk"]
    return entries
