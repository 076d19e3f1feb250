"""Scales that go into what comes before a layer: the model computes what it did, and rounds better for it."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from amauta.compress.awq import GRID, SHRINKS, clips, scales
from amauta.compress.folds import folds
from amauta.compress.gptq import error
from amauta.compress.rounding import Form, grid, rounded
from amauta.compress.smoothquant import factors
from amauta.models.transformer import Transformer
from amauta.nn.block import Block
from tests.compress.small import SPECS, model_of, rows_of

FOLDED = [name for name, spec in SPECS.items() if spec.norm_place != "post" and spec.reformer is None]


def said(model: Transformer, rows: Sequence[Tensor]) -> Tensor:
    pair = model.spec.kind == "encoder-decoder"
    return torch.cat([model(row[None], **({"decoder_ids": row[None]} if pair else {}))[0] for row in rows])


@pytest.mark.parametrize("name", [name for name in FOLDED if name != "shared"])
@torch.no_grad()
def test_folding_changes_nothing(name: str):
    """Every fold of every block of each family, one at a time: the same states, other weights."""
    model, rows = model_of(name), rows_of(2)
    before = said(model, rows)
    count = 0
    for part, block in model.named_modules():
        if not isinstance(block, Block):
            continue
        for at, fold in enumerate(folds(block)):
            changed = deepcopy(model)
            twin = changed.get_submodule(part)
            assert isinstance(twin, Block)
            mine = folds(twin)[at]
            linear = twin.get_submodule(fold.reads)
            width: int = linear.in_features  # type: ignore[assignment]
            s = mine.conform(torch.rand(width, generator=torch.Generator().manual_seed(at)) + 0.5)
            old = linear.weight.clone()  # type: ignore[operator]
            mine.apply(linear, s)
            torch.testing.assert_close(linear.weight, old * s)
            torch.testing.assert_close(said(changed, rows), before, rtol=1e-3, atol=1e-4)
            count += 1
    inner = model.spec.gated or model.spec.activation == "relu"
    blocks = sum(isinstance(part, Block) for part in model.modules())
    crossed = sum(isinstance(part, Block) and part.cross is not None for part in model.modules())
    assert count == blocks * (3 + inner) + crossed


def test_heads_that_share_values_share_their_numbers():
    block = model_of("llama").get_submodule("decoder.blocks.0")  # 4 heads of 8, 2 of keys and values
    assert isinstance(block, Block)
    values = next(fold for fold in folds(block) if fold.reads == "attention.out")
    s = values.conform(torch.arange(32.0))
    assert s[:8].tolist() == s[8:16].tolist() == [4.0 + i for i in range(8)]  # the mean of i and i + 8
    assert s[16:24].tolist() == s[24:].tolist()


def test_smoothing_by_hand():
    """The paper's figure 5: two tokens, four channels."""
    x = torch.tensor([[1.0, -16, 2, 6], [-2, 8, -1, -9]])
    weight = torch.tensor([[2.0, 1, -2], [1, -1, -1], [2, -1, -2], [-1, -1, 1]]).T  # ours is (out, in)
    s = factors(x.abs().amax(0), weight, 0.5)
    assert s.tolist() == [1, 4, 1, 3]
    assert (x / s).tolist() == [[1, -4, 2, 2], [-2, 2, -1, -3]]
    assert factors(x.abs().amax(0), weight, 1.0).tolist() == [2, 16, 2, 9]
    assert factors(torch.tensor([0.0, 2, 1, 1]), weight)[0] == 1  # nothing is ever read there


def read() -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, mean|X| and 2 XᵀX / n of inputs with a few large channels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 64, generator=generator)
    x[:, [3, 40, 41]] *= 30
    return torch.randn(24, 64, generator=generator), x.abs().mean(0), 2 * x.T @ x / 400


@pytest.mark.parametrize("form", [Form("int4", 32, affine=True), Form("int4")], ids=str)
def test_awq_takes_the_best_exponent(form: Form):
    weight, means, hessian = read()
    s, exponent = scales(weight, means, hessian, form)
    lost: dict[float, float] = {}
    for step in range(GRID):
        one = means ** (step / GRID)
        one = one / (one.max() * one.min()).sqrt()
        lost[step / GRID] = error(weight, rounded(weight * one, form) / one, hessian)
    assert lost[exponent] == min(lost.values()) < 0.6 * lost[0.0]
    assert float(s.max() * s.min()) == pytest.approx(1, rel=1e-4)
    assert int(s.argmax()) in (3, 40, 41)


def test_clips_are_the_best_of_each_group():
    weight, _, hessian = read()
    weight[0, 5] = 40  # one far out: clipping it costs more than the rest gains where its input is large
    form = Form("int4", 32)
    found = clips(weight, hessian, form)
    assert found.shape == (24, 2)
    for i, g in ((0, 0), (0, 1), (7, 0), (23, 1)):
        at = slice(32 * g, 32 * g + 32)
        lost = []
        for shrink in SHRINKS:
            made = rounded(weight, form, grid(weight, form, ratio=shrink))
            wrong = (weight - made)[i, at]
            lost.append(float(wrong @ hessian[at, at] @ wrong))
        assert lost[SHRINKS.index(round(float(found[i, g]), 2))] == pytest.approx(min(lost), rel=1e-4)
    whole = error(weight, rounded(weight, form), hessian)
    diagonal = torch.block_diag(hessian[:32, :32], hessian[32:, 32:])
    clipped = rounded(weight, form, grid(weight, form, ratio=found))
    assert error(weight, clipped, diagonal) < error(weight, rounded(weight, form), diagonal) <= 2 * whole
