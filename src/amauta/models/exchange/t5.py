"""T5's layout, 1.0 and 1.1 (Raffel et al. 2020, arXiv 1910.10683, section 2.1; Shazeer 2020, arXiv 2002.05202, for the
gated feed-forward of 1.1): relative positions from the first layer's table of each stack, RMSNorm, no biases, products
of queries and keys that are not scaled.

A head tied to the embedding reads hidden states times D^-½; that of 1.1 is a table of its own and reads them as they
are. transformers 5 ties a head that its file does not hold and keeps the factor in ``scale_decoder_outputs``: so do we.
Its one rate of dropout serves our ``dropout``, ``embedding_dropout`` and ``attention_dropout``.
"""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Activation, Output, Spec

MODEL_TYPE = "t5"
FEEDFORWARD: dict[str, tuple[Activation, bool]] = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True)}
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "ForConditionalGeneration": ("language",),
    "WithLMHeadModel": ("language",),  # an old name of the same
    "ForSequenceClassification": ("classifier",),
    "EncoderModel": (),
    "Model": (),
}
MARKS: dict[str, Output] = {"classification_head.out_proj.weight": "classifier"}


def expresses(spec: Spec) -> bool:
    """Whether the layout can hold the spec, its outputs aside."""
    stacks = spec.kind != "decoder" and not spec.shared_stacks and spec.distinct_layers is None
    manner = spec.positions == "relative" and spec.norm == "rms" and spec.norm_place == "pre"
    attention = spec.attention_scale == 1.0 and spec.groups == spec.heads and not spec.qk_norm and not spec.window
    plain = not spec.bias and not spec.biased_qkv and (spec.activation, spec.gated) in FEEDFORWARD.values()
    embedding = spec.embedding_width is None and not spec.embedding_norm and spec.embedding_scale == 1.0
    return stacks and manner and attention and plain and embedding and not spec.segments and spec.reformer is None


def _architecture(spec: Spec) -> str | None:
    """The class that holds the spec's outputs; None where there is none."""
    if spec.kind == "encoder":
        return "T5EncoderModel" if spec.outputs == () and spec.pooler == "none" else None
    if spec.outputs == ("classifier",):
        fits = spec.pooler == "tanh" and spec.pooling == "last" and spec.classifier_bias
        return "T5ForSequenceClassification" if fits else None
    if spec.outputs == ("language",) and not spec.output_bias and spec.pooler == "none":
        scales = (1.0, spec.width**-0.5) if spec.tied else (1.0,)
        return "T5ForConditionalGeneration" if spec.output_scale in scales else None
    return "T5Model" if spec.outputs == () and spec.pooler == "none" else None


def to_config(spec: Spec) -> dict[str, Any] | None:
    architecture = _architecture(spec)
    if not expresses(spec) or architecture is None:
        return None
    config = {
        "architectures": [architecture],
        "is_encoder_decoder": spec.kind == "encoder-decoder",
        "vocab_size": spec.vocabulary,
        "n_positions": spec.context,
        "d_model": spec.width,
        "d_kv": spec.head,
        "d_ff": spec.inner,
        "num_heads": spec.heads,
        "num_layers": spec.layers,
        "num_decoder_layers": spec.decoder_layers or spec.layers,
        "relative_attention_num_buckets": spec.relative_buckets,
        "relative_attention_max_distance": spec.relative_distance,
        "feed_forward_proj": next(key for key, value in FEEDFORWARD.items() if value == (spec.activation, spec.gated)),
        "layer_norm_epsilon": spec.norm_eps,
        "dropout_rate": spec.dropout,
        "classifier_dropout": spec.classifier_dropout,
        "tie_word_embeddings": spec.tied,
        **label_config(spec),
    }
    if "language" in spec.outputs:
        config["scale_decoder_outputs"] = spec.output_scale != 1.0
    if spec.decoder_start is not None:
        config["decoder_start_token_id"] = spec.decoder_start
    return config


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"feed_forward_proj": tuple(FEEDFORWARD)})
    activation, gated = FEEDFORWARD[config.get("feed_forward_proj", "relu")]
    kind = "encoder" if _is_encoder(config, names) else "encoder-decoder"
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS) if kind == "encoder-decoder" else ()
    width, layers, rate = config["d_model"], config["num_layers"], config.get("dropout_rate", 0.1)
    decoder_layers = config.get("num_decoder_layers")
    return Spec(
        vocabulary=config["vocab_size"],
        kind=kind,
        context=config.get("n_positions", 512),
        width=width,
        layers=layers,
        decoder_layers=None if decoder_layers == layers or kind == "encoder" else decoder_layers,
        heads=config["num_heads"],
        head_width=config["d_kv"],
        feedforward=config["d_ff"],
        positions="relative",
        relative_buckets=config.get("relative_attention_num_buckets", 32),
        relative_distance=config.get("relative_attention_max_distance", 128),
        norm_eps=config.get("layer_norm_epsilon", 1e-6),
        attention_scale=1.0,
        activation=activation,
        gated=gated,
        dropout=rate,
        embedding_dropout=rate,
        attention_dropout=rate,
        classifier_dropout=config.get("classifier_dropout", 0.0),
        pooler_dropout=config.get("classifier_dropout", 0.0),
        outputs=outputs,
        **_head(config, names, outputs, width),
        decoder_start=config.get("decoder_start_token_id", config.get("pad_token_id", 0))
        if kind != "encoder"
        else None,
    )


def _is_encoder(config: dict[str, Any], names: Collection[str]) -> bool:
    """Whether the folder holds an encoder alone: its architecture says so, or without one its tensors do."""
    declared = config.get("architectures")
    if declared:
        return declared[0].endswith("EncoderModel")
    return bool(names) and not any(name.removeprefix("transformer.").startswith("decoder.") for name in names)


def _head(config: dict[str, Any], names: Collection[str], outputs: tuple[Output, ...], width: int) -> dict[str, Any]:
    """The fields of the outputs."""
    if "classifier" in outputs:
        return {"pooler": "tanh", "pooling": "last", **labels_of(config)}
    if "language" not in outputs:
        return {}
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    own = "lm_head.weight" in names if names else config.get("tie_word_embeddings") is False
    return {"tied": scaled or not own, "output_scale": width**-0.5 if scaled else 1.0}


def layout(spec: Spec) -> Layout:
    prefix = "transformer." if "classifier" in spec.outputs else ""
    entries = [Entry("embedding.weight", (f"{prefix}shared.weight",))]
    entries += _stack(spec, "encoder", spec.layers, prefix)
    if spec.kind == "encoder-decoder":
        entries += _stack(spec, "decoder", spec.decoder_layers or spec.layers, prefix)
    if "classifier" in spec.outputs:
        entries += both("outputs.pooler", "classification_head.dense")
        entries += both("outputs.classifier", "classification_head.out_proj")
    if "language" in spec.outputs and not spec.tied:
        entries.append(Entry("outputs.language.table.weight", ("lm_head.weight",)))
    copies = (r"(en|de)coder\.embed_tokens\.weight",)
    # a table that the first version's files hold and its code never read
    unused = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)
    rest = (r"decoder\..*", r"lm_head\.weight") if spec.kind == "encoder" else ()
    tied = (r"lm_head\.weight",) if "language" in spec.outputs and spec.tied else ()
    return Layout(tuple(entries), prefix=prefix, ignored=(*copies, *unused, *rest, *tied))


def _stack(spec: Spec, name: str, layers: int, prefix: str) -> list[Entry]:
    """The encoder or the decoder."""
    theirs = f"{prefix}{name}"
    table = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias"
    entries = [
        *both(f"{name}.relative", table, bias=False),
        *both(f"{name}.norm", f"{theirs}.final_layer_norm", bias=False),
    ]
    for i in range(layers):
        entries += _block(spec, f"{name}.blocks.{i}", f"{theirs}.block.{i}", crossed=name == "decoder")
    return entries


def _block(spec: Spec, ours: str, theirs: str, *, crossed: bool) -> list[Entry]:
    """One layer: self-attention, in the decoder cross-attention, feed-forward."""
    inner = spec.heads * spec.head
    last = f"{theirs}.layer.{2 if crossed else 1}"
    own, dense = f"{theirs}.layer.0.SelfAttention", f"{last}.DenseReluDense"
    up: str | tuple[str, ...] = (f"{dense}.wi_0", f"{dense}.wi_1") if spec.gated else f"{dense}.wi"
    entries = [
        *both(f"{ours}.attention_norm", f"{theirs}.layer.0.layer_norm", bias=False),
        *both(f"{ours}.attention.qkv", tuple(f"{own}.{x}" for x in "qkv"), bias=False, rows=(inner,) * 3),
        *both(f"{ours}.attention.out", f"{own}.o", bias=False),
        *both(f"{ours}.feedforward_norm", f"{last}.layer_norm", bias=False),
        *both(f"{ours}.feedforward.up", up, bias=False, rows=(spec.inner,) * 2 if spec.gated else ()),
        *both(f"{ours}.feedforward.down", f"{dense}.wo", bias=False),
    ]
    if crossed:
        cross = f"{theirs}.layer.1.EncDecAttention"
        entries += [
            *both(f"{ours}.cross_norm", f"{theirs}.layer.1.layer_norm", bias=False),
            *both(f"{ours}.cross.q", f"{cross}.q", bias=False),
            *both(f"{ours}.cross.kv", (f"{cross}.k", f"{cross}.v"), bias=False, rows=(inner,) * 2),
            *both(f"{ours}.cross.out", f"{cross}.o", bias=False),
        ]
    return entries
