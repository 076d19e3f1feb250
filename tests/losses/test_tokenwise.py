"""Equations over the tokens of pairs: hand-worked values, and the losses that they become at their ends."""

import math

import pytest
import torch
from torch import Tensor, tensor

from amauta.losses.preference import simpo, tdpo
from amauta.losses.tokenwise import mapo_mask, penalty, rescaled, select, sepo, sparsepo

# log-probs of a chosen and a rejected answer under the policy, and log π_oracle - log π_ref of their tokens
CHOSEN, CHOSEN_SCORES = tensor([-0.5, -1.0, -0.2, -2.0]), tensor([0.3, 0.9, -0.1, 0.5])
REJECTED, REJECTED_SCORES = tensor([-1.0, -0.3, -2.5, -0.7]), tensor([-0.4, 0.2, -0.9, 0.1])

# log π - log π_ref of the tokens of two answers, masks and KL(π_ref || π)
H = (tensor([0.2, -0.1, 0.4]), tensor([-0.3, 0.1]))
M = (tensor([1.0, 0.0, 0.5]), tensor([0.8, 0.2]))
KL = (tensor([0.05, 0.02, 0.1]), tensor([0.03, 0.07]))


def pair(values: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack([one.sum() for one in values])[None]


def times(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return a[0] * b[0], a[1] * b[1]


def test_sepo_by_hand():
    chosen, rejected = select(CHOSEN_SCORES, 0.5), select(REJECTED_SCORES, 0.5, lowest=True)
    assert chosen.nonzero()[:, 0].tolist() == [1, 3] and rejected.nonzero()[:, 0].tolist() == [0, 2]
    sums = tensor([[float(CHOSEN[chosen].sum()), float(REJECTED[rejected].sum())]])
    assert sepo(sums, tensor([[2, 2]]), scale=2.0).item() == pytest.approx(0.474077, abs=1e-6)
    # u = (-3, -3.5) there; ahead by λ = 0.5 it stands at log 2
    assert sepo(sums, tensor([[2, 2]]), scale=2.0, lead=0.5).item() == pytest.approx(math.log(2), abs=1e-6)


def test_all_tokens_without_a_lead_are_simpo_without_margin():
    sums, lengths = -3 * torch.rand(5, 2), torch.randint(1, 9, (5, 2))
    for n in (1, 4, 9):
        assert select(torch.randn(n), 1.0).all() and select(torch.randn(n), 1.0, lowest=True).all()
    u = 2.5 * sums / lengths
    torch.testing.assert_close(sepo(sums, lengths, scale=2.5), -torch.log(torch.sigmoid(u[:, 0] - u[:, 1])))
    torch.testing.assert_close(sepo(sums, lengths, scale=2.5), simpo(sums, lengths, beta=2.5, target_margin=0.0))


@pytest.mark.parametrize(
    ("n", "share", "count"), [(10, 0.3, 3), (9, 0.3, 2), (3, 0.3, 1), (1, 0.01, 1), (100, 0.29, 29)]
)
def test_so_many_tokens_are_selected(n: int, share: float, count: int):
    scores = torch.randn(n, generator=torch.Generator().manual_seed(n))
    for lowest in (False, True):
        chosen = select(scores, share, lowest=lowest)
        inside, outside = scores[chosen], scores[~chosen]
        assert len(inside) == count
        if len(outside):
            assert inside.max() < outside.min() if lowest else inside.min() > outside.max()


def test_of_equal_scores_the_earlier_is_taken():
    assert select(tensor([1.0, 2, 1, 2, 2]), 0.4).tolist() == [False, True, False, True, False]
    assert select(tensor([1.0, 2, 1, 2, 1]), 0.4, lowest=True).tolist() == [True, False, True, False, False]
    assert select(torch.zeros(0), 0.3).tolist() == []


def test_sparsepo_by_hand():
    loss = sparsepo(pair(times(M, H)), pair(times(M, KL)), beta=0.8)
    assert loss.item() == pytest.approx(0.457105, abs=1e-6)
    assert sparsepo(pair(H), pair(KL), beta=0.8).item() == pytest.approx(0.431848, abs=1e-6)


def test_masks_of_one_are_tdpo1_and_masks_of_zero_say_nothing():
    policy, ref, divergence = -9 * torch.rand(6, 2), -9 * torch.rand(6, 2), torch.rand(6, 2)
    torch.testing.assert_close(sparsepo(policy - ref, divergence, beta=0.7), tdpo(policy, ref, divergence, beta=0.7))
    h = torch.randn(4, 2, requires_grad=True)
    loss = sparsepo(h * 0, h * 0, beta=0.7)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.log(2)] * 4) and h.grad.tolist() == [[0, 0]] * 4


def test_the_gradient_equals_finite_differences():
    values = (torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda rewards, divergence: sparsepo(rewards, divergence, beta=0.4), tuple(values))


def test_what_masks_cost():
    rewards, divergence = tensor([[3.0, 1.0]]), tensor([[0.5, 0.0]])
    knobs = {"l1_reward": 0.1, "l1_divergence": 10.0}
    assert penalty(rewards, divergence, **knobs).tolist() == pytest.approx([5.4])
    assert penalty(rewards, rewards, **knobs, common=True).tolist() == pytest.approx([20.2])


def test_rescaled_by_hand():
    assert rescaled(tensor([[1.0, 3, 2], [5, 5, 5]])).tolist() == [[0, 1, 0.5], [1, 1, 1]]
    assert rescaled(tensor([[-7.0]])).tolist() == [[1]]


def test_scores_of_z_first_change_nothing():
    values = torch.randn(4, 9, dtype=torch.float64)
    z = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)
    torch.testing.assert_close(rescaled(z), rescaled(values))


def test_types_count_alike_however_many_layers_they_have():
    one, two = tensor([[0.0, 4, 1]]), tensor([[1.0, 0, 3], [0, 2, 2], [0, 0, 1]])
    # rescaled: (0, 1, 1/4); (1/3, 0, 1), (0, 1, 1), (0, 0, 1), whose mean is (1/9, 1/3, 1)
    assert mapo_mask([one, two]).tolist() == pytest.approx([1 / 18, 2 / 3, 5 / 8])
