"""Reformer's layout (google/reformer-crime-and-punishment, google/reformer-enwik8).

``lm_head.bias`` is added to the logits, as the trained models need it and as the reference did until its version 4;
version 5 reads it and leaves it out.
"""

from collections.abc import Collection
from typing import Any

from amauta.base.errors import ModelError
from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import ACTIVATION, label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Output, Reformer, Spec

MODEL_TYPE = "reformer"
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "ModelWithLMHead": ("language",),
    "ForMaskedLM": ("language",),  # its head is a plain table; that it is an encoder makes it a masked model
    "ForSequenceClassification": ("classifier",),
    "ForQuestionAnswering": ("span",),
    "Model": (),
}
MARKS: dict[str, Output] = {
    "lm_head.decoder.weight": "language",
    "classifier.dense.weight": "classifier",
    "qa_outputs.weight": "span",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    own = spec.reformer
    if own is None or not _expresses(spec):
        return None
    decoder = spec.kind == "decoder"
    writer = "ModelWithLMHead" if decoder else "ForMaskedLM"
    heads = {("language",): writer, ("classifier",): "ForSequenceClassification", ("span",): "ForQuestionAnswering"}
    axial = {"axial_pos_embds": own.axial_shape is not None}
    if own.axial_shape is not None and own.axial_widths is not None:
        axial |= {"axial_pos_shape": list(own.axial_shape), "axial_pos_embds_dim": list(own.axial_widths)}
    return {
        "architectures": ["Reformer" + heads.get(spec.outputs, "Model")],
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.context,
        "hidden_size": spec.width,
        "attn_layers": list(own.layers),
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "attention_head_size": spec.head,
        "feed_forward_size": spec.inner,
        "hidden_act": ACTIVATION[spec.activation],
        "is_decoder": decoder,
        "layer_norm_eps": spec.norm_eps,
        "initializer_range": spec.init_std,
        "lsh_attn_chunk_length": own.chunk,
        "lsh_num_chunks_before": own.chunk_before,
        "lsh_num_chunks_after": own.chunk_after,
        "local_attn_chunk_length": own.local_chunk,
        "local_num_chunks_before": own.local_before,
        "local_num_chunks_after": own.local_after,
        "num_hashes": own.hashes,
        "num_buckets": list(own.buckets) if isinstance(own.buckets, tuple) else own.buckets,
        "hash_seed": own.hash_seed,
        "chunk_size_feed_forward": own.feedforward_chunk,
        "hidden_dropout_prob": spec.dropout,
        "lsh_attention_probs_dropout_prob": own.lsh_dropout,
        "local_attention_probs_dropout_prob": spec.attention_dropout,
        "tie_word_embeddings": False,
        **axial,
        **label_config(spec),
    }


def _expresses(spec: Spec) -> bool:
    """Whether this layout can hold the spec, and the reference would open what it holds."""
    from amauta.models.reformer import checked  # it brings torch, which reading a config needs not

    own = checked(spec)
    plain = spec.norm == "layer" and not spec.gated and spec.bias and spec.embedding_scale == spec.output_scale == 1.0
    plain = plain and spec.dropout == spec.embedding_dropout and spec.sentence is None
    ahead = ("lsh" in own.layers and own.chunk_after) or ("local" in own.layers and own.local_after)
    heads = {
        (): True,
        ("language",): spec.output_bias and not (spec.kind == "decoder" and ahead),
        ("classifier",): spec.pooler == "tanh" and spec.pooling == "first" and spec.classifier_bias,
        ("span",): True,
    }
    return plain and heads.get(spec.outputs, False) and (spec.pooler == "none" or spec.outputs == ("classifier",))


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    config = {"is_decoder": False, "axial_pos_embds": True, "attn_layers": ["local", "lsh"] * 3} | config
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    refuse(config, {"tie_word_embeddings": (False,), "hidden_act": (*ACTIVATION.values(), "gelu_new")})
    for ending, decoder in (("ModelWithLMHead", True), ("ForMaskedLM", False)):
        if any(name.endswith(ending) for name in config.get("architectures") or ()):
            refuse(config, {"is_decoder": (decoder,)})
    _refuse_other_shapes(config)
    ours = {theirs: ours for ours, theirs in ACTIVATION.items()} | {"gelu_new": "gelu_tanh"}
    dropout = config.get("hidden_dropout_prob", 0.05)
    return Spec(
        kind="decoder" if config["is_decoder"] else "encoder",
        vocabulary=config.get("vocab_size", 320),
        context=config.get("max_position_embeddings", 4096),
        width=config.get("hidden_size", 256),
        layers=len(config["attn_layers"]),
        heads=config.get("num_attention_heads", 12),
        head_width=config.get("attention_head_size", 64),
        feedforward=config.get("feed_forward_size", 512),
        positions="learned",
        norm="layer",
        activation=ours[config.get("hidden_act", "relu")],
        gated=False,
        bias=True,
        qkv_bias=False,
        tied=False,
        norm_eps=config.get("layer_norm_eps", 1e-12),
        init_std=config.get("initializer_range", 0.02),
        dropout=dropout,
        embedding_dropout=dropout,
        attention_dropout=config.get("local_attention_probs_dropout_prob", 0.05),
        outputs=outputs,
        output_bias="language" in outputs,
        pooler="tanh" if "classifier" in outputs else "none",
        **labels_of(config),
        reformer=_own(config),
    )


def _own(config: dict[str, Any]) -> Reformer:
    axial = config["axial_pos_embds"]
    return Reformer(
        layers=tuple(config["attn_layers"]),
        chunk=config.get("lsh_attn_chunk_length", 64),
        chunk_before=config.get("lsh_num_chunks_before", 1),
        chunk_after=config.get("lsh_num_chunks_after", 0),
        local_chunk=config.get("local_attn_chunk_length", 64),
        local_before=config.get("local_num_chunks_before", 1),
        local_after=config.get("local_num_chunks_after", 0),
        hashes=config.get("num_hashes", 1),
        buckets=_frozen(config.get("num_buckets")),
        hash_seed=config.get("hash_seed"),
        axial_shape=tuple(config.get("axial_pos_shape", (64, 64))) if axial else None,
        axial_widths=tuple(config.get("axial_pos_embds_dim", (64, 192))) if axial else None,
        feedforward_chunk=config.get("chunk_size_feed_forward", 0),
        lsh_dropout=config.get("lsh_attention_probs_dropout_prob", 0.0),
    )


def _frozen(buckets: int | list[int] | None) -> int | tuple[int, ...] | None:
    return tuple(buckets) if isinstance(buckets, list | tuple) else buckets


def _refuse_other_shapes(config: dict[str, Any]) -> None:
    """ModelError for lists that the reference would not take either, or that we do not compute."""
    layers = config["attn_layers"]
    if not layers or not set(layers) <= {"local", "lsh"}:
        raise ModelError("exchange.unsupported-option", name="attn_layers", value=layers, allowed="local, lsh")
    shape = config.get("axial_pos_shape", (64, 64))
    if config["axial_pos_embds"] and len(shape) != 2:
        raise ModelError("exchange.unsupported-option", name="axial_pos_shape", value=shape, allowed="[rows, columns]")
    for kind in {"lsh", "local"} & set(layers):
        name = f"{kind}_attn_chunk_length"
        if config.get(name, 64) is None:
            raise ModelError("exchange.unsupported-option", name=name, value=None, allowed="1, 2, 3 …")


def layout(spec: Spec) -> Layout:
    assert spec.reformer is not None
    stack, positions = spec.kind, "reformer.embeddings.position_embeddings"
    entries = [Entry("embedding.weight", ("reformer.embeddings.word_embeddings.weight",))]
    if spec.reformer.axial_shape is not None:
        entries += [Entry(f"{stack}.positions.{ours}", (f"{positions}.weights.{i}",)) for i, ours in
                    enumerate(("rows", "columns"))]  # fmt: skip
    else:
        entries.append(Entry(f"{stack}.positions.weight", (f"{positions}.embedding.weight",)))
    for i, kind in enumerate(spec.reformer.layers):
        entries += _block(spec, kind, f"{stack}.blocks.{i}", f"reformer.encoder.layers.{i}")
    entries += both(f"{stack}.norm", "reformer.encoder.layer_norm")
    if "language" in spec.outputs:
        entries.append(Entry("outputs.language.table.weight", ("lm_head.decoder.weight",)))
        entries.append(Entry("outputs.language.bias", ("lm_head.bias",)))
    if "classifier" in spec.outputs:
        entries += both("outputs.pooler", "classifier.dense") + both("outputs.classifier", "classifier.out_proj")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    masks = r"encoder\.layers\.\d+\.attention\.self_attention\.(self_)?mask_value_float(16|32)"  # of older files
    return Layout(tuple(entries), prefix="reformer.", ignored=(masks, r"lm_head\.decoder\.bias"))


def _block(spec: Spec, kind: str, ours: str, theirs: str) -> list[Entry]:
    attention = f"{theirs}.attention.self_attention"
    names = ("query_key", "value") if kind == "lsh" else ("query", "key", "value")
    return [
        *both(f"{ours}.attention_norm", f"{theirs}.attention.layer_norm"),
        *both(f"{ours}.attention.qkv", tuple(f"{attention}.{name}" for name in names), bias=False,
              rows=(spec.heads * spec.head,) * len(names)),
        *both(f"{ours}.attention.out", f"{theirs}.attention.output.dense", bias=False),
        *both(f"{ours}.feedforward_norm", f"{theirs}.feed_forward.layer_norm"),
        *both(f"{ours}.feedforward.up", f"{theirs}.feed_forward.dense.dense"),
        *both(f"{ours}.feedforward.down", f"{theirs}.feed_forward.output.dense"),
    ]  # fmt: skip
