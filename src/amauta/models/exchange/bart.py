"""BART's layout (Lewis et al. 2020, arXiv 1910.13461, section 2): learned positions whose first two rows are unused, a
norm on the embeddings, norms after the residuals, and a bias on the logits that is zero unless someone set it.

The dropout inside the feed-forward (``activation_dropout``) and the dropping of whole layers, which change training
alone, are not kept.
"""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Activation, Output, Spec

MODEL_TYPE = "bart"
OFFSET = 2
EPS = 1e-5  # of every norm: the config has no option for it
ACTIVATION: dict[Activation, str] = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "ForConditionalGeneration": ("language",),
    "ForSequenceClassification": ("classifier",),
    "Model": (),
}
MARKS: dict[str, Output] = {"classification_head.out_proj.weight": "classifier"}


def expresses(spec: Spec) -> bool:
    """Whether the layout can hold the spec, its outputs aside."""
    stacks = spec.kind == "encoder-decoder" and not spec.shared_stacks and spec.distinct_layers is None
    positions = spec.positions == "learned" and spec.position_offset == OFFSET and not spec.segments
    norms = spec.norm == "layer" and spec.norm_place == "post" and spec.norm_eps == EPS and spec.embedding_norm
    heads = spec.head * spec.heads == spec.width and spec.groups == spec.heads and not spec.qk_norm and not spec.window
    plain = spec.bias and spec.biased_qkv and not spec.gated and spec.tied and spec.attention_scale is None
    embedding = spec.embedding_width is None and spec.embedding_scale in (1.0, spec.width**0.5)
    return stacks and positions and norms and heads and plain and embedding and spec.reformer is None


def _suffix(spec: Spec) -> str | None:
    """What the name of the class that holds the spec's outputs ends in; None where there is none."""
    if spec.outputs == ("classifier",):
        fits = spec.pooler == "tanh" and spec.pooling == "last" and spec.classifier_bias
        return "ForSequenceClassification" if fits else None
    if spec.outputs == ("language",) and spec.pooler == "none":
        return "ForConditionalGeneration" if spec.output_bias and spec.output_scale == 1.0 else None
    return "Model" if spec.outputs == () and spec.pooler == "none" else None


def to_config(spec: Spec) -> dict[str, Any] | None:
    suffix = _suffix(spec)
    if not expresses(spec) or suffix is None:
        return None
    config = {
        "architectures": ["Bart" + suffix],
        "is_encoder_decoder": True,
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.context,
        "d_model": spec.width,
        "encoder_layers": spec.layers,
        "decoder_layers": spec.decoder_layers or spec.layers,
        "num_hidden_layers": spec.layers,
        "encoder_attention_heads": spec.heads,
        "decoder_attention_heads": spec.heads,
        "encoder_ffn_dim": spec.inner,
        "decoder_ffn_dim": spec.inner,
        "activation_function": ACTIVATION[spec.activation],
        "scale_embedding": spec.embedding_scale != 1.0,
        "init_std": spec.init_std,
        "dropout": spec.dropout,
        "attention_dropout": spec.attention_dropout,
        "classifier_dropout": spec.classifier_dropout,
        "tie_word_embeddings": True,
        **label_config(spec),
    }
    if spec.decoder_start is not None:
        config["decoder_start_token_id"] = spec.decoder_start
    return config


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    heads, inner = config.get("encoder_attention_heads", 16), config.get("encoder_ffn_dim", 4096)
    refuse(config, {"decoder_attention_heads": (heads,), "decoder_ffn_dim": (inner,), "tie_word_embeddings": (True,),
                    "activation_function": (*ACTIVATION.values(), "gelu_pytorch_tanh"),
                    # of older configs
                    "normalize_before": (False,), "add_final_layer_norm": (False,), "normalize_embedding": (True,),
                    "static_position_embeddings": (False,), "extra_pos_embeddings": (OFFSET,)})  # fmt: skip
    ours: dict[str, Activation] = {
        **{theirs: ours for ours, theirs in ACTIVATION.items()},
        "gelu_pytorch_tanh": "gelu_tanh",
    }
    width, layers, decoder_layers = config["d_model"], config["encoder_layers"], config["decoder_layers"]
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    return Spec(
        vocabulary=config["vocab_size"],
        kind="encoder-decoder",
        context=config.get("max_position_embeddings", 1024),
        width=width,
        layers=layers,
        decoder_layers=None if decoder_layers == layers else decoder_layers,
        heads=heads,
        feedforward=inner,
        positions="learned",
        position_offset=OFFSET,
        norm="layer",
        norm_place="post",
        norm_eps=EPS,
        embedding_norm=True,
        embedding_scale=width**0.5 if config.get("scale_embedding", False) else 1.0,
        activation=ours[config.get("activation_function", "gelu")],
        gated=False,
        bias=True,
        init_std=config.get("init_std", 0.02),
        dropout=config.get("dropout", 0.1),
        embedding_dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.0),
        classifier_dropout=config.get("classifier_dropout", 0.0),
        pooler_dropout=config.get("classifier_dropout", 0.0),
        outputs=outputs,
        decoder_start=config.get("decoder_start_token_id", 2),
        **_head(config, outputs),
    )


def _head(config: dict[str, Any], outputs: tuple[Output, ...]) -> dict[str, Any]:
    """The fields of the outputs."""
    if "classifier" in outputs:
        return {"pooler": "tanh", "pooling": "last", **labels_of({"num_labels": 3} | config)}
    return {"output_bias": "language" in outputs}


def layout(spec: Spec) -> Layout:
    entries = [Entry("embedding.weight", ("model.shared.weight",))]
    for name, layers in (("encoder", spec.layers), ("decoder", spec.decoder_layers or spec.layers)):
        entries += [
            *both(f"{name}.positions", f"model.{name}.embed_positions", bias=False),
            *both(f"{name}.embedding_norm", f"model.{name}.layernorm_embedding"),
        ]
        for i in range(layers):
            entries += _block(spec, f"{name}.blocks.{i}", f"model.{name}.layers.{i}", crossed=name == "decoder")
    if "classifier" in spec.outputs:
        entries += both("outputs.pooler", "classification_head.dense")
        entries += both("outputs.classifier", "classification_head.out_proj")
    tied = ()
    if "language" in spec.outputs:
        bias = ("final_logits_bias",)
        entries.append(Entry("outputs.language.bias", bias, shape=(1, spec.vocabulary), optional=True))
        tied = (r"lm_head\.weight",)
    carried = (r"(en|de)coder\.embed_tokens\.weight", r"(en|de)coder\.version")
    return Layout(tuple(entries), prefix="model.", ignored=(*carried, *tied))


def _block(spec: Spec, ours: str, theirs: str, *, crossed: bool) -> list[Entry]:
    """One layer: self-attention, in the decoder cross-attention, feed-forward."""
    width = (spec.width,)
    entries = [
        *both(f"{ours}.attention.qkv", tuple(f"{theirs}.self_attn.{x}_proj" for x in "qkv"), rows=width * 3),
        *both(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj"),
        *both(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm"),
        *both(f"{ours}.feedforward.up", f"{theirs}.fc1"),
        *both(f"{ours}.feedforward.down", f"{theirs}.fc2"),
        *both(f"{ours}.feedforward_norm", f"{theirs}.final_layer_norm"),
    ]
    if crossed:
        cross = f"{theirs}.encoder_attn"
        entries += [
            *both(f"{ours}.cross.q", f"{cross}.q_proj"),
            *both(f"{ours}.cross.kv", (f"{cross}.k_proj", f"{cross}.v_proj"), rows=width * 2),
            *both(f"{ours}.cross.out", f"{cross}.out_proj"),
            *both(f"{ours}.cross_norm", f"{theirs}.encoder_attn_layer_norm"),
        ]
    return entries
