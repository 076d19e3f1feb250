"""Counting: parts equal the built model's tensors for any spec, FLOPs equal torch's own counter."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from amauta.models import count
from amauta.models.sizes import named
from amauta.models.spec import Reformer, Sentence, Spec
from amauta.models.transformer import Transformer

OUTPUTS = ("language", "masked", "classifier", "pair", "detector", "span", "value")


def part_of(name: str) -> str:
    """The part that a tensor belongs to, by its name."""
    if name.startswith("outputs."):
        return ".".join(name.split(".")[:2])
    stack, _, rest = name.partition(".")
    if stack == "embedding":
        return stack
    within = re.fullmatch(r"blocks\.\d+\.(\w+)\..*", rest)
    part = within[1] if within else rest.partition(".")[0]
    norms = part == "norm" or part.endswith("_after") or part.endswith("_norm") and part != "embedding_norm"
    return f"{stack}.{'norms' if norms else part}"


def tensors_by_part(spec: Spec) -> dict[str, int]:
    with torch.device("meta"):
        model = Transformer(spec)
    found: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        found[part_of(name)] += parameter.numel()
    return dict(found)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Small valid specs of every kind."""
    heads = draw(st.sampled_from([1, 2, 4]))
    distinct = draw(st.sampled_from([None, 1, 2]))
    flags = {name: draw(st.booleans()) for name in ("gated", "bias", "qk_norm", "tied", "embedding_norm",
                                                    "output_bias", "classifier_bias", "shared_stacks")}  # fmt: skip
    pick: dict[str, list[Any]] = {
        "kind": ["decoder", "encoder", "encoder-decoder"], "positions": ["rotary", "learned", "relative"],
        "norm": ["rms", "layer"], "norm_place": ["pre", "post", "both"], "head_width": [None, 2, 6],
        "feedforward": [None, 5], "embedding_width": [None, 3], "segments": [0, 2], "position_offset": [0, 2],
        "qkv_bias": [None, True, False], "pooler": ["none", "tanh"], "labels": [1, 3],
        "decoder_layers": [None, 2, 6], "sentence": [None, Sentence(), Sentence(dense=7)],
        "kv_heads": [None, *(n for n in (1, 2, 4) if heads % n == 0)],
    }  # fmt: skip
    chosen = {name: draw(st.sampled_from(values)) for name, values in pick.items()}
    outputs = draw(st.lists(st.sampled_from(OUTPUTS), unique=True))
    flags["tied"] &= chosen["embedding_width"] is None or "language" not in outputs
    layers = draw(st.sampled_from([2, 4] if distinct == 2 else [1, 2, 3]))
    return Spec(
        vocabulary=11, context=9, width=8, layers=layers, heads=heads, distinct_layers=distinct,
        outputs=tuple(outputs), **flags, **chosen,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(specs())
def test_parts_are_those_of_the_built_model(spec: Spec):
    assert count.parts(spec) == tensors_by_part(spec)
    assert count.parameters(spec) == sum(tensors_by_part(spec).values())


@pytest.mark.parametrize("axial", [{}, {"axial_shape": (4, 8), "axial_widths": (3, 5)}], ids=["learned", "axial"])
@pytest.mark.parametrize(
    ("kind", "outputs", "pooler"), [("decoder", ("language",), "none"), ("encoder", OUTPUTS[1:], "tanh"),
                                    ("encoder", OUTPUTS[1:], "none")],
)  # fmt: skip
def test_parts_of_a_reformer(kind: Any, outputs: Any, pooler: Any, axial: dict[str, Any]):
    spec = Spec(
        vocabulary=11, context=32, width=8, layers=3, heads=2, positions="learned", norm="layer", activation="relu",
        gated=False, bias=True, qkv_bias=False, tied=False, output_bias=True, kind=kind, outputs=outputs,
        pooler=pooler, sentence=Sentence(dense=7), reformer=Reformer(("local", "lsh", "lsh"), **axial),
    )  # fmt: skip
    assert count.parts(spec) == tensors_by_part(spec)


SMALL: dict[str, Any] = {"vocabulary": 13, "context": 16, "width": 8, "layers": 3, "heads": 2}
LAYER: dict[str, Any] = {"positions": "learned", "norm": "layer", "gated": False, "bias": True}
COSTLY = {
    "llama": Spec(**SMALL, kv_heads=1, head_width=6, qk_norm=True, tied=False),
    "gpt": Spec(**SMALL, **LAYER),
    "albert": Spec(**SMALL, **LAYER, kind="encoder", embedding_width=4, distinct_layers=1, outputs=("masked",)),
    "electra": Spec(**SMALL, **LAYER, kind="encoder", outputs=("detector",)),
    "value": Spec(**SMALL, outputs=("value",)),
    "t5": Spec(**SMALL, kind="encoder-decoder", positions="relative", head_width=6, decoder_layers=2),
    "bart": Spec(**SMALL, **LAYER, kind="encoder-decoder", norm_place="post", shared_stacks=True),
}


@pytest.mark.parametrize("name", COSTLY)
def test_flops_are_those_that_torch_counts(name: str):
    """Forward and backward, every key of the square: attention by its definition, as capture computes it."""
    spec, B, T, S = COSTLY[name], 2, 5, 7
    model = Transformer.create(spec, seed=1)
    ids = torch.randint(0, 13, (B, S if spec.kind == "encoder-decoder" else T))
    decoder_ids = torch.randint(0, 13, (B, T)) if spec.kind == "encoder-decoder" else None
    with FlopCounterMode(display=False) as counter:
        hidden, _ = model(ids, decoder_ids=decoder_ids, capture={"attention"})
        loss = model.logits(hidden).sum()
        forward = counter.get_total_flops()
        loss.backward()
    lengths = {"encoder": S if spec.kind == "encoder-decoder" else T, "decoder": T}
    counted = count.forward_flops(spec, T, S)
    assert B * sum(lengths[stack] * flops for stack, flops in counted.items()) == forward
    assert count.TRAINING * forward == counter.get_total_flops()


def test_flops_of_gpt2_as_palm_counts_them():
    # 6N + 12·L·D·T with N = 12·L·D² + V·D (methods: 854,438,400 a token at T = 1024)
    assert count.training_flops(named("gpt2"), 1024) == 854_438_400
    assert count.matmul_parameters(named("gpt2")) == 12 * 12 * 768**2 + 50_257 * 768


def test_a_window_bounds_the_keys():
    spec = Spec(**SMALL | {"layers": 6}, window=4, full_every=3)
    plain = Spec(**SMALL | {"layers": 6})
    spared = 4 * 2 * 4 * 4 * (16 - 4)  # 4·H·K, four of the six layers, 12 keys of 16
    assert count.forward_flops(plain, 16)["decoder"] - count.forward_flops(spec, 16)["decoder"] == spared
    assert count.forward_flops(plain, 3) == count.forward_flops(spec, 3)


def test_keys_of_a_reformer():
    own = Reformer(("local", "lsh"), chunk=4, local_chunk=8, hashes=3)
    spec = Spec(**SMALL | {"layers": 2}, reformer=own)
    assert [count.keys_seen(spec, layer, 64) for layer in (0, 1)] == [16, 24]  # its chunk and the one before; 3 rounds
    assert [count.keys_seen(spec, layer, 4) for layer in (0, 1)] == [4, 4]  # one chunk: all see all, once
