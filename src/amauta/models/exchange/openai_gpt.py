"""The first GPT's layout (Radford et al. 2018): GPT-2's names, norms after the residuals, no norm at the end."""

from collections.abc import Collection
from typing import Any

from amauta.models.exchange import gpt2
from amauta.models.exchange.layout import Entry, Layout
from amauta.models.exchange.llama import label_config, labels_of
from amauta.models.exchange.options import outputs_of, refuse
from amauta.models.spec import Activation, Spec

MODEL_TYPE = "openai-gpt"
ACTIVATION: dict[Activation, str] = {
    "gelu_tanh": "gelu",
    "relu": "relu",
    "silu": "silu",
}  # its "gelu" is the tanh approximation


def to_config(spec: Spec) -> dict[str, Any] | None:
    fits = spec.norm_place == "post" and spec.inner == 4 * spec.width and spec.activation in ACTIVATION
    if not fits or not gpt2.expresses(spec):
        return None
    suffix = next(suffix for suffix, outputs in gpt2.ARCHITECTURES.items() if outputs == spec.outputs)
    return {
        "architectures": ["OpenAIGPT" + suffix],
        "vocab_size": spec.vocabulary,
        "n_positions": spec.context,
        "n_embd": spec.width,
        "n_layer": spec.layers,
        "n_head": spec.heads,
        "afn": ACTIVATION[spec.activation],
        "layer_norm_epsilon": spec.norm_eps,
        "initializer_range": spec.init_std,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": spec.embedding_dropout,
        "attn_pdrop": spec.attention_dropout,
        "tie_word_embeddings": True,
        **label_config(spec),
    }


def to_spec(config: dict[str, Any], names: Collection[str] = ()) -> Spec:
    refuse(config, {"tie_word_embeddings": (True,), "afn": (*ACTIVATION.values(), "swish")})
    ours: dict[str, Activation] = {**{theirs: ours for ours, theirs in ACTIVATION.items()}, "swish": "silu"}
    return Spec(
        vocabulary=config["vocab_size"],
        context=config.get("n_positions", 512),
        width=config["n_embd"],
        layers=config["n_layer"],
        heads=config["n_head"],
        positions="learned",
        norm="layer",
        norm_place="post",
        activation=ours[config.get("afn", "gelu")],
        gated=False,
        bias=True,
        tied=True,
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        init_std=config.get("initializer_range", 0.02),
        dropout=config.get("resid_pdrop", 0.1),
        embedding_dropout=config.get("embd_pdrop", 0.1),
        attention_dropout=config.get("attn_pdrop", 0.1),
        outputs=outputs_of(config, names, gpt2.ARCHITECTURES, gpt2.MARKS),
        pooling="last",
        classifier_bias=False,
        **labels_of(config),
    )


def layout(spec: Spec) -> Layout:
    entries = [
        Entry("embedding.weight", ("transformer.tokens_embed.weight",)),
        Entry("decoder.positions.weight", ("transformer.positions_embed.weight",)),
    ]
    for i in range(spec.layers):
        entries += gpt2.block(f"decoder.blocks.{i}", f"transformer.h.{i}")
    if "classifier" in spec.outputs:
        entries.append(Entry("outputs.classifier.weight", ("score.weight",)))
    carried = (r"h\.\d+\.attn\.bias", "lm_head.weight", "position_ids")  # masks and copies of older files
    return Layout(tuple(entries), prefix="transformer.", ignored=carried)
