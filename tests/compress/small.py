"""Random models of every family, small enough to be compressed in a moment."""

from typing import Any

import torch
from torch import Tensor

from amauta.models.spec import Reformer, Sentence, Spec
from amauta.models.transformer import Transformer

V = 90
SMALL: dict[str, Any] = {"vocabulary": V, "context": 24, "width": 32, "layers": 3, "heads": 4, "feedforward": 48}
GPT: dict[str, Any] = {"positions": "learned", "norm": "layer", "gated": False, "bias": True, "activation": "gelu_tanh"}
BERT: dict[str, Any] = GPT | {"kind": "encoder", "norm_place": "post", "embedding_norm": True, "activation": "gelu"}
PAIR: dict[str, Any] = {"kind": "encoder-decoder", "decoder_start": 0}
SPECS = {
    "llama": Spec(**SMALL, kv_heads=2, family="llama"),
    "qwen3": Spec(**SMALL, kv_heads=2, head_width=16, qk_norm=True, family="qwen3"),
    "gemma3_text": Spec(
        **SMALL, head_width=16, qk_norm=True, norm_place="both", activation="gelu_tanh", window=5, full_every=3,
        local_theta=1e3, embedding_scale=32**0.5, family="gemma3_text",
    ),
    "windows": Spec(**SMALL | {"layers": 4}, distinct_layers=2, window=5, full_every=4, family="amauta"),
    "gpt2": Spec(**SMALL, **GPT, family="gpt2"),
    "bert": Spec(**SMALL, **BERT, segments=2, outputs=("masked",), family="bert"),
    "distilbert": Spec(**SMALL, **BERT, outputs=("masked",), family="distilbert"),
    "sentence": Spec(**SMALL, **BERT, segments=2, pooler="tanh", outputs=(), sentence=Sentence(), family="bert"),
    "albert": Spec(**SMALL, **BERT, segments=2, embedding_width=16, distinct_layers=1, outputs=("masked",),
                   family="albert"),
    "t5": Spec(**SMALL, **PAIR, positions="relative", attention_scale=1.0, activation="relu", gated=False, family="t5"),
    "bart": Spec(**SMALL, **PAIR, **GPT, norm_place="post", embedding_norm=True, position_offset=2, family="bart"),
    "shared": Spec(**SMALL, **PAIR, positions="relative", shared_stacks=True, family="amauta"),
    "reformer": Spec(
        vocabulary=V, context=24, width=32, layers=2, heads=4, feedforward=48, positions="learned", norm="layer",
        activation="relu", gated=False, bias=True, qkv_bias=False, tied=False, outputs=("language",), output_bias=True,
        reformer=Reformer(("local", "lsh"), chunk=8, local_chunk=8, buckets=4, hash_seed=3), family="reformer",
    ),
}  # fmt: skip


def model_of(name: str, seed: int = 1, **changes: Any) -> Transformer:
    """A model whose every weight is away from its first value."""
    import dataclasses

    model = Transformer.create(dataclasses.replace(SPECS[name], **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape, generator=generator) * 0.2
    return model.eval()


def rows_of(count: int, length: int = 16, seed: int = 0) -> list[Tensor]:
    """Random rows of ids, the last one shorter."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [length] * (count - 1) + [length - 5]
    return [torch.randint(3, V, (n,), generator=generator) for n in lengths]
