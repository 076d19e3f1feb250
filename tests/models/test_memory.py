"""Memory: published figures, the real optimisers' and the real cache's bytes, the formula for activations."""

from typing import Any

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models import memory
from amauta.models.count import parameters
from amauta.models.sizes import named
from amauta.models.spec import Reformer, Spec
from amauta.models.transformer import Transformer
from amauta.optim.groups import Optimizers
from amauta.optim.settings import Optim

SMALL: dict[str, Any] = {"vocabulary": 13, "context": 16, "width": 8, "layers": 3, "heads": 2}
GPT2: dict[str, Any] = {"positions": "learned", "norm": "layer", "gated": False, "bias": True}


def test_weights_of_70_billion():
    spec = named("llama-2-70b")
    gigabytes = {kind: round(memory.weights(spec, bits) / 1e9, 1) for kind, bits in memory.BITS.items()}
    assert gigabytes == {"f64": 551.8, "f32": 275.9, "bf16": 138.0, "int8": 69.0, "int4": 34.5}


@pytest.mark.parametrize(
    ("precision", "adamw", "momentum", "sgd"),
    [("f32", 16, 12, 8), ("mixed", 16, 12, 8), ("bf16-moments-f32", 12, 8, 4), ("bf16", 8, 6, 4)],
)
def test_bytes_of_a_parameter_in_training(precision: str, adamw: int, momentum: int, sgd: int):
    """With 7·10⁹ parameters AdamW's are the 112, 84 and 56 GB of "80 GB to train 7B"."""
    spec = named("llama-2-7b")
    for optimizer, wanted in (("adamw", adamw), ("sgd-momentum", momentum), ("sgd", sgd)):
        assert memory.states(spec, precision, optimizer).total == wanted * parameters(spec)


def test_moments_in_8_bits():
    spec = Spec(**SMALL)
    assert parameters(spec) == 3232  # two blocks of 2,048, the second begun
    assert memory.states(spec, "f32", "adamw-8bit").moments == 2 * (3232 + 2 * 4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "more", [{"qk_norm": True}, GPT2, {"kind": "encoder-decoder", "shared_stacks": True, "decoder_layers": 2}, 
             {"kind": "encoder", "distinct_layers": 1, "outputs": ("masked",)}], 
    ids=["llama", "gpt2", "shared", "one-layer"],
)  # fmt: skip
def test_moments_are_those_of_the_real_optimiser(optimizer: Any, more: dict[str, Any]):
    spec = Spec(**SMALL, **more)
    model = Transformer.create(spec, seed=0)
    members = Optimizers(model, Optim(optimizer=optimizer), splits=model.packed_rows())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    members.step(1.0)
    held = sum(value.nbytes for name, value in members.tensors().items() if not name.endswith("/step"))
    assert memory.states(spec, "f32", optimizer).moments == held


@pytest.mark.parametrize("bits", [16, 32])
def test_the_cache_is_as_large_as_ours(bits: int):
    spec = Spec(**SMALL, kv_heads=1, head_width=6)
    cache = Transformer(spec).new_cache(3, 10, dtype={16: torch.bfloat16, 32: torch.float32}[bits])
    assert memory.cache(spec, 10, rows=3, bits=bits) == cache.keys.nbytes + cache.values.nbytes


def test_the_cache_of_an_encoder_decoder_is_as_large_as_ours():
    spec = Spec(**SMALL, kind="encoder-decoder", positions="relative", head_width=6, decoder_layers=2)
    model = Transformer.create(spec, seed=0).eval()
    cache = model.new_cache(2, 4)
    model(torch.ones(2, 7, dtype=torch.int64), decoder_ids=torch.ones(2, 4, dtype=torch.int64), cache=cache)
    across = sum(held.nbytes for pair in cache.across.values() for held in pair)
    assert memory.cache(spec, 4, rows=2, bits=32, source=7) == cache.keys.nbytes + cache.values.nbytes + across


def test_cache_by_hand():
    assert memory.cache(named("llama-2-70b"), 1) == 2 * 8 * 128 * 80 * 2  # 320 KiB a token
    assert memory.cache(named("bert-base"), 512) == 0
    assert memory.cache(Spec(**SMALL, reformer=Reformer(("lsh",) * 3)), 16) == 0
    windowed = Spec(**SMALL, window=4, full_every=3)  # layers 1 and 2 have it, layer 3 not
    assert memory.cache(windowed, 16) == 2 * 2 * 4 * (16 + 16 + 16) * 2
    assert memory.cache(windowed, 16, windows=True) == 2 * 2 * 4 * (4 + 4 + 16) * 2


def test_activations_of_gpt2_are_korthikantis():
    spec = named("gpt2", dropout=0.1, attention_dropout=0.1)
    T, B, D, H, L = 1024, 4, 768, 12, 12
    assert memory.activations(spec, T, rows=B) == L * T * B * (34 * D + 5 * H * T)
    assert memory.activations(spec, T, rows=B, kept="no-squares") == L * T * B * 34 * D
    assert memory.activations(spec, T, rows=B, kept="layer-inputs") == L * T * B * 2 * D


def test_activations_of_other_blocks_by_hand():
    llama = Spec(**SMALL, kv_heads=1, feedforward=20)  # D 8, H 2, G 1, K 4
    token = 2 * (8 + 8 + 8 + 8 + 4 + 4 + 8 + 8 + 4 * 20)  # norm, qkv, q, k, v, out; norm, up; gate, up, act, product
    assert memory.activations(llama, 5, kept="no-squares") == 3 * 5 * token
    assert memory.activations(llama, 5) == 3 * 5 * (token + 2 * 2 * 5)  # the softmax: 2 heads, 2 bytes, 5 keys
    windowed = Spec(**SMALL, kv_heads=1, feedforward=20, window=2)
    assert memory.activations(llama, 5) - memory.activations(windowed, 5) == 3 * 5 * 2 * 2 * 3


def test_activations_of_an_encoder_decoder_by_hand():
    spec = Spec(**SMALL | {"layers": 1}, kind="encoder-decoder", positions="relative", gated=False, feedforward=20)
    layer = 2 * (8 + 8 + 8 + 8 + 8 + 8) + 2 * (
        8 + 8 + 2 * 20
    )  # norm, qkv, q, k, v, out; norm, up, before and after act
    across = 2 * (8 + 8 + 8 + 8)  # a token of the decoder: norm, q's input, q, out
    source = 2 * 8 + 2 * 2 * 8  # a token of the encoder: its state, k and v
    without = 7 * (layer + source) + 5 * (layer + across)
    assert memory.activations(spec, 5, source=7, kept="no-squares") == without
    assert memory.activations(spec, 5, source=7) == without + 2 * 2 * (7 * 7 + 5 * (5 + 7))


def test_activations_of_a_reformer_have_no_formula():
    with pytest.raises(ModelError, match="Reformer"):
        memory.activations(Spec(**SMALL, reformer=Reformer(("lsh",) * 3)), 16)
