"""BERT's layout (Devlin et al. 2018, arXiv 1810.04805), and what RoBERTa, ELECTRA and ALBERT have in common with it."""

from collections.abc import Collection, Mapping
from typing import Any

from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Output, Spec

MODEL_TYPE = "bert"
ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
SPELLINGS = {"gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}  # other names of the same
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "BertModel": (),
    "BertForMaskedLM": ("masked",),
    "BertForPreTraining": ("masked", "pair"),
    "BertForNextSentencePrediction": ("pair",),
    "BertForSequenceClassification": ("classifier",),
    "BertForQuestionAnswering": ("span",),
}
MARKS: dict[str, Output] = {
    "cls.predictions.transform.dense.weight": "masked",
    "cls.seq_relationship.weight": "pair",
    "classifier.weight": "classifier",
    "qa_outputs.weight": "span",
}
POOLED = ("pair", "classifier")  # outputs that read the pooled state
OLD_NAMES = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))  # of norms, in the first files
BUFFERS = (r"embeddings\.(position_ids|token_type_ids)",)


def is_plain_encoder(spec: Spec) -> bool:
    """Whether the spec is BERT's encoder, embeddings, shared layers and outputs aside."""
    attention = spec.head * spec.heads == spec.width and spec.groups == spec.heads and spec.biased_qkv
    attention = attention and spec.attention_scale is None and not spec.qk_norm and spec.window is None
    manner = spec.norm == "layer" and spec.norm_place == "post" and not spec.gated and spec.bias
    embedding = spec.positions == "learned" and spec.embedding_norm and spec.embedding_scale == 1.0
    rest = spec.kind == "encoder" and spec.reformer is None and not spec.output_bias and spec.output_scale == 1.0
    heads = spec.pooling == "first" and spec.classifier_bias
    heads = heads and (spec.labels == 2 or not {"span", "pair"} & set(spec.outputs))  # both are sized by num_labels
    return attention and manner and embedding and rest and heads and spec.dropout == spec.embedding_dropout


def architecture_of(
    spec: Spec, architectures: Mapping[str, tuple[Output, ...]], marks: Mapping[str, Output]
) -> str | None:
    """The architecture that gives the spec's outputs back when it is read beside the tensors; None: there is none."""
    names = [name for name, output in marks.items() if output in spec.outputs]
    for name in sorted(architectures, key=lambda name: architectures[name] != spec.outputs):
        if outputs_of({"architectures": [name]}, names, architectures, marks) == spec.outputs:
            return name
    return None


def pooler_fits(spec: Spec) -> bool:
    """Whether the pooler is BERT's: a dense layer and tanh, or none where nothing reads it."""
    return spec.pooler == "tanh" or spec.pooler == "none" and not set(POOLED) & set(spec.outputs)


def to_config(spec: Spec) -> dict[str, Any] | None:
    name = architecture_of(spec, ARCHITECTURES, MARKS)
    own = spec.embedding_width is None and spec.distinct_layers is None and not spec.position_offset and spec.segments
    if name is None or not own or not is_plain_encoder(spec) or not pooler_fits(spec):
        return None
    return shared_config(spec, name)


def shared_config(spec: Spec, architecture: str) -> dict[str, Any]:
    """What the configs of BERT and its relatives have in common."""
    return {
        "architectures": [architecture],
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.context + spec.position_offset,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.inner,
        "hidden_act": ACTIVATION[spec.activation],
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.attention_dropout,
        "type_vocab_size": spec.segments,
        "layer_norm_eps": spec.norm_eps,
        "initializer_range": spec.init_std,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": spec.tied,
        "classifier_dropout": spec.classifier_dropout,
        **label_config(spec),
    }


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    return shared_spec(config, outputs=outputs, pooler=pooler_of(outputs, names, "bert."))


def pooler_of(outputs: tuple[Output, ...], names: Collection[str], prefix: str, layer: str = "pooler.dense") -> str:
    """ "tanh" where the file has a pooler, or an output needs it, or a base model's config stands alone."""
    held = {f"{layer}.weight", f"{prefix}{layer}.weight"} & set(names)
    needed = bool(set(POOLED) & set(outputs))
    return "tanh" if held or needed or (not names and not outputs) else "none"


def shared_spec(config: dict[str, Any], **own: Any) -> Spec:
    """The spec of BERT or a relative; ``own`` are the family's fields. Defaults are those of the first BERT."""
    refuse(config, {"position_embedding_type": ("absolute", None), "is_decoder": (False,),
                    "add_cross_attention": (False,), "pruned_heads": ({}, None)})  # fmt: skip
    fields: dict[str, Any] = {
        "vocabulary": config["vocab_size"],
        "kind": "encoder",
        "context": config.get("max_position_embeddings", 512),
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "feedforward": config["intermediate_size"],
        "activation": activation_of(config, "hidden_act"),
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "embedding_dropout": config.get("hidden_dropout_prob", 0.1),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
        "segments": config.get("type_vocab_size", 2),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "init_std": config.get("initializer_range", 0.02),
        "classifier_dropout": classifier_dropout(config),
        "tied": config.get("tie_word_embeddings", True),
        "positions": "learned",
        "norm": "layer",
        "norm_place": "post",
        "embedding_norm": True,
        "gated": False,
        "bias": True,
        **labels_of(config),
    }
    return Spec(**fields | own)


def classifier_dropout(config: Mapping[str, Any]) -> float:
    """The dropout before a classifier's layer; where it is not said, that of the hidden states."""
    said = config.get("classifier_dropout")
    return config.get("hidden_dropout_prob", 0.1) if said is None else said


def activation_of(config: Mapping[str, Any], key: str, default: str = "gelu") -> str:
    """Our name of the activation that the option ``key`` asks for; ModelError for one that we lack."""
    ours = {theirs: ours for ours, theirs in ACTIVATION.items()} | SPELLINGS
    refuse(config, {key: tuple(ours)})
    return ours[config.get(key, default)]


def layout(spec: Spec) -> Layout:
    entries = [*embeddings("bert.embeddings"), *blocks(spec, "bert.encoder.layer")]
    if spec.pooler != "none":
        entries += both("outputs.pooler", "bert.pooler.dense")
    head = "cls.predictions"
    if "masked" in spec.outputs:
        entries += both("outputs.masked.dense", f"{head}.transform.dense")
        entries += both("outputs.masked.norm", f"{head}.transform.LayerNorm")
        entries += table(spec, head)
    if "pair" in spec.outputs:
        entries += both("outputs.pair", "cls.seq_relationship")
    if "classifier" in spec.outputs:
        entries += both("outputs.classifier", "classifier")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    return Layout(tuple(entries), prefix="bert.", aliases=OLD_NAMES, ignored=(*BUFFERS, *tied_copies(spec, head)))


def table(spec: Spec, head: str) -> list[Entry]:
    """The output table of "masked", where it is not the embedding, and its bias.

    Untied, transformers adds the bias of ``decoder`` and keeps ``bias`` unused: both are written, and the former read.
    """
    if spec.tied:
        return [Entry("outputs.masked.bias", (f"{head}.bias",))]
    biases = [Entry("outputs.masked.bias", (f"{head}{place}.bias",)) for place in ("", ".decoder")]
    return [*biases, Entry("outputs.masked.table.weight", (f"{head}.decoder.weight",))]


def tied_copies(spec: Spec, head: str) -> tuple[str, ...]:
    """Copies of the tied table and its bias that some files hold."""
    return (rf"{head}\.decoder\.(weight|bias)",) if spec.tied and "masked" in spec.outputs else ()


def embeddings(theirs: str, *, segments: bool = True) -> list[Entry]:
    """The tables of tokens, positions and segments, and the norm of their sum."""
    tables = [("embedding", "word_embeddings"), ("encoder.positions", "position_embeddings")]
    tables += [("encoder.segments", "token_type_embeddings")] if segments else []
    entries = [Entry(f"{ours}.weight", (f"{theirs}.{name}.weight",)) for ours, name in tables]
    return [*entries, *both("encoder.embedding_norm", f"{theirs}.LayerNorm")]


def blocks(spec: Spec, theirs: str) -> list[Entry]:
    """All layers, in the names that BERT, RoBERTa and ELECTRA share."""
    entries: list[Entry] = []
    for i in range(spec.layers):
        ours, layer = f"encoder.blocks.{i}", f"{theirs}.{i}"
        qkv = tuple(f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))
        entries += [
            *both(f"{ours}.attention.qkv", qkv, rows=(spec.width,) * 3),
            *both(f"{ours}.attention.out", f"{layer}.attention.output.dense"),
            *both(f"{ours}.attention_norm", f"{layer}.attention.output.LayerNorm"),
            *both(f"{ours}.feedforward.up", f"{layer}.intermediate.dense"),
            *both(f"{ours}.feedforward.down", f"{layer}.output.dense"),
            *both(f"{ours}.feedforward_norm", f"{layer}.output.LayerNorm"),
        ]
    return entries
