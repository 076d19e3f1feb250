"""RoBERTa's layout (Liu et al. 2019, arXiv 1907.11692), and XLM-RoBERTa's, which is the same.

BERT's encoder whose positions begin after the padding id: the first ``pad_token_id + 1`` rows of the table are unused.
Transformers counts positions over the tokens that are not padding, so ``pad_token_id`` is part of the model here.
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
    pooler_fits,
    pooler_of,
    shared_config,
    shared_spec,
    table,
    tied_copies,
)  # fmt: skip
from amauta.models.exchange.layout import Layout, both
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Output, Spec

MODEL_TYPE = "roberta"
ALIASES = ("xlm-roberta",)  # other model types of the same layout; saved under the first
ARCHITECTURES: dict[str, tuple[Output, ...]] = {
    "RobertaModel": (),
    "RobertaForMaskedLM": ("masked",),
    "RobertaForSequenceClassification": ("classifier",),
    "RobertaForQuestionAnswering": ("span",),
}
MARKS: dict[str, Output] = {
    "lm_head.dense.weight": "masked",
    "classifier.out_proj.weight": "classifier",
    "qa_outputs.weight": "span",
}


def to_config(spec: Spec) -> dict[str, Any] | None:
    name = architecture_of(spec, ARCHITECTURES, MARKS)
    own = spec.embedding_width is None and spec.distinct_layers is None and spec.position_offset and spec.segments
    head = "masked" not in spec.outputs or spec.activation == "gelu"
    if name is None or not own or not head or not is_plain_encoder(spec) or not pooler_fits(spec):
        return None
    return shared_config(spec, name) | {"pad_token_id": spec.position_offset - 1}


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    outputs = outputs_of(config, names, ARCHITECTURES, MARKS)
    dropout = classifier_dropout(config)
    if "masked" in outputs:
        refuse(config, {"hidden_act": ("gelu", "gelu_python")})  # the head's own activation is always gelu
    offset = config.get("pad_token_id", 1) + 1
    return shared_spec(
        config,
        outputs=outputs,
        pooler=pooler_of(outputs, names, "roberta."),
        position_offset=offset,
        pooler_dropout=dropout,
        context=config.get("max_position_embeddings", 514) - offset,
    )


def layout(spec: Spec) -> Layout:
    entries = [*embeddings("roberta.embeddings"), *blocks(spec, "roberta.encoder.layer")]
    classifies = "classifier" in spec.outputs
    if spec.pooler != "none":
        entries += both("outputs.pooler", "classifier.dense" if classifies else "roberta.pooler.dense")
    if "masked" in spec.outputs:
        entries += both("outputs.masked.dense", "lm_head.dense")
        entries += both("outputs.masked.norm", "lm_head.layer_norm")
        entries += table(spec, "lm_head")
    if classifies:
        entries += both("outputs.classifier", "classifier.out_proj")
    if "span" in spec.outputs:
        entries += both("outputs.span", "qa_outputs")
    # a classifier has a dense layer of its own, and the first model's, which older files still hold, is not used
    unused = (r"pooler\.dense\.(weight|bias)",) if classifies else ()
    ignored = (*BUFFERS, *unused, *tied_copies(spec, "lm_head"))
    return Layout(tuple(entries), prefix="roberta.", aliases=OLD_NAMES, ignored=ignored)
