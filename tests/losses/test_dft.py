"""Dynamic fine-tuning: a value by hand, torch's own gradients, and what makes it differ from cross-entropy."""

import pytest
import torch

from amauta.losses.token import IGNORE, chunk_gradient, cross_entropy, dynamic_gradient


def problem() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 6, generator=g, dtype=torch.float64, requires_grad=True)
    table = torch.randn(15, 6, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(15, generator=g, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 15, (3, 7), generator=g)
    targets[0, 2:5] = IGNORE
    return hidden, table, bias, targets


def test_logits_2_1_0_by_hand():
    """p = .665241, -log p = .407606: the loss is .271156, and its gradient .665241 times that of cross-entropy."""
    rows, table = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    loss, _, d_table, _ = dynamic_gradient(rows, table, torch.tensor([0]), 0.0)
    assert float(loss) == pytest.approx(0.271156, abs=1e-6)
    wanted = 0.665241 * torch.tensor([0.665241 - 1, 0.244728, 0.090031])
    torch.testing.assert_close(d_table[:, 0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.2])
def test_equals_torch_with_its_gradients(chunk: int, with_bias: bool, z_loss: float):
    hidden, table, bias, targets = problem()
    leaves = (hidden, table, bias) if with_bias else (hidden, table)
    total, n = cross_entropy(
        hidden, table, targets, bias=bias if with_bias else None, z_loss=z_loss, chunk=chunk,
        dtype=torch.float64, gradient=dynamic_gradient,
    )  # fmt: skip
    found = torch.autograd.grad(total * 3, leaves)
    logits = hidden @ table.T + (bias if with_bias else 0)
    logprobs = logits.log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    here = targets != IGNORE
    wanted = -(logprobs.detach().exp() * logprobs)[here].sum() + z_loss * logits.logsumexp(-1)[here].square().sum()
    assert n == 18
    assert float(total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for mine, theirs in zip(found, torch.autograd.grad(wanted * 3, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_weight_is_no_part_of_the_slope():
    """d(-p log p) would turn its sign where p < 1/e; with the weight held fixed the target always gains."""
    rows, table = torch.tensor([[1.0]]), torch.tensor([[-3.0], [1.0], [0.0]])
    _, _, d_table, _ = dynamic_gradient(rows, table, torch.tensor([0]), 0.0)
    assert d_table[0] < 0 < d_table[1]
    _, _, plain, _ = chunk_gradient(rows, table, torch.tensor([0]), 0.0)
    assert 0 < float(d_table[0] / plain[0]) < 0.02


def test_the_z_loss_is_not_weighed():
    hidden, table, _, targets = problem()
    sums = [float(cross_entropy(hidden, table, targets, z_loss=z, gradient=gradient)[0])
            for gradient in (chunk_gradient, dynamic_gradient) for z in (0.0, 0.5)]  # fmt: skip
    assert sums[1] - sums[0] == pytest.approx(sums[3] - sums[2], rel=1e-4)
