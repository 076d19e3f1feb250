"""Sizes by name: our own for a laptop, and those that were published. No torch here.

A size says how large a model is and how it is built; dropout and rates belong to the run that trains it.
"""

from dataclasses import asdict, fields
from typing import Any

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean
from amauta.models.spec import RopeScaling, Sentence, Shape, Spec

Fields = dict[str, Any]

# What the sizes of a family share ---------------------------------------------------------------------------------

GPT2: Fields = {
    "positions": "learned", "norm": "layer", "activation": "gelu_tanh", "gated": False, "bias": True, "tied": True,
}  # fmt: skip
OPENAI = {"vocabulary": 50_257, "context": 1024} | GPT2
GPT3 = {"vocabulary": 50_257, "context": 2048} | GPT2  # dense: theirs alternates dense and banded sparse attention
LLAMA = {"vocabulary": 32_000, "context": 2048, "tied": False, "norm_eps": 1e-6}
LLAMA2 = LLAMA | {"context": 4096, "norm_eps": 1e-5}
LLAMA3 = {"vocabulary": 128_256, "context": 8192, "tied": False, "rope_theta": 500_000.0}
BERT = {
    "kind": "encoder", "vocabulary": 30_522, "context": 512, "positions": "learned", "segments": 2,
    "embedding_norm": True, "norm": "layer", "norm_place": "post", "norm_eps": 1e-12, "activation": "gelu",
    "gated": False, "bias": True, "outputs": (), "pooler": "tanh",
}  # fmt: skip
# The model that the pre-training heads stand on; with them: named("bert-base", outputs=("masked", "pair")).
ROBERTA = BERT | {
    "vocabulary": 50_265, "segments": 1, "position_offset": 2, "norm_eps": 1e-5, "outputs": ("masked",),
    "pooler": "none",
}  # fmt: skip
ALBERT = BERT | {"vocabulary": 30_000, "embedding_width": 128, "activation": "gelu_tanh", "distinct_layers": 1}
ELECTRA = BERT | {"pooler": "none", "outputs": ("detector",)}
GENERATOR = BERT | {"pooler": "none", "outputs": ("masked",)}
T5 = {
    "kind": "encoder-decoder", "vocabulary": 32_128, "context": 512, "positions": "relative", "norm_eps": 1e-6,
    "activation": "relu", "gated": False, "attention_scale": 1.0, "decoder_start": 0,
}  # fmt: skip
T511 = T5 | {"activation": "gelu_tanh", "gated": True, "tied": False}
BART = {
    "kind": "encoder-decoder", "vocabulary": 50_265, "context": 1024, "positions": "learned", "position_offset": 2,
    "embedding_norm": True, "norm": "layer", "norm_place": "post", "activation": "gelu", "gated": False, "bias": True,
    "decoder_start": 2,
}  # fmt: skip
QWEN3 = {"vocabulary": 151_936, "context": 40_960, "qk_norm": True, "rope_theta": 1e6, "norm_eps": 1e-6}
GEMMA3 = {
    "vocabulary": 262_144, "context": 32_768, "norm_place": "both", "norm_eps": 1e-6, "activation": "gelu_tanh",
    "qk_norm": True, "rope_theta": 1e6, "local_theta": 1e4, "full_every": 6,
}  # fmt: skip


def _of(family: Fields, layers: int, width: int, heads: int, **more: Any) -> Fields:
    return family | {"layers": layers, "width": width, "heads": heads} | more


def _t5(layers: int, width: int, heads: int, feedforward: int, head_width: int = 64) -> Fields:
    # hidden states are multiplied by D^-½ before a tied table, which was not scaled down when it was made
    return _of(T5, layers, width, heads, feedforward=feedforward, head_width=head_width, output_scale=width**-0.5)


# The sizes --------------------------------------------------------------------------------------------------------

NAMED: dict[str, Fields] = {
    # for a laptop's processor; vocabulary and context come from the tokenizer and the run
    "nano": {"width": 128, "layers": 4, "heads": 4, "qk_norm": True},
    "demo": {"width": 192, "layers": 4, "heads": 3, "feedforward": 768, "qk_norm": True},
    "mini": {"width": 384, "layers": 6, "heads": 6, "feedforward": 1024},
    "small": {"width": 512, "layers": 8, "heads": 8, "qk_norm": True},
    # decoders: layers, width, heads
    "openai-gpt": _of(GPT2, 12, 768, 12, vocabulary=40_478, context=512, norm_place="post"),
    "gpt2": _of(OPENAI, 12, 768, 12),
    "gpt2-medium": _of(OPENAI, 24, 1024, 16),
    "gpt2-large": _of(OPENAI, 36, 1280, 20),
    "gpt2-xl": _of(OPENAI, 48, 1600, 25),
    # GPT-3 XL (24 layers of 2048 in 24 heads of 128) and 13B (40 of 5140 in 40 of 128) are left out: as printed, their
    # heads do not make up the width (Brown et al. 2020, arXiv 2005.14165, table 2.1)
    "gpt3-small": _of(GPT3, 12, 768, 12),
    "gpt3-medium": _of(GPT3, 24, 1024, 16),
    "gpt3-large": _of(GPT3, 24, 1536, 16),
    "gpt3-2.7b": _of(GPT3, 32, 2560, 32),
    "gpt3-6.7b": _of(GPT3, 32, 4096, 32),
    "gpt3-175b": _of(GPT3, 96, 12_288, 96),
    "llama-7b": _of(LLAMA, 32, 4096, 32, feedforward=11_008),
    "llama-13b": _of(LLAMA, 40, 5120, 40, feedforward=13_824),
    "llama-33b": _of(LLAMA, 60, 6656, 52, feedforward=17_920),
    "llama-65b": _of(LLAMA, 80, 8192, 64, feedforward=22_016),
    "llama-2-7b": _of(LLAMA2, 32, 4096, 32, feedforward=11_008),
    "llama-2-13b": _of(LLAMA2, 40, 5120, 40, feedforward=13_824),
    "llama-2-70b": _of(LLAMA2, 80, 8192, 64, kv_heads=8, feedforward=28_672),
    "llama-3-8b": _of(LLAMA3, 32, 4096, 32, kv_heads=8, feedforward=14_336),
    "llama-3-70b": _of(LLAMA3, 80, 8192, 64, kv_heads=8, feedforward=28_672),
    "llama-3.2-1b": _of(LLAMA3, 16, 2048, 32, kv_heads=8, feedforward=8192, tied=True, context=131_072,
                        rope_scaling=RopeScaling("llama3", 32.0)),
    "tinyllama": _of(LLAMA2, 22, 2048, 32, context=2048, kv_heads=4, feedforward=5632),
    "smollm2-135m": _of({"vocabulary": 49_152, "context": 8192, "rope_theta": 100_000.0}, 30, 576, 9, kv_heads=3,
                        feedforward=1536),
    "mistral-7b": _of(LLAMA2, 32, 4096, 32, context=32_768, kv_heads=8, feedforward=14_336, window=4096),  # v0.1
    "qwen3-0.6b": _of(QWEN3, 28, 1024, 16, kv_heads=8, head_width=128, feedforward=3072),
    "gemma3-270m": _of(GEMMA3, 18, 640, 4, kv_heads=1, head_width=256, feedforward=2048, window=512,
                       embedding_scale=640**0.5),
    # encoders
    "bert-base": _of(BERT, 12, 768, 12),
    "bert-large": _of(BERT, 24, 1024, 16),
    "distilbert": _of(BERT, 6, 768, 12, segments=0, pooler="none"),
    "minilm-l6": _of(BERT, 6, 384, 12, sentence=Sentence(longest=256)),
    "roberta-base": _of(ROBERTA, 12, 768, 12),
    "roberta-large": _of(ROBERTA, 24, 1024, 16),
    "albert-base": _of(ALBERT, 12, 768, 12),
    "albert-large": _of(ALBERT, 24, 1024, 16),
    "albert-xlarge": _of(ALBERT, 24, 2048, 16),
    "albert-xxlarge": _of(ALBERT, 12, 4096, 64),
    "electra-small": _of(ELECTRA, 12, 256, 4, embedding_width=128),  # discriminators
    "electra-base": _of(ELECTRA, 12, 768, 12),
    "electra-large": _of(ELECTRA, 24, 1024, 16),
    "electra-base-generator": _of(GENERATOR, 12, 256, 4, embedding_width=768),
    "electra-large-generator": _of(GENERATOR, 24, 256, 4, embedding_width=1024),
    # encoder-decoders: layers of each
    "t5-small": _t5(6, 512, 8, 2048),
    "t5-base": _t5(12, 768, 12, 3072),
    "t5-large": _t5(24, 1024, 16, 4096),
    "t5-3b": _t5(24, 1024, 32, 16_384, head_width=128),
    "t5-11b": _t5(24, 1024, 128, 65_536, head_width=128),
    "t5.1.1-small": _of(T511, 8, 512, 6, head_width=64, feedforward=1024),
    "t5.1.1-base": _of(T511, 12, 768, 12, head_width=64, feedforward=2048),
    "t5.1.1-large": _of(T511, 24, 1024, 16, head_width=64, feedforward=2816),
    "t5.1.1-xl": _of(T511, 24, 2048, 32, head_width=64, feedforward=5120),
    "t5.1.1-xxl": _of(T511, 24, 4096, 64, head_width=64, feedforward=10_240),
    "bart-base": _of(BART, 6, 768, 12),  # without the bias on the logits, which is 0 in the published files
    "bart-large": _of(BART, 12, 1024, 16),
}  # fmt: skip


def fields_named(name: str) -> Fields:
    """The fields of the size called ``name``; ModelError with the nearest name when there is none."""
    if name not in NAMED:
        raise ModelError("model.unknown-size", name=name, hint=did_you_mean(name, NAMED))
    return dict(NAMED[name])


def shape_named(name: str) -> Fields:
    """The fields of the size called ``name`` without its vocabulary, for a decoder that is to be trained.

    Raises ModelError: no size has this name, or this one is not whole without fields that a Shape has not.
    """
    found = fields_named(name)
    found.pop("vocabulary", None)
    if beyond := _beyond_shape(found):
        shapes = ", ".join(each for each, table in NAMED.items() if not _beyond_shape(table))
        raise ModelError("model.size-is-no-shape", name=name, fields=", ".join(beyond), names=shapes)
    return found


def named(name: str, **changes: Any) -> Spec:
    """The spec called ``name`` with ``changes``; its published vocabulary unless another is given.

    Raises ModelError: no size has this name, or it brings no vocabulary and none is given.
    """
    found = fields_named(name) | changes
    if "vocabulary" not in found:
        raise ModelError("model.size-needs-vocabulary", name=name)
    return Spec(**found)


def complete(shape: Shape, vocabulary: int) -> Spec:
    """A shape with a vocabulary."""
    return Spec(**asdict(shape) | {"vocabulary": vocabulary})


def _beyond_shape(table: Fields) -> list[str]:
    """The fields of a size, its vocabulary aside, that only a Spec has."""
    known = {one.name for one in fields(Shape)} | {"vocabulary"}
    return [name for name in table if name not in known]
