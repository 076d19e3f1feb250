"""GPTQ: never worse than the nearest numbers on what was read, equal to them where nothing is correlated."""

import pytest
import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.compress.gptq import error, fitted, quantised, sweep
from amauta.compress.rounding import Form, Grid, decode, encode, grid, rounded

FORMS = [Form("int4"), Form("int4", 32), Form("int4", 32, affine=True), Form("int8"), Form("nf4", 32)]


def layer(rows: int = 16, width: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix and 2 XᵀX / n of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) * 0.3 + torch.eye(width)
    x = torch.randn(512, width, generator=generator) @ mix
    return torch.randn(rows, width, generator=generator), 2 * x.T @ x / 512


def naive(weight: Tensor, hessian: Tensor, held: Grid, form: Form, damp: float) -> Tensor:
    """Optimal brain quantisation as it was written first (Frantar and Alistarh 2022, eq. 3), in the order of columns:
    after each column the inverse of what is left is made anew."""
    weight, hessian = weight.double().clone(), hessian.double().clone()
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    made = torch.zeros_like(weight)
    for j in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[j:, j:])
        made[:, j] = decode(encode(weight.float(), held, form), held, form)[:, j].double()
        lost = (weight[:, j] - made[:, j]) / inverse[0, 0]
        weight[:, j:] -= lost[:, None] * inverse[0]
    return made.float()


@pytest.mark.parametrize("block", [1, 16, 48, 128])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_as_the_naive_one(form: Form, block: int):
    weight, hessian = layer(width=64)
    held = grid(weight, form)
    codes, same = quantised(weight, hessian, form, held=held, order=False, damp=0.02, block=block)
    assert same is held
    wanted = naive(weight, hessian, held, form, 0.02)
    # rounding may fall the other way where a number lies half-way, and all later columns of the row with it
    rows = (decode(codes, held, form) - wanted).abs().amax(1) < 1e-4
    assert int(rows.sum()) >= 15
    assert error(weight, decode(codes, held, form), hessian) == pytest.approx(error(weight, wanted, hessian), rel=0.02)


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_better_than_the_nearest(form: Form, order: bool):
    weight, hessian = layer()
    held = grid(weight, form)
    made = decode(quantised(weight, hessian, form, order=order)[0], held, form)
    assert error(weight, made, hessian) < 0.75 * error(weight, rounded(weight, form, held), hessian)


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_independent_inputs_change_nothing(form: Form, order: bool):
    weight, _ = layer()
    hessian = torch.diag(torch.linspace(0.5, 3, 64))
    codes, held = quantised(weight, hessian, form, order=order)
    assert torch.equal(codes, encode(weight, held, form))


def test_error_by_its_definition():
    weight, _ = layer()
    x, made = torch.randn(30, 64), torch.randn(16, 64)
    outputs = (weight - made) @ x.T
    assert error(weight, made, 2 * x.T @ x / 30) == pytest.approx(2 * float(outputs.square().sum()) / 30, rel=1e-4)


@pytest.mark.parametrize("form", [Form("int4"), Form("int4", 32, affine=True), Form("int8", 32)], ids=str)
def test_more_sweeps_fit_scales(form: Form):
    weight, hessian = layer()
    lost = []
    for sweeps in (1, 2, 3):
        codes, held = quantised(weight, hessian, form, sweeps=sweeps)
        lost.append(error(weight, decode(codes, held, form), hessian))
    assert lost[1] < 0.99 * lost[0] and lost[2] < lost[1] * 1.02


def test_fitted_scales_are_the_best():
    """Least squares by torch, a row at a time; and no small change of one is better."""
    weight, hessian = layer(rows=4)
    form = Form("int4", 32, affine=True)
    held = grid(weight, form, dtype=torch.float32)
    codes = encode(weight, held, form)
    found = fitted(weight, codes, held, form, hessian)
    root = torch.linalg.cholesky(hessian)  # H = R Rᵀ, so the error is ‖(w - …) R‖²
    assert held.zeros is not None
    for i in range(4):
        numbers = codes[i].float().view(2, 32) - held.zeros[i][:, None]
        design = torch.stack([torch.cat([numbers[0], torch.zeros(32)]), torch.cat([torch.zeros(32), numbers[1]])])
        wanted = torch.linalg.lstsq((design @ root).T, (weight[i] @ root)[:, None]).solution[:, 0]
        torch.testing.assert_close(found.scales[i], wanted, rtol=1e-3, atol=1e-5)
    assert found.zeros is held.zeros
    lost = [error(weight, decode(codes, one, form), hessian) for one in (held, found)]
    assert lost[1] < 0.99 * lost[0]


def test_dead_inputs_get_nothing():
    weight, hessian = layer()
    hessian[5], hessian[:, 5] = 0, 0
    codes, held = quantised(weight, hessian, Form("int4", 32))
    assert torch.equal(decode(codes, held, Form("int4", 32))[:, 5], torch.zeros(16))


def test_what_cannot_be_inverted_is_damped_more():
    """Fewer tokens than inputs, and next to no damping: the result is still better than the nearest numbers."""
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(8, 64, generator=generator), torch.randn(16, 64, generator=generator)
    hessian, form = x.T @ x / 4, Form("int4")
    codes, held = quantised(weight, hessian, form, damp=1e-12)
    made = decode(codes, held, form)
    assert bool(made.isfinite().all())
    assert error(weight, made, hessian) < error(weight, rounded(weight, form), hessian)


def test_no_numbers():
    weight, hessian = layer()
    hessian[3, 3] = float("nan")
    with pytest.raises(ModelError) as caught:
        quantised(weight, hessian, Form("int4"))
    assert caught.value.key == "compress.no-numbers"


def test_blocks_are_announced():
    """``begin`` sees each block as it stands, and the diagonal that later errors are divided by."""
    weight, hessian = layer(width=40)
    seen: list[tuple[int, Tensor, Tensor]] = []
    sweep(weight, hessian, lambda w, j: torch.zeros_like(w), block=16,
          begin=lambda columns, u, first: seen.append((first, columns.clone(), u.clone())))  # fmt: skip
    assert [first for first, _, _ in seen] == [0, 16, 32]
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(40)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped.double())).T
    torch.testing.assert_close(torch.cat([u for _, _, u in seen]).double(), upper.diagonal(), rtol=1e-3, atol=1e-4)
    assert torch.equal(seen[0][1], weight[:, :16]) and not torch.equal(seen[1][1], weight[:, 16:32])
