"""Steps of models whose weights have 8 or 4 bits, against the weights in full."""

import pytest
import torch

from amauta.decode.native import build
from amauta.decode.native.step import native_step, why_not
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn.codes import BITS
from amauta.nn.quantized import Quantized, QuantizedEmbedding
from tests.decode.native.test_step import ids_of, read

pytestmark = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")

SPEC = {"vocabulary": 45, "context": 40, "width": 160, "layers": 2, "heads": 5, "kv_heads": 5, "feedforward": 288}


def drawn(rows, width, kind, group, zeros, generator):
    """Codes, scales and zeros that nobody rounded: any are weights."""
    group = group or width
    codes = torch.randint(256, (rows, width * BITS[kind] // 8), dtype=torch.uint8, generator=generator)
    levels = {"int8": 128, "int4": 8, "nf4": 1}[kind]
    scales = (torch.rand(rows, width // group, generator=generator) + 0.2) * 2 / levels / width**0.5
    drawn_zeros = torch.randint(1 << BITS[kind], scales.shape, dtype=torch.uint8, generator=generator)
    return codes, scales.half(), drawn_zeros if zeros and kind != "nf4" else None


def few_bits(kind, group, zeros=False, *, wide=False, seed=1, dtype=torch.float32, **more):
    """A model all of whose matrices are of few bits."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer.create(Spec(**SPEC | more), seed).eval().to(dtype)
    for part in list(model.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, torch.nn.Linear):
                codes, scales, z = drawn(*layer.weight.shape, kind, group, zeros, generator)
                scales = scales.float() if wide else scales
                setattr(part, name, Quantized(codes, scales, z, kind=kind, bias=layer.bias, dtype=dtype))
    codes, scales, z = drawn(*model.embedding.weight.shape, "int8", 0, False, generator)
    model.embedding = QuantizedEmbedding(codes, scales, z, kind="int8", dtype=dtype)
    return model


def in_full(model):
    """The same model with its weights as numbers."""
    whole = Transformer.create(model.spec, 0).eval()
    table = {name: weight.detach().float() for name, weight in model.named_parameters()}
    for name, part in model.named_modules():
        if isinstance(part, Quantized):
            table[f"{name}.weight"] = part.weight.float()
    whole.load_state_dict(table)
    return whole


@pytest.mark.parametrize(
    ("kind", "group", "zeros", "wide"),
    [
        ("int8", 0, False, False), ("int8", 32, False, False), ("int8", 32, True, False), ("int8", 160, True, True),
        ("int4", 32, False, False), ("int4", 32, True, False), ("int4", 0, False, False), ("int4", 0, True, True),
        ("int4", 96, False, False), ("int4", 96, True, False), ("int8", 96, False, True), ("nf4", 32, False, False),
        ("nf4", 0, False, True),
    ],
)  # fmt: skip
def test_it_computes_what_the_weights_in_full_compute(kind, group, zeros, wide):
    # 160 and 288 are no whole registers of codes; 96 divides 288 alone, and begins in the middle of one
    more = {"width": 192, "heads": 6, "kv_heads": 6} if group == 96 else {}
    model = few_bits(kind, group if group != 160 else 0, zeros, wide=wide, **more)
    assert why_not(model) is None
    ids = ids_of(model, 19)  # tiles of 8, 8, 3 tokens
    wanted = read(in_full(model), ids)
    found = read(model, ids, native_step(model))
    assert float((found - wanted).norm() / wanted.norm()) < 4e-4


@pytest.mark.parametrize(("kind", "group"), [("int8", 0), ("int4", 32), ("nf4", 32)])
def test_a_token_gets_in_any_company_the_same_bits(kind, group):
    model = few_bits(kind, group)
    step, ids = native_step(model), ids_of(model, 13)
    together = read(model, ids, step)
    cache = model.new_cache(1, 13)
    alone = torch.cat([step(cache, [id], [0], [at], [0]) for at, id in enumerate(ids)])
    assert torch.equal(together, alone)


def test_of_a_bf16_model_what_is_no_code_stays_bf16():
    model = few_bits("int4", 32, dtype=torch.bfloat16)
    ids = ids_of(model, 11)
    assert model.new_cache(1, 2).keys.dtype == torch.bfloat16
    exact = read(in_full(model), ids)
    by_step, by_torch = (float((x - exact).norm() / exact.norm())
                         for x in (read(model, ids, native_step(model)), read(model, ids)))  # fmt: skip
    assert by_step <= 1.2 * by_torch < 0.1


def test_a_changed_weight_is_seen():
    model = few_bits("int4", 32)
    before = read(model, [1, 2, 3], native_step(model))
    model.decoder.blocks[1].feedforward.down.codes[0] ^= 9
    assert not torch.allclose(read(model, [1, 2, 3], native_step(model)), before, rtol=1e-4)


def test_what_rounds_its_inputs_is_left_to_torch():
    model = few_bits("int8", 0)
    model.decoder.blocks[0].attention.out.inputs = 8
    assert why_not(model) == "weights of few bits"
