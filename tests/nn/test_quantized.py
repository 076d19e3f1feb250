"""Layers of few bits: what their codes stand for, their gradient, their types, and torch's packed products."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from amauta.nn.codes import NF4, Kind, dequantised, expanded, halved, pack, unpack
from amauta.nn.quantized import Doubled, Quantized, QuantizedEmbedding

OUT, IN, GROUP = 48, 64, 32


def drawn(kind: Kind, *, zeros: bool, group: int = GROUP) -> tuple[Tensor, Quantized]:
    """The weights by their definition, one at a time, and the layer."""
    generator = torch.Generator().manual_seed(0)
    top = 256 if kind == "int8" else 16
    codes = torch.randint(0, top, (OUT, IN), dtype=torch.uint8, generator=generator)
    scales = (torch.rand(OUT, IN // group, generator=generator) * 0.02 - 0.002).half()  # some below 0
    held = torch.randint(0, top, scales.shape, dtype=torch.uint8, generator=generator) if zeros else None
    weight = torch.empty(OUT, IN)
    for i in range(OUT):
        for j in range(IN):
            code, at = int(codes[i, j]), (i, j // group)
            zero = {"int8": 128, "int4": 8, "nf4": 0}[kind] if held is None else int(held[at])
            weight[i, j] = (NF4[code] if kind == "nf4" else code - zero) * float(scales[at])
    bias = torch.randn(OUT, generator=generator)
    return weight, Quantized(codes if kind == "int8" else pack(codes), scales, held, kind=kind, bias=bias)


CASES = [("int8", False), ("int8", True), ("int4", False), ("int4", True), ("nf4", False)]


@pytest.mark.parametrize(("kind", "zeros"), CASES)
def test_what_codes_stand_for(kind: Kind, zeros: bool):
    weight, layer = drawn(kind, zeros=zeros)
    assert (layer.in_features, layer.out_features, layer.group) == (IN, OUT, GROUP)
    torch.testing.assert_close(layer.weight, weight, rtol=1e-6, atol=1e-8)


def test_bytes_of_four_bits():
    """Byte i of a run holds weight i below and weight i + 16 above, as GGUF's Q4_0 does."""
    codes = (torch.arange(64, dtype=torch.uint8) % 16).view(1, 64)
    codes[0, 16] = 9
    packed = pack(codes)
    assert packed.shape == (1, 32)
    assert packed[0, 0] == 0 | 9 << 4  # weights 0 and 16
    assert packed[0, 5] == 5 | 5 << 4  # weights 5 and 21
    assert packed[0, 16] == 0 | 0 << 4  # weights 32 and 48
    assert torch.equal(unpack(packed), codes)
    assert unpack(packed, torch.float32).dtype == torch.float32


@pytest.mark.parametrize(("kind", "zeros"), CASES)
def test_product_and_gradient(kind: Kind, zeros: bool):
    weight, layer = drawn(kind, zeros=zeros)
    x = torch.randn(3, 7, IN, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    layer(x).square().sum().backward()
    F.linear(same, weight, layer.bias).square().sum().backward()
    assert x.grad is not None and same.grad is not None
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


def test_gradient_keeps_codes_only():
    """No tensor of the size of W is kept for the backward pass."""
    _, layer = drawn("int4", zeros=True)
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(2, IN, requires_grad=True))
    assert max(sizes) <= OUT * IN // 2


def test_types_follow_to():
    _, layer = drawn("int4", zeros=True)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half.bias is not None
    assert (half.dtype, half.weight.dtype, half.bias.dtype) == (torch.bfloat16,) * 3
    assert half.scales.dtype == torch.float16 and torch.equal(half.scales, layer.scales)
    torch.testing.assert_close(half.weight.float(), layer.weight, rtol=2**-8, atol=0)
    assert half(torch.randn(2, IN).bfloat16()).dtype == torch.bfloat16
    assert copy.deepcopy(layer).to("meta").codes.device.type == "meta"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(9, IN)).dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "zeros"), CASES)
def test_embedding_takes_rows(kind: Kind, zeros: bool):
    weight, layer = drawn(kind, zeros=zeros)
    table = QuantizedEmbedding(layer.codes, layer.scales, layer.zeros, kind=kind)
    assert (table.num_embeddings, table.embedding_dim) == (OUT, IN)
    ids = torch.tensor([[3, 0, OUT - 1], [3, 3, 7]])
    torch.testing.assert_close(table(ids), weight[ids], rtol=1e-6, atol=1e-8)
    states = torch.randn(2, 5, IN)
    torch.testing.assert_close(table.product(states), states @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "zeros", "group"), [("int8", False, IN), ("int4", False, 32), ("int4", True, 64)])
@torch.no_grad()
def test_few_rows_in_bf16(kind: Kind, zeros: bool, group: int):
    """torch's packed products: within what rounding inputs, scales and results to bf16 can do."""
    weight, layer = drawn(kind, zeros=zeros, group=group)
    layer = layer.to(torch.bfloat16)
    x = torch.randn(3, IN).bfloat16()
    found = layer(x).float()
    assert layer._packed is not None
    assert layer.bias is not None
    wanted = x.float() @ weight.T + layer.bias.float()
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    layer(torch.randn(5, IN).bfloat16())  # as many as this by another way
    assert layer.to(torch.float32)._packed is None  # nothing stale stays


@torch.no_grad()
def test_inputs_in_eight_bits():
    """Against the equation one number at a time: both scales times an integer sum."""
    weight, layer = drawn("int8", zeros=False, group=IN)
    whole = Quantized(layer.codes, layer.scales, kind="int8", inputs=8)
    x = torch.randn(2, 3, IN)
    x[0, 1] = 0  # nothing to divide by
    found = whole(x)
    for b, t in ((0, 0), (0, 1), (1, 2)):
        step = float(x[b, t].abs().max()) / 127
        rounded = [round(float(value) / step) if step else 0 for value in x[b, t]]
        for i in (0, 17, OUT - 1):
            total = sum(q * (int(c) - 128) for q, c in zip(rounded, layer.codes[i], strict=True))
            assert float(found[b, t, i]) == pytest.approx(total * step * float(layer.scales[i, 0]), rel=1e-5, abs=1e-6)
    assert float((found - x @ weight.T).norm() / (x @ weight.T).norm()) < 0.02


@torch.no_grad()
def test_outliers_keep_their_columns():
    """One huge column spoils the rounding of all others unless it is kept apart."""
    weight, layer = drawn("int8", zeros=False, group=IN)
    x = torch.randn(5, IN)
    x[:, 9] *= 1000
    wanted = x @ weight.T

    def lost(threshold: float) -> float:
        made = Quantized(layer.codes, layer.scales, kind="int8", inputs=8, threshold=threshold)
        return float((made(x) - wanted)[:, weight[:, 9] == 0].norm() + (made(x) - wanted).norm())

    rest = x.clone()
    rest[:, 9] = 0
    step = rest.abs().amax(1, keepdim=True) / 127
    by_hand = ((rest / step).round() * step) @ weight.T + x[:, 9:10] * weight[:, 9]
    apart = Quantized(layer.codes, layer.scales, kind="int8", inputs=8, threshold=20.0)
    torch.testing.assert_close(apart(x), by_hand, rtol=1e-4, atol=1e-3)
    assert lost(20.0) < 0.1 * lost(float("inf"))
    assert torch.equal(apart(rest), Quantized(layer.codes, layer.scales, kind="int8", inputs=8)(rest))


def test_gradient_of_rounded_inputs_is_straight_through():
    weight, layer = drawn("int8", zeros=False, group=IN)
    whole = Quantized(layer.codes, layer.scales, kind="int8", inputs=8, threshold=2.0)
    x = torch.randn(4, IN, requires_grad=True)
    slope = torch.randn(4, OUT)
    whole(x).backward(slope)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, slope @ weight, rtol=1e-4, atol=1e-5)


def test_scales_of_eight_bits():
    scales = torch.rand(10, 30) * 3 + 1  # 300: more than one step
    codes, steps, mean = halved(scales)
    assert codes.dtype == torch.int8 and steps.shape == (2,) and mean.shape == ()
    back = expanded(codes, steps, mean)
    assert float((back - scales.flatten()).abs().max()) <= float(steps.max()) / 2 * 1.001
    assert float(steps[0]) == pytest.approx(float((scales.flatten()[:256] - scales.mean()).abs().max()) / 127)
    assert torch.equal(expanded(*halved(torch.full((3,), 0.25))), torch.full((3,), 0.25))


def test_doubled_scales_are_kept():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (OUT, IN // 2), dtype=torch.uint8, generator=generator)
    doubled = Doubled(*halved(torch.rand(OUT, 2, generator=generator)))
    layer = Quantized(codes, expanded(*doubled).view(OUT, 2), kind="nf4", doubled=doubled)
    moved = copy.deepcopy(layer).to(torch.bfloat16)
    assert moved.doubled is not None and moved.scales.dtype == torch.float32
    assert torch.equal(moved.scales, expanded(*moved.doubled).view(OUT, 2))
    torch.testing.assert_close(layer.weight, dequantised(codes, layer.scales, None, "nf4"))
