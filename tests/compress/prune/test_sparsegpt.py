"""SparseGPT against the definition it approximates: the optimal brain surgeon, and the other methods' errors."""

import pytest
import torch
from torch import Tensor

from amauta.compress.prune.scores import by_pattern, by_row, wanda
from amauta.compress.prune.sparsegpt import sparsegpt


def layer(inputs: int = 64, outputs: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (O, I), correlated inputs (n, I), and their Hessian."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    mixed = torch.randn(512, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    x = mixed / inputs**0.5 + 0.5 * torch.randn(512, inputs, generator=generator)
    return weight, x, 2 * x.T @ x / len(x)


def error(weight: Tensor, after: Tensor, hessian: Tensor) -> float:
    lost = weight - after
    return float(((lost @ hessian) * lost).sum())


def surgeon(weight: Tensor, hessian: Tensor, block: int, keep_of_block, damping: float) -> Tensor:
    """The same by the plain equations, one weight at a time and with a fresh inverse of what is left of the Hessian
    at every column: w_q := 0, δ = -w_q / [H⁻¹]_qq · H⁻¹[:, q] (Hassibi, Stork and Wolff 1993, eq. 5)."""
    weight, hessian = weight.double().clone(), hessian.double().clone()
    I = len(hessian)  # noqa: E741
    hessian += damping * hessian.diagonal().mean() * torch.eye(I)
    stays: Tensor | None = None
    for q in range(I):
        inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(q, min(I, q + block))]
        if q % block == 0:
            here = weight[:, q : q + block]
            stays = keep_of_block(here.square() / torch.stack([one[0, 0] for one in inverses]))
        assert stays is not None
        for row in range(len(weight)):
            if not stays[row, q % block]:
                inverse = inverses[0]
                weight[row, q:] -= weight[row, q] / inverse[0, 0] * inverse[0]
                weight[row, q] = 0.0
    return weight.float()


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_as_the_optimal_brain_surgeon(pattern: tuple[int, int] | None):
    weight, _, hessian = layer(24, 6)
    block = 8 if pattern is None else 4

    def keep(scores: Tensor) -> Tensor:
        if pattern is not None:
            return by_pattern(scores, pattern)
        order = scores.flatten().argsort(descending=True)
        mask = torch.zeros(scores.numel(), dtype=torch.bool)
        mask[order[: scores.numel() // 2]] = True
        return mask.view(scores.shape)

    wanted = surgeon(weight, hessian, block, keep, 0.01)
    found = sparsegpt(weight, hessian, ratio=0.5, pattern=pattern, block=8)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(found == 0, wanted == 0)


@pytest.mark.parametrize("seed", range(3))
def test_less_is_lost_than_without_making_up(seed: int):
    weight, x, hessian = layer(seed=seed)
    scores = wanda(weight, x.norm(dim=0))
    for pattern, mask in ((None, by_row(scores, 0.5)), ((2, 4), by_pattern(scores, (2, 4)))):
        after = sparsegpt(weight, hessian, ratio=0.5, pattern=pattern, block=16)
        assert (after == 0).float().mean() == 0.5
        assert error(weight, after, hessian) < 0.8 * error(weight, weight * mask, hessian)


def test_uncorrelated_inputs_leave_the_others_as_they_are():
    weight, _, _ = layer(16, 4)
    scale = torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.5
    after = sparsegpt(weight, torch.diag(scale), ratio=0.5, damping=1e-9)
    assert torch.equal(after[after != 0], weight[after != 0])
    order = (weight.square() * scale).flatten().argsort(descending=True)[:32]
    assert set(after.flatten().nonzero()[:, 0].tolist()) == set(order.tolist())


def test_inputs_that_are_always_zero_lose_their_weights():
    weight, x, _ = layer(16, 4)
    x[:, 3] = 0
    after = sparsegpt(weight, 2 * x.T @ x / len(x), ratio=0.25)
    assert (after[:, 3] == 0).all() and torch.isfinite(after).all()
    assert (after == 0).sum() == 16  # those among them


def test_given_weights_and_hessian_stay_as_they_are():
    weight, _, hessian = layer(16, 4)
    before = weight.clone(), hessian.clone()
    sparsegpt(weight, hessian)
    assert torch.equal(weight, before[0]) and torch.equal(hessian, before[1])
