"""A model is never saved as another: a family that says it can hold a spec brings back what the model computes.

Each family's own spec is changed field by field. A family that cannot hold the change must leave the model to another
one or to our own layout; one that forgets to look would write the config.json of a different model.
"""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.models import exchange
from amauta.models.spec import RopeScaling, Spec
from amauta.models.transformer import Transformer
from tests.models.parity import V, disturbed, tokens

SMALL: dict[str, Any] = {"vocabulary": V, "context": 24, "width": 32, "layers": 2, "heads": 4, "feedforward": 128}
GPT: dict[str, Any] = {"positions": "learned", "norm": "layer", "gated": False, "bias": True, "activation": "gelu_tanh"}
PAIR: dict[str, Any] = {"kind": "encoder-decoder", "outputs": ("language",)}
SPECS = {
    "llama": Spec(**SMALL),
    "qwen3": Spec(**SMALL, qk_norm=True),
    "mistral": Spec(**SMALL, window=5),
    "qwen2": Spec(**SMALL, qkv_bias=True),
    "gemma3_text": Spec(
        **SMALL, qk_norm=True, norm_place="both", embedding_scale=32**0.5, window=5, full_every=2, local_theta=1e3
    ),
    "gpt2": Spec(**SMALL, **GPT),
    "openai-gpt": Spec(**SMALL, **GPT, norm_place="post"),
    "t5": Spec(**SMALL, **PAIR, positions="relative", attention_scale=1.0, activation="gelu_tanh"),
    "bart": Spec(
        **SMALL, **PAIR, **GPT, norm_place="post", embedding_norm=True, position_offset=2, output_bias=True
    ),
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {"kv_heads": 2}, {"head_width": 10}, {"feedforward": 44}, {"positions": "rotary"}, {"positions": "learned"},
    {"positions": "relative"}, {"norm": "rms"}, {"norm": "layer"}, {"norm_place": "pre"}, {"norm_place": "post"},
    {"norm_place": "both"}, {"activation": "silu"}, {"activation": "gelu"}, {"activation": "gelu_tanh"},
    {"activation": "relu"}, {"gated": True}, {"gated": False}, {"bias": True}, {"bias": False}, {"qk_norm": True},
    {"qk_norm": False}, {"tied": False}, {"rope_theta": 50.0}, {"norm_eps": 0.1}, {"kind": "decoder"},
    {"kind": "encoder", "outputs": ()}, {"kind": "encoder-decoder"}, {"decoder_layers": 1}, {"distinct_layers": 1},
    {"shared_stacks": True}, {"embedding_width": 12, "tied": False},
    {"embedding_width": 32}, {"embedding_norm": True}, {"embedding_norm": False},
    {"embedding_scale": 3.0}, {"embedding_scale": 1.0}, {"segments": 2}, {"position_offset": 1}, {"position_offset": 0},
    {"relative_buckets": 6}, {"relative_distance": 20}, {"rope_scaling": RopeScaling("linear", 4.0)},
    {"rope_scaling": RopeScaling("llama3", 4.0, original=8)}, {"window": 3}, {"window": None}, {"full_every": None},
    {"full_every": 1}, {"window": 3, "full_every": 2}, {"window": 3, "local_theta": 40.0}, {"local_theta": None},
    {"local_theta": None, "rope_scaling": RopeScaling("linear", 4.0)},
    {"attention_scale": 0.3}, {"attention_scale": None}, {"attention_scale": 12**-0.5}, {"qkv_bias": True},
    {"qkv_bias": False}, {"output_scale": 0.5}, {"output_scale": 32**-0.5}, {"tied": False, "output_scale": 32**-0.5},
    {"output_bias": True}, {"output_bias": False}, {"pooler": "tanh"}, {"outputs": ()}, {"outputs": ("masked",)},
    {"outputs": ("language", "value")}, {"outputs": ("classifier",)},
    {"outputs": ("classifier",), "pooling": "last", "classifier_bias": False},
    {"outputs": ("classifier",), "pooling": "last", "classifier_bias": False, "labels": 1},
    {"outputs": ("classifier",), "pooling": "last", "classifier_bias": False, "pooler": "tanh"},
    {"outputs": ("classifier",), "pooling": "last", "pooler": "tanh", "label_names": ("a", "b")},
    {"outputs": ("classifier",), "pooling": "mean", "pooler": "tanh"},
    {"outputs": ("classifier",), "pooling": "last", "pooler": "relu"},
]  # fmt: skip


def claims(spec: Spec) -> list[str]:
    """The published families that say they can hold the spec."""
    modules = [import_module(f"{exchange.__name__}.{name}") for name in exchange.FAMILIES if name != "native"]
    return [module.MODEL_TYPE for module in modules if module.to_config(spec) is not None]


@torch.no_grad()
def computed(model: Transformer) -> list[torch.Tensor]:
    """Hidden states and every output."""
    ids = tokens(2, 20)
    hidden = model(ids, decoder_ids=tokens(2, 11, seed=2) if model.spec.kind == "encoder-decoder" else None)
    return [hidden, *(model.logits(hidden, output=name) for name in model.spec.outputs)]


@pytest.mark.parametrize("name", SPECS)
def test_a_changed_spec_is_itself_again_or_left_to_another(name: str, tmp_path: Path):
    assert name in claims(SPECS[name])
    others = 0
    for change in CHANGES:
        spec = dataclasses.replace(SPECS[name], **change)
        claimed = claims(spec)
        others += name not in claimed
        for family in claimed:
            ours = disturbed(Transformer.create(dataclasses.replace(spec, family=family), seed=1))
            exchange.save(ours, tmp_path)
            again = exchange.load(tmp_path)
            assert again.spec.family == family and again.spec.outputs == spec.outputs
            for before, after in zip(computed(ours), computed(again), strict=True):
                assert torch.allclose(before, after, atol=1e-6, rtol=1e-5), f"{change} as {family}"
    assert others > 20  # changes that the family leaves to others
