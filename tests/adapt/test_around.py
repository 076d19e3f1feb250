"""Each method of adapting a linear layer against its equation, worked by hand or written as a loop."""

import math

import pytest
import torch
from torch import nn

from amauta.adapt.around import effective, innermost
from amauta.adapt.bottleneck import Bottleneck
from amauta.adapt.ia3 import IA3
from amauta.adapt.lora import DoRA, LoRA
from amauta.adapt.tokens import NewRows
from amauta.base.errors import ModelError

X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
SLICES = ((0, 4), (6, 8))


def linear(width: int = 6, height: int = 10, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width, height, bias=bias)


def moved(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in module.parameters(recurse=False):
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    return module


def test_lora_by_hand():
    """W = I, A = [[1, 2]], B = [[3], [4]], α/R = 1/2, x = (1, 1): x + (9, 12)/2 = (5.5, 7)."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    lora = LoRA(layer, rank=1, alpha=0.5)
    lora.a.data, lora.b.data = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    assert lora(torch.ones(1, 2)).tolist() == [[5.5, 7.0]]
    assert effective(lora)[0].tolist() == [[2.5, 3.0], [2.0, 5.0]]


@pytest.mark.parametrize(
    ("rank", "alpha", "rslora", "scale"), [(4, 8.0, False, 2.0), (4, 8.0, True, 4.0), (1, 3.0, True, 3.0)]
)
def test_lora_of_slices(rank: int, alpha: float, rslora: bool, scale: float):
    lora = moved(LoRA(linear(), rank=rank, alpha=alpha, rslora=rslora, rows=SLICES))
    plain, found = lora.linear(X), lora(X)
    wanted, at = plain.clone(), 0
    for number, (start, stop) in enumerate(SLICES):
        a = lora.a[number * rank : (number + 1) * rank]
        b = lora.b[at : at + stop - start]
        at += stop - start
        wanted[..., start:stop] += scale * (X @ a.T @ b.T)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(found[..., 4:6], plain[..., 4:6]) and torch.equal(found[..., 8:], plain[..., 8:])
    torch.testing.assert_close(nn.functional.linear(X, *effective(lora)), found, atol=1e-5, rtol=1e-5)


def test_first_values():
    lora = LoRA(linear(100, 4), rank=50, alpha=1.0, generator=torch.Generator().manual_seed(3))
    assert not lora.b.any() and 0.09 < float(lora.a.abs().max()) <= 0.1  # uniform within ±1/√in
    assert float(lora.a.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    narrow = Bottleneck(linear(6, 100), width=40, generator=torch.Generator().manual_seed(3))
    assert not narrow.up.any() and not narrow.down_bias.any() and 0.019 < float(narrow.down.abs().max()) <= 0.02
    assert float(narrow.down.std()) == pytest.approx(0.0088, rel=0.03)  # of N(0, 0.01²) cut off at 2σ
    dora = DoRA(linear(), rank=2, alpha=1.0, rows=((2, 5),))
    torch.testing.assert_close(dora.m, dora.weight[2:5].norm(dim=1))


@pytest.mark.parametrize("bias", [True, False])
def test_dora(bias: bool):
    dora = moved(DoRA(linear(bias=bias), rank=2, alpha=3.0, rows=SLICES))
    weight = dora.weight.detach().clone()
    at = 0
    for number, (start, stop) in enumerate(SLICES):
        b, a = dora.b[at : at + stop - start], dora.a[2 * number : 2 * number + 2]
        for row in range(start, stop):
            v = weight[row] + 1.5 * b[row - start] @ a
            weight[row] = dora.m[at + row - start] * v / v.square().sum().sqrt()
        at += stop - start
    torch.testing.assert_close(dora(X), nn.functional.linear(X, weight, dora.bias), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(effective(dora)[0], weight)


def test_doras_norm_is_a_constant_in_the_backward_pass():
    dora = moved(DoRA(linear(), rank=2, alpha=3.0)).double()
    x = X.double()
    dora(x).square().sum().backward()
    norm = (dora.weight + dora.delta().double()).norm(dim=1).detach()
    y = (dora.m / norm) * (x @ dora.weight.T + x @ dora.a.T @ dora.b.T * 1.5) + dora.bias
    wanted = torch.autograd.grad(y.square().sum(), [dora.a, dora.b, dora.m])
    for found, one in zip((dora.a.grad, dora.b.grad, dora.m.grad), wanted, strict=True):
        torch.testing.assert_close(found, one, atol=1e-4, rtol=1e-4)


def test_ia3():
    given = moved(IA3(linear(), rows=SLICES))
    gains = torch.ones(10)
    gains[0:4], gains[6:8] = given.l[:4], given.l[4:]
    torch.testing.assert_close(given(X), given.linear(X) * gains)
    torch.testing.assert_close(nn.functional.linear(X, *effective(given)), given(X))
    reads = moved(IA3(linear(), reads=True))
    torch.testing.assert_close(reads(X), reads.linear(X * reads.l))
    torch.testing.assert_close(nn.functional.linear(X, *effective(reads)), reads(X))
    assert reads.l.shape == (6,)


@pytest.mark.parametrize(("kind", "f"), [("houlsby", nn.functional.gelu), ("pfeiffer", torch.relu)])
def test_bottleneck(kind: str, f):
    narrow = moved(Bottleneck(linear(), width=3, kind=kind))
    y = narrow.linear(X)
    wanted = y + f(y @ narrow.down.T + narrow.down_bias) @ narrow.up.T + narrow.up_bias
    torch.testing.assert_close(narrow(X), wanted)
    assert narrow.kind == kind and not narrow.folds
    with pytest.raises(ModelError):
        effective(narrow)
    with pytest.raises(ModelError):
        narrow.merge()


def test_from_outside_it_is_the_layer():
    layer = linear()
    around = LoRA(Bottleneck(layer, width=2), rank=2, alpha=1.0)
    assert around.weight is layer.weight and around.bias is layer.bias and innermost(around) is layer
    assert (around.in_features, around.out_features) == (6, 10)


def test_a_chain_merges_from_within():
    layer = linear()
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    chain = moved(IA3(moved(DoRA(moved(LoRA(layer, rank=2, alpha=1.0)), rank=2, alpha=1.0, name="other"))))
    wanted = chain(X)
    chain.merge()
    assert chain.merged and chain.linear.merged and chain.linear.linear.merged
    torch.testing.assert_close(chain(X), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(X), wanted, atol=1e-5, rtol=1e-5)
    chain.merge()  # again: nothing more
    torch.testing.assert_close(chain(X), wanted, atol=1e-5, rtol=1e-5)
    chain.unmerge()
    assert torch.equal(layer.weight, before[0]) and torch.equal(layer.bias, before[1])
    assert torch.equal(chain(X), wanted)
    chain.linear.on = False
    skipped = chain(X)
    chain.merge()
    torch.testing.assert_close(layer(X), skipped, atol=1e-5, rtol=1e-5)
    assert not chain.linear.merged


def test_merging_keeps_the_parameter_and_its_type():
    layer = linear().to(torch.bfloat16)
    parameter = layer.weight
    around = moved(LoRA(layer, rank=2, alpha=1.0))
    around.merge()
    assert layer.weight is parameter and parameter.dtype == torch.bfloat16
    assert around.a.dtype == torch.float32 and around(X.bfloat16()).dtype == torch.bfloat16


def test_rows_of_a_batch():
    layer = linear()
    for around in (LoRA(layer, rank=2, alpha=1.0), IA3(layer), IA3(layer, reads=True), DoRA(layer, rank=2, alpha=1.0),
                   Bottleneck(layer, width=2)):  # fmt: skip
        moved(around)
        whole = around(X)
        around.on = torch.tensor([1, 0, 1])
        found = around(X)
        torch.testing.assert_close(found[[0, 2]], whole[[0, 2]])
        torch.testing.assert_close(found[1], layer(X)[1])
        with pytest.raises(ModelError, match="some rows"):
            around.merge()


class FewBits(nn.Module):
    """A layer whose weight is made at every call."""

    bias = None
    in_features, out_features = 6, 10

    @property
    def weight(self) -> torch.Tensor:
        return torch.ones(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


def test_a_layer_of_few_bits_can_be_adapted_and_not_merged_into():
    for around in (LoRA(FewBits(), rank=2, alpha=1.0), DoRA(FewBits(), rank=2, alpha=1.0), IA3(FewBits())):
        moved(around)
        torch.testing.assert_close(around(X), nn.functional.linear(X, *effective(around)), atol=1e-5, rtol=1e-5)
        with pytest.raises(ModelError, match="few bits"):
            around.merge()


@pytest.mark.parametrize("first", [10, 8, 3])
def test_new_rows(first: int):
    """Rows behind a table, across its end, and within it; read as an embedding and multiplied as an output."""
    table = nn.Embedding(10, 6)
    rows = torch.randn(3, 6)
    grown = NewRows(table, first, rows)
    whole = torch.cat([table.weight, torch.zeros(3, 6)])[: max(10, first + 3)].detach().clone()
    whole[first : first + 3] = rows
    assert grown.num_embeddings == len(whole) and torch.equal(grown.weight, whole)
    ids = torch.arange(len(whole)).view(1, -1)
    assert torch.equal(grown(ids)[0], whole)
    torch.testing.assert_close(grown.product(X), X @ whole.T)
    with torch.no_grad():
        grown.rows += 1.0
    assert not torch.equal(grown.weight, whole)
    grown.on = False
    assert torch.equal(grown.weight, whole) and torch.equal(grown(ids)[0], whole)
    torch.testing.assert_close(grown.product(X), X @ whole.T)


def test_doras_norm_is_of_the_weight_that_each_row_has():
    inner = moved(LoRA(linear(), rank=2, alpha=1.0))
    outer = moved(DoRA(inner, rank=2, alpha=1.0, name="other"))
    inner.on, outer.on = torch.tensor([1, 0, 0]), torch.tensor([0, 1, 1])
    found = outer(X)
    inner.on = outer.on = True
    outer.on = False
    torch.testing.assert_close(found[0], outer(X)[0])
    inner.on, outer.on = False, True
    torch.testing.assert_close(found[1:], outer(X)[1:])
    inner.on, outer.on = torch.tensor([1, 0, 0]), torch.tensor([1, 1, 0])
    with pytest.raises(ModelError, match="some rows"):  # one row would need a norm of its own
        outer(X)
