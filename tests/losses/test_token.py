"""Token losses: torch's own cross-entropy with its gradients, whatever the chunk."""

import pytest
import torch
from torch.nn import functional as F

from amauta.losses import token
from amauta.losses.token import IGNORE, cross_entropy, token_logprobs


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 11, 8, generator=g, requires_grad=True)
    table = torch.randn(20, 8, generator=g, requires_grad=True)
    targets = torch.randint(0, 20, (3, 11), generator=g)
    targets[0, :5] = IGNORE
    targets[2] = IGNORE
    return hidden, table, targets


@pytest.mark.parametrize("chunk", [1, 4, 17, 1000])
def test_equals_torch_with_its_gradients(chunk: int):
    hidden, table, targets = problem()
    total, n = cross_entropy(hidden, table, targets, chunk=chunk)
    (total * 3).backward()
    found = [hidden.grad.clone(), table.grad.clone()]
    hidden.grad = table.grad = None
    wanted = F.cross_entropy((hidden @ table.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    (wanted * 3).backward()
    assert n == 17
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(found[0], hidden.grad)
    torch.testing.assert_close(found[1], table.grad)


@pytest.mark.parametrize("chunk", [1, 4, 17, 1000])
def test_a_bias_equals_torch_with_its_gradient(chunk: int):
    hidden, table, targets = problem()
    bias = torch.randn(20, generator=torch.Generator().manual_seed(2), requires_grad=True)
    leaves = (hidden, table, bias)
    total, n = cross_entropy(hidden, table, targets, bias=bias, chunk=chunk)
    found = torch.autograd.grad(total * 3, leaves)
    logits = (hidden @ table.T + bias).flatten(0, 1)
    wanted = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close((total, n), (wanted, 17))
    torch.testing.assert_close(found, torch.autograd.grad(wanted * 3, leaves))


@pytest.mark.parametrize("chunk", [3, 1000])
def test_logprobs_equal_torch_with_their_gradients(chunk: int):
    hidden, table, targets = problem()
    weights = torch.randn(3, 11)
    (token_logprobs(hidden, table, targets, chunk=chunk) * weights).sum().backward()
    found = [hidden.grad.clone(), table.grad.clone()]
    hidden.grad = table.grad = None
    all_logprobs = (hidden @ table.T).log_softmax(-1)
    wanted = all_logprobs.gather(-1, targets.clamp_min(0)[..., None])[..., 0] * (targets != IGNORE)
    (wanted * weights).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(token_logprobs(hidden, table, targets, chunk=chunk), wanted)
    torch.testing.assert_close(found[0], hidden.grad)
    torch.testing.assert_close(found[1], table.grad)


def test_z_loss_of_logits_2_1_0():
    hidden = torch.eye(3)[:1].requires_grad_()
    table = torch.tensor([[2.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]], requires_grad=True)
    plain, _ = cross_entropy(hidden, table, torch.tensor([0]))
    with_z, _ = cross_entropy(hidden, table, torch.tensor([0]), z_loss=1e-4)
    assert float(plain) == pytest.approx(2.407606 - 2, abs=1e-6)
    assert float(with_z - plain) == pytest.approx(5.7966e-4, abs=1e-7)


def test_z_loss_gradient_by_finite_differences():
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    table = torch.randn(5, 3, generator=g, dtype=torch.float64)
    targets = torch.tensor([0, 4, IGNORE, 2])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return cross_entropy(x, table, targets, z_loss=0.3, dtype=torch.float64)[0].double()

    loss(hidden).backward()
    for i in range(4):
        for j in range(3):
            step = torch.zeros(4, 3, dtype=torch.float64)
            step[i, j] = 1e-3
            with torch.no_grad():
                slope = (loss(hidden + step) - loss(hidden - step)) / 2e-3
            assert float(hidden.grad[i, j]) == pytest.approx(float(slope), abs=2e-3)


def test_micro_batches_sum_to_the_batch():
    hidden, table, targets = problem()
    whole, n = cross_entropy(hidden, table, targets)
    parts = [cross_entropy(hidden[i : i + 1], table, targets[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(sum(total for total, _ in parts), whole)
    assert sum(count for _, count in parts) == n


def test_never_more_than_a_chunk_of_logits(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    def spy(rows, table, ids, z_loss):  # type: ignore[no-untyped-def]
        seen.append(len(rows))
        return chunk_gradient(rows, table, ids, z_loss)

    chunk_gradient = token.chunk_gradient
    hidden, table, targets = problem()
    cross_entropy(hidden, table, targets, chunk=4, gradient=spy)
    assert seen == [4, 4, 4, 4, 4]  # 17 supervised tokens, the last chunk filled up to one shape


def test_nothing_supervised_is_zero_with_zero_gradient():
    hidden, table, targets = problem()
    total, n = cross_entropy(hidden, table, torch.full_like(targets, IGNORE))
    total.backward()
    assert (float(total), n) == (0.0, 0)
    assert not hidden.grad.any() and not table.grad.any()
