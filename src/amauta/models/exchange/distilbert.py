"""DistilBERT's layout (Sanh et al. 2019, arXiv 1910.01108): BERT without segments and without a pooler.

Its classifier has a dense layer with ReLU of its own. It has no dropout on what attention adds, which ours has: the
difference is in training only, as is the dropout before its output of spans (``qa_dropout``), which ours has not.
"""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.bert import (
    ACTIVATION,
    BUFFERS,
    OLD_NAMES,
    activation_of,
    architecture_of,
    embeddings,
    is_plain_encoder,
    shared_spec,
)  # fmt: skip
from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.llama import label_config
from amauta.models.exchange.options import outputs_of
from amauta.models.spec import Output, Spec

MODEL_TYPE = "distilbert"
NORM_EPS = 1e-12  # not an option of theirs
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "DistilBertModel": (),
    "DistilBertForMaskedLM": ("masked",),
    "DistilBertForSequenceClassification": ("classifier",),
    "DistilBertForQuestionAnswering": ("span",),
}
MARKS: dict[str, Output] = {
    "vocab_transform.weight": "masked",
    "classifier.weight": "classifier",
    "qa_outputs.weight": "span",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    name = architecture_of(spec, ARCHITECTURES, MARKS)
    own = spec.embedding_width is None and spec.distinct_layers is None and not spec.position_offset
    own = own and not spec.segments and spec.norm_eps == NORM_EPS
    pooler = spec.pooler == ("relu" if "classifier" in spec.outputs else "none")
    if name is None or not own or not is_plain_encoder(spec) or not pooler:
        return None
    return {
        "architectures": [name],
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.context,
        "dim": spec.width,
        "n_layers": spec.layers,
        "n_heads": spec.heads,
        "hidden_dim": spec.inner,
        "activation": ACTIVATION[spec.activation],
        "dropout": spec.dropout,
        "attention_dropout": spec.attention_dropout,
        "seq_classif_dropout": spec.classifier_dropout,
        "initializer_range": spec.init_std,
        "sinusoidal_pos_embds": False,
        "tie_word_embeddings": spec.tied,
        **label_config(spec),
    }


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    renamed = {
        "hidden_size": config["dim"],
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "intermediate_size": config["hidden_dim"],
        "hidden_dropout_prob": config.get("dropout", 0.1),
        "attention_probs_dropout_prob": config.get("attention_dropout", 0.1),
    }
    return shared_spec(
        config | renamed,
        outputs=outputs,
        pooler="relu" if "classifier" in outputs else "none",
        activation=activation_of(config, "activation"),
        norm_eps=NORM_EPS,
        segments=0,
        classifier_dropout=config.get("seq_classif_dropout", 0.2),
    )


def layout(spec: Spec) -> Layout:
    entries = [*embeddings("distilbert.embeddings", segments=False), *blocks(spec)]
    if "masked" in spec.outputs:
        entries += both("outputs.masked.dense", "vocab_transform")
        entries += both("outputs.masked.norm", "vocab_layer_norm")
        entries.append(Entry("outputs.masked.bias", ("vocab_projector.bias",)))
        entries += [] if spec.tied else [Entry("outputs.masked.table.weight", ("vocab_projector.weight",))]
    if "classifier" in spec.outputs:
        entries += both("outputs.pooler", "pre_classifier")
        entries += both("outputs.classifier", "classifier")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    copies = (r"vocab_projector\.weight",) if spec.tied and "masked" in spec.outputs else ()
    return Layout(tuple(entries), prefix="distilbert.", aliases=OLD_NAMES, ignored=(*BUFFERS, *copies))


def blocks(spec: Spec) -> list[Entry]:
    entries: list[Entry] = []
    for i in range(spec.layers):
        ours, theirs = f"encoder.blocks.{i}", f"distilbert.transformer.layer.{i}"
        qkv = tuple(f"{theirs}.attention.{x}_lin" for x in "qkv")
        entries += [
            *both(f"{ours}.attention.qkv", qkv, rows=(spec.width,) * 3),
            *both(f"{ours}.attention.out", f"{theirs}.attention.out_lin"),
            *both(f"{ours}.attention_norm", f"{theirs}.sa_layer_norm"),
            *both(f"{ours}.feedforward.up", f"{theirs}.ffn.lin1"),
            *both(f"{ours}.feedforward.down", f"{theirs}.ffn.lin2"),
            *both(f"{ours}.feedforward_norm", f"{theirs}.output_layer_norm"),
        ]
    return entries
