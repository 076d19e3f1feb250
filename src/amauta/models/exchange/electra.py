"""ELECTRA's layout (Clark et al. 2020, arXiv 2003.10555): a generator ("masked") or a discriminator ("detector").

BERT's encoder with embeddings that may be narrower, a classifier with a dense layer and GELU, and no pooler.
"""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange.bert import (
    BUFFERS,
    OLD_NAMES,
    architecture_of,
    blocks,
    classifier_dropout,
    embeddings,
    is_plain_encoder,
    shared_config,
    shared_spec,
)  # fmt: skip
from amauta.models.exchange.layout import Entry, Layout, both
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Output, Spec

MODEL_TYPE = "electra"
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "ElectraModel": (),
    "ElectraForMaskedLM": ("masked",),
    "ElectraForPreTraining": ("detector",),
    "ElectraForSequenceClassification": ("classifier",),
    "ElectraForQuestionAnswering": ("span",),
}
MARKS: dict[str, Output] = {
    "generator_predictions.dense.weight": "masked",
    "discriminator_predictions.dense.weight": "detector",
    "classifier.out_proj.weight": "classifier",
    "qa_outputs.weight": "span",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    name = architecture_of(spec, ARCHITECTURES, MARKS)
    own = spec.embedding_width != spec.width and spec.distinct_layers is None and not spec.position_offset
    head = "masked" not in spec.outputs or spec.activation == "gelu"
    pooler = spec.pooler == ("gelu" if "classifier" in spec.outputs else "none")
    if name is None or not own or not spec.segments or not head or not pooler or not is_plain_encoder(spec):
        return None
    return shared_config(spec, name) | {"embedding_size": spec.embedded}


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    dropout = classifier_dropout(config)
    if "masked" in outputs:
        refuse(config, {"hidden_act": ("gelu", "gelu_python")})  # the generator's head is always gelu
    embedded, width = config.get("embedding_size", 128), config["hidden_size"]
    return shared_spec(
        config,
        outputs=outputs,
        pooler="gelu" if "classifier" in outputs else "none",
        embedding_width=None if embedded == width else embedded,
        pooler_dropout=dropout,
    )


def layout(spec: Spec) -> Layout:
    entries = [*embeddings("electra.embeddings"), *blocks(spec, "electra.encoder.layer")]
    if spec.embedding_width is not None:
        entries += both("encoder.embedding_map", "electra.embeddings_project")
    if "masked" in spec.outputs:
        entries += both("outputs.masked.dense", "generator_predictions.dense")
        entries += both("outputs.masked.norm", "generator_predictions.LayerNorm")
        entries.append(Entry("outputs.masked.bias", ("generator_lm_head.bias",)))
        entries += [] if spec.tied else [Entry("outputs.masked.table.weight", ("generator_lm_head.weight",))]
    if "detector" in spec.outputs:
        entries += both("outputs.detector.dense", "discriminator_predictions.dense")
        entries += both("outputs.detector.out", "discriminator_predictions.dense_prediction")
    if "classifier" in spec.outputs:
        entries += both("outputs.pooler", "classifier.dense")
        entries += both("outputs.classifier", "classifier.out_proj")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    copies = (r"generator_lm_head\.weight",) if spec.tied and "masked" in spec.outputs else ()
    return Layout(tuple(entries), prefix="electra.", aliases=OLD_NAMES, ignored=(*BUFFERS, *copies))
