"""Grids and codes: published examples, the gguf package, and every code tried."""

import itertools

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from amauta.base.errors import ModelError
from amauta.compress.rounding import Form, decode, encode, grid, layer_of, rounded
from amauta.nn.codes import NF4, pack
from amauta.nn.linear import Embedding, Linear
from amauta.nn.quantized import Quantized, QuantizedEmbedding

FOUR = torch.tensor([[-1.2, 0.0, 0.5, 3.3]])
FORMS = [
    Form("int8"), Form("int8", affine=True), Form("int8", 32), Form("int8", tensor=True), Form("int4"),
    Form("int4", 32), Form("int4", 32, affine=True), Form("int4", tensor=True, affine=True), Form("nf4", 32),
    Form("nf4", 64, double=True),
]  # fmt: skip


def test_absmax_by_hand():
    held = grid(FOUR, Form("int8"), dtype=torch.float32)
    codes = encode(FOUR, held, Form("int8"))
    assert float(held.scales) == pytest.approx(0.0259843, abs=1e-7)
    assert (codes.int() - 128).tolist() == [[-46, 0, 19, 127]]
    assert decode(codes, held, Form("int8"))[0].tolist() == pytest.approx([-1.195276, 0, 0.493701, 3.3], abs=1e-6)


def test_affine_by_hand():
    form = Form("int8", affine=True)
    held = grid(FOUR, form, dtype=torch.float32)
    codes = encode(FOUR, held, form)
    assert held.zeros is not None
    assert (float(held.scales), float(held.zeros)) == (pytest.approx(0.0176471, abs=1e-7), 68)
    assert codes.tolist() == [[0, 68, 96, 255]]
    assert decode(codes, held, form)[0].tolist() == pytest.approx([-1.2, 0, 0.494118, 3.3], abs=1e-6)


def test_affine_of_one_side_holds_zero():
    form = Form("int4", affine=True)
    for sign in (1, -1):
        held = grid(sign * torch.tensor([[2.0, 3.0]]), form)
        assert held.zeros is not None and float(held.zeros) == (0 if sign == 1 else 15)
        assert float(held.scales) == pytest.approx(0.2, abs=1e-4)


def test_half_goes_to_the_even_one():
    held = grid(torch.tensor([[127.0, 0.5, 1.5, -2.5]]), Form("int8"))
    assert (encode(torch.tensor([[127.0, 0.5, 1.5, -2.5]]), held, Form("int8")).int() - 128).tolist() == [
        [127, 0, 2, -2]
    ]


def test_blocks_of_gguf():
    """Of 32 numbers with one outlier: the bytes that the reference writes."""
    x = torch.linspace(-1, 1, 32)
    x[5] = -2
    for form, wanted in (
        (Form("int8", 32), "0824c0c5c9cdd181d9dde1e5e9eef2f6fafe02060a0e12171b1f23272b2f33373b40"),
        (Form("int4", 32), "0034848495959590a6a6a6a6b7b7b7b7c8c8"),
    ):
        held = grid(x[None], form)
        codes = encode(x[None], held, form)
        stored = codes ^ 128 if form.kind == "int8" else pack(codes)
        assert (held.scales.numpy().tobytes() + stored.numpy().tobytes()).hex() == wanted
    assert decode(codes, held, form)[0, :8].tolist() == [-1, -1, -0.75, -0.75, -0.75, -2, -0.5, -0.5]


@pytest.mark.parametrize(("kind", "name"), [("int8", "Q8_0"), ("int4", "Q4_0")])
def test_as_good_as_gguf(kind: str, name: str):
    """Scales are those of the gguf package; codes differ only where a rounded scale makes another one nearer."""
    weight = torch.from_numpy(np.random.RandomState(1).randn(64, 256).astype(np.float32))
    form = Form(kind, 32)  # type: ignore[arg-type]
    raw = quantize(weight.numpy(), GGMLQuantizationType[name])
    theirs = torch.from_numpy(dequantize(raw, GGMLQuantizationType[name]))
    blocks = raw.reshape(64, 8, -1)
    held = grid(weight, form)
    assert np.array_equal(blocks[..., :2].copy().view(np.float16)[..., 0], held.scales.numpy())
    ours = rounded(weight, form)
    assert float((ours != theirs).float().mean()) < 0.01
    assert float((ours - weight).square().mean()) <= float((theirs - weight).square().mean())


def test_codes_of_nf4():
    """The table from quantiles of the normal distribution, and the error that it leaves of normal numbers."""
    from scipy.stats import norm

    offset = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    above = norm.ppf(np.linspace(offset, 0.5, 9))[:-1]
    below = -norm.ppf(np.linspace(offset, 0.5, 8))[:-1]
    table = np.sort(np.concatenate([above, [0], below]))
    assert np.abs(table / table.max() - np.array(NF4)).max() < 2e-7
    weight = torch.from_numpy(np.random.RandomState(0).randn(64, 64).astype(np.float32))
    lost = float((rounded(weight, Form("nf4", 64)) - weight).square().mean())
    assert lost == pytest.approx(0.008354, abs=1e-6)
    double = float((rounded(weight, Form("nf4", 64, double=True)) - weight).square().mean())
    assert double == pytest.approx(0.008345, rel=5e-3)  # torchao's second rounding is another
    assert double != lost


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_code_is_the_nearest(form: Form):
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    weight[1, :32] = 0  # a group of nothing
    held = grid(weight, form)
    codes = encode(weight, held, form)
    made = decode(codes, held, form)
    every = [decode(torch.full_like(codes, code), held, form) for code in range(form.top + 1)]
    if form.kind == "int8" and not form.affine:
        every = every[1:]  # -128 is not used
    best = torch.stack([(one - weight).abs() for one in every]).amin(0)
    torch.testing.assert_close((made - weight).abs(), best, rtol=1e-4, atol=1e-6)
    assert torch.equal(made[1, :32], torch.zeros(32))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_layer_holds_the_same(form: Form):
    linear, table = Linear(64, 5), Embedding(5, 64)
    with torch.no_grad():
        for value in (linear.weight, linear.bias, table.weight):
            value.normal_()
    for layer, kind in ((linear, Quantized), (table, QuantizedEmbedding)):
        held = grid(layer.weight.detach(), form)
        codes = encode(layer.weight.detach(), held, form)
        made = layer_of(layer, codes, held, form)
        assert type(made) is kind
        torch.testing.assert_close(made.weight, decode(codes, held, form), rtol=1e-6, atol=1e-8)
        assert (made.bias is None) == (layer is table)


def test_granularity():
    """The finer the groups, the less is lost; one scale a matrix is one number."""
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(3)) * torch.logspace(-2, 0, 16)[:, None]
    weight[:, ::7] *= 4
    forms = [Form("int4", tensor=True), Form("int4"), Form("int4", 64), Form("int4", 32)]
    lost = [float((rounded(weight, form) - weight).square().sum()) for form in forms]
    assert lost == sorted(lost, reverse=True) and lost[0] > 2 * lost[-1]
    assert len(grid(weight, forms[0]).scales.unique()) == 1
    assert grid(weight, forms[2]).scales.shape == (16, 2)


def test_ratio_clips():
    weight = torch.tensor([[1.0, -0.5, 0.25, 4.0]])
    for form in (Form("int8"), Form("int8", affine=True), Form("nf4")):
        held = grid(weight, form, ratio=0.5)
        made = decode(encode(weight, held, form), held, form)
        assert float(made.max()) == pytest.approx(2.0, rel=1e-2)
        assert float(made[0, 0]) == pytest.approx(1.0, rel=0.2)


def test_scales_beyond_half_precision():
    with pytest.raises(ModelError) as error:
        grid(torch.full((1, 32), 1e8), Form("int8"))
    assert error.value.key == "compress.beyond-f16"


def test_all_small_affine_grids():
    """Every range of small whole numbers: no end is lost by more than half a step."""
    for low, high in itertools.product(range(-5, 1), range(6)):
        if low == high:
            continue
        form, weight = Form("int4", affine=True), torch.tensor([[float(low), float(high)]])
        held = grid(weight, form, dtype=torch.float32)
        made = decode(encode(weight, held, form), held, form)
        assert float((made - weight).abs().max()) <= float(held.scales) / 2 * 1.001
