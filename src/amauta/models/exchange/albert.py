"""ALBERT's layout (Lan et al. 2019, arXiv 1909.11942): narrow embeddings, and layers that share their weights."""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.bert import (
    BUFFERS,
    OLD_NAMES,
    architecture_of,
    embeddings,
    is_plain_encoder,
    pooler_fits,
    pooler_of,
    shared_config,
    shared_spec,
    table,
    tied_copies,
)  # fmt: skip
from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Output, Spec

MODEL_TYPE = "albert"
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "AlbertModel": (),
    "AlbertForMaskedLM": ("masked",),
    "AlbertForPreTraining": ("masked", "pair"),
    "AlbertForSequenceClassification": ("classifier",),
    "AlbertForQuestionAnswering": ("span",),
}
MARKS: dict[str, Output] = {
    "predictions.dense.weight": "masked",
    "sop_classifier.classifier.weight": "pair",
    "classifier.weight": "classifier",
    "qa_outputs.weight": "span",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    name = architecture_of(spec, ARCHITECTURES, MARKS)
    own = spec.embedding_width is not None and spec.distinct_layers is not None and not spec.position_offset
    if name is None or not own or not spec.segments or not is_plain_encoder(spec) or not pooler_fits(spec):
        return None
    groups = {"embedding_size": spec.embedded, "num_hidden_groups": spec.distinct_layers, "inner_group_num": 1}
    config = shared_config(spec, name) | groups
    return config | {"classifier_dropout_prob": config.pop("classifier_dropout")}


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    # the last four are of the first ALBERT files, which keep them at these values
    refuse(config, {"inner_group_num": (1,), "gap_size": (0,), "net_structure_type": (0,), "num_memory_blocks": (0,),
                    "down_scale_factor": (1,)})  # fmt: skip
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    return shared_spec(
        {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | config,
        outputs=outputs,
        pooler=pooler_of(outputs, names, "albert.", layer="pooler"),
        embedding_width=config.get("embedding_size", 128),
        distinct_layers=config.get("num_hidden_groups", 1),
        classifier_dropout=config.get("classifier_dropout_prob", 0.1),
    )


def layout(spec: Spec) -> Layout:
    entries = [
        *embeddings("albert.embeddings"),
        *both("encoder.embedding_map", "albert.encoder.embedding_hidden_mapping_in"),
        *blocks(spec),
    ]
    if spec.pooler != "none":
        entries += both("outputs.pooler", "albert.pooler")
    if "masked" in spec.outputs:
        entries += both("outputs.masked.dense", "predictions.dense")
        entries += both("outputs.masked.norm", "predictions.LayerNorm")
        entries += table(spec, "predictions")
    if "pair" in spec.outputs:
        entries += both("outputs.pair", "sop_classifier.classifier")
    if "classifier" in spec.outputs:
        entries += both("outputs.classifier", "classifier")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    ignored = (*BUFFERS, *tied_copies(spec, "predictions"))
    return Layout(tuple(entries), prefix="albert.", aliases=OLD_NAMES, ignored=ignored)


def blocks(spec: Spec) -> list[Entry]:
    """The distinct layers, one a group."""
    entries: list[Entry] = []
    for i in range(spec.distinct_layers or 0):
        ours, theirs = f"encoder.blocks.{i}", f"albert.encoder.albert_layer_groups.{i}.albert_layers.0"
        qkv = tuple(f"{theirs}.attention.{name}" for name in ("query", "key", "value"))
        entries += [
            *both(f"{ours}.attention.qkv", qkv, rows=(spec.width,) * 3),
            *both(f"{ours}.attention.out", f"{theirs}.attention.dense"),
            *both(f"{ours}.attention_norm", f"{theirs}.attention.LayerNorm"),
            *both(f"{ours}.feedforward.up", f"{theirs}.ffn"),
            *both(f"{ours}.feedforward.down", f"{theirs}.ffn_output"),
            *both(f"{ours}.feedforward_norm", f"{theirs}.full_layer_layer_norm"),
        ]
    return entries
