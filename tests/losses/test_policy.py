"""Advantages, policy losses and what is added to rewards, against worked values, naive loops and exact sums."""

import math

import pytest
import torch
from torch import Tensor

from amauta.losses.policy import (
    AGGREGATIONS,
    GROUP_ADVANTAGES,
    adapted_kl,
    batch_centred,
    clipped,
    gae,
    group_centred,
    group_normalised,
    kl_tokens,
    leave_one_out,
    overlong,
    per_answer,
    per_longest,
    per_token,
    reinforce,
    returns,
    sequence_clipped,
    summed,
    value_loss,
    whiten,
)

REWARDS = torch.tensor([[1.0, 0, 0, 1, 0.5, 0, 0, 1]])


def close(found: Tensor, wanted: object, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=tolerance, rtol=0)


def test_gae_by_hand_and_by_its_double_sum():
    rewards, values = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0.6, 0.7]])
    found = gae(rewards, values, gamma=1.0, lam=0.95)
    close(found, [[0.46575, 0.385, 0.3]])
    close(found + values, [[0.96575, 0.985, 1.0]])
    torch.manual_seed(0)
    rewards, values, last = torch.randn(3, 6), torch.randn(3, 6), torch.randn(3)
    after = torch.cat((values[:, 1:], last[:, None]), 1)
    errors = rewards + 0.9 * after - values
    naive = torch.tensor([[sum((0.9 * 0.7) ** (u - t) * errors[n, u].item() for u in range(t, 6)) for t in range(6)]
                          for n in range(3)])  # fmt: skip
    torch.testing.assert_close(gae(rewards, values, gamma=0.9, lam=0.7, last=last), naive, atol=1e-5, rtol=0)


def test_gae_with_lambda_1_is_the_return_less_the_value():
    torch.manual_seed(1)
    rewards, values = torch.randn(2, 5), torch.randn(2, 5)
    torch.testing.assert_close(gae(rewards, values, gamma=0.8, lam=1.0), returns(rewards, gamma=0.8) - values)
    close(
        returns(torch.tensor([[1.0, 2, 4]]), gamma=0.5, last=torch.tensor([8.0])), [[1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4]]
    )


def test_a_row_that_ends_early_has_the_advantages_of_it_alone():
    rewards, values = torch.tensor([[0.3, 1.0, 0, 0]]), torch.tensor([[0.2, 0.4, 0, 0]])
    found = gae(rewards, values, gamma=0.9, lam=0.8)
    torch.testing.assert_close(found[:, :2], gae(rewards[:, :2], values[:, :2], gamma=0.9, lam=0.8))
    assert found[0, 2:].tolist() == [0, 0]


def test_whiten_reads_what_the_mask_shows_only():
    x = torch.tensor([[1.0, 2, 50], [3, 6, -9]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    found = whiten(x, mask)
    kept = found[mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6) and kept.std().item() == pytest.approx(1, abs=1e-6)
    assert found[~mask].tolist() == [0, 0]
    assert whiten(torch.full((1, 3), 2.0), torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0, 0, 0]]
    assert whiten(torch.tensor([[2.0]]), torch.ones(1, 1, dtype=torch.bool)).tolist() == [[0]]


def test_advantages_of_a_group():
    found = group_normalised(REWARDS)[0]
    close(found[[0, 1, 4]], [1.134952, -0.882741, 0.126106])
    close(group_centred(REWARDS)[0, [0, 1, 4]], [0.5625, -0.4375, 0.0625])
    close(leave_one_out(REWARDS)[0, [0, 1, 4]], [0.642857, -0.5, 0.071429])
    two = torch.tensor([[1.0, 0], [4, 1]])
    close(batch_centred(two), [[-0.5, -1.5], [2.5, -0.5]])
    close(leave_one_out(two), [[1.0, -1], [3, -3]])
    close(group_centred(two), [[0.5, -0.5], [1.5, -1.5]])
    close(group_normalised(two), [[0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4)],
                                  [1.5 / (4.5**0.5 + 1e-4), -1.5 / (4.5**0.5 + 1e-4)]])  # fmt: skip


@pytest.mark.parametrize("advantage", GROUP_ADVANTAGES, ids=lambda f: f.__name__)
def test_equal_rewards_are_worth_nothing_and_better_ones_more(advantage):
    assert advantage(torch.full((1, 4), 0.7)).abs().max().item() < 1e-5
    found = advantage(torch.tensor([[0.1, 0.9, 0.4]]))[0]
    assert found[1] > found[2] > found[0] and found[1] > 0 > found[0]
    torch.testing.assert_close(advantage(torch.tensor([[5.1, 5.9, 5.4]]))[0], found, atol=1e-4, rtol=1e-4)


def exact_policy(seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(4, dtype=torch.float64, requires_grad=True), torch.tensor([1.0, 0.0, 2.0, 0.5]).double()


@pytest.mark.parametrize("advantage, factor", [(leave_one_out, 1.0), (batch_centred, 0.5), (group_centred, 0.5)])
def test_the_expected_gradient_over_all_groups_of_two(advantage, factor):
    """By enumeration: leave-one-out is unbiased; a mean that holds the answer too shortens the gradient by 1 - 1/G."""
    logits, rewards = exact_policy()
    p = logits.softmax(0)
    (wanted,) = torch.autograd.grad(-(p * rewards).sum(), logits)
    total = torch.zeros_like(logits)
    for i in range(4):
        for j in range(4):
            log = logits.log_softmax(0)
            pair = torch.stack((log[i], log[j]))[None]
            loss = reinforce(pair, pair.detach(), advantage(rewards[[i, j]][None])).mean()
            (gradient,) = torch.autograd.grad(loss, logits)
            total += (p[i] * p[j]).detach() * gradient
    torch.testing.assert_close(total, factor * wanted)


def test_clipping_by_hand_and_its_gradient():
    old = torch.zeros(1, 3)
    new = torch.tensor([[1.5, 0.7, 1.1]]).log().requires_grad_()
    found = clipped(new, old, torch.tensor([[1.0, -1, 0.5]]))
    close(-found.detach(), [[1.2, -0.8, 0.55]])
    assert found.mean().item() == pytest.approx(-0.316667, abs=1e-6)
    found.sum().backward()
    close(new.grad, [[0.0, 0.0, -0.55]])  # where the clip holds there is none
    wide = clipped(torch.tensor([[1.25]]).log(), torch.zeros(1, 1), torch.ones(1, 1), low=0.2, high=0.28)
    close(wide, [[-1.25]])


def test_clipping_is_a_plain_policy_gradient_where_nothing_has_moved():
    torch.manual_seed(3)
    log, worth = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5)
    (a,) = torch.autograd.grad(clipped(log, log.detach(), worth).sum(), log)
    (b,) = torch.autograd.grad(reinforce(log, log.detach(), worth).sum(), log)
    torch.testing.assert_close(a, b)


def test_one_ratio_for_an_answer():
    new, old = torch.tensor([[0.3, 0.1, 9.0], [0.2, 0.2, 0.2]]), torch.zeros(2, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = sequence_clipped(new, old, torch.ones(2, 3), mask=mask, low=0.5, high=0.5)
    torch.testing.assert_close(found, torch.full((2, 3), -math.exp(0.2)))
    assert sequence_clipped(new, old, torch.ones(2, 3), mask=mask, low=0.1, high=0.1)[0, 0].item() == pytest.approx(
        -1.1
    )


def test_the_critic_pays_for_moving_too_far():
    values, old, targets = torch.tensor([0.9, 0.2]), torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert value_loss(values, old, targets).mean().item() == pytest.approx(0.045, abs=1e-7)
    assert value_loss(values, old, targets, clip=None).tolist() == pytest.approx([0.005, 0.02])


def test_estimates_of_the_kl_and_their_gradients():
    """Exact over three outcomes: values, and that k2 has the gradient of KL(π||ref), k3 that of KL(ref||π), k1 none."""
    ref = torch.tensor([0.5, 0.3, 0.2]).double().log()
    logits = torch.tensor([0.4, 0.4, 0.2]).double().log().requires_grad_()
    new = logits.log_softmax(0)
    p = new.exp().detach()
    values = {kind: (p * kl_tokens(new, ref, kind)).sum().item() for kind in ("k1", "k2", "k3")}
    assert values == pytest.approx({"k1": 0.025815, "k2": 0.026511, "k3": 0.025815}, abs=1e-6)

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    forward, backward = gradient((new.exp() * (new - ref)).sum()), gradient((ref.exp() * (ref - new)).sum())
    torch.testing.assert_close(gradient((p * kl_tokens(new, ref, "k1")).sum()), torch.zeros(3).double())
    torch.testing.assert_close(gradient((p * kl_tokens(new, ref, "k2")).sum()), forward)
    torch.testing.assert_close(gradient((p * kl_tokens(new, ref, "k3")).sum()), backward)


def test_what_each_token_weighs():
    losses = torch.tensor([[1.0, 1, 9, 9], [0.5, 0.5, 0.5, 0.5]])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    found = {}
    for aggregate in AGGREGATIONS:
        weights, count = aggregate(mask, 8)
        found[aggregate] = float((weights * losses).sum() / count)
    assert found[per_answer] == pytest.approx(0.75)
    assert found[per_token] == pytest.approx(0.666667, abs=1e-6)
    assert found[per_longest] == pytest.approx(0.25)
    assert found[summed] == pytest.approx(2.0)


@pytest.mark.parametrize("aggregate", AGGREGATIONS, ids=lambda f: f.__name__)
def test_an_answer_without_a_token_to_learn_changes_nothing(aggregate):
    mask = torch.tensor([[True, False], [True, True]])
    weights, count = aggregate(mask, 4)
    more, again = aggregate(torch.cat((mask, torch.zeros(1, 2, dtype=torch.bool))), 4)
    torch.testing.assert_close(more[:2], weights)
    assert more[2].tolist() == [0, 0] and int(again) == int(count)


def test_an_answer_that_is_too_long_pays():
    lengths = torch.tensor([16384.0, 16385, 18432, 20480, 20481])
    close(overlong(lengths, longest=20480, margin=4096), [0, -0.000244, -0.5, -1, -1])


def test_the_weight_of_the_kl_follows_its_target():
    assert adapted_kl(0.1, 9, target=6, horizon=10_000, samples=256) == pytest.approx(0.100512)
    assert adapted_kl(0.1, 0, target=6, horizon=10_000, samples=256) == pytest.approx(0.099488)
    assert adapted_kl(0.1, 6.6, target=6, horizon=10_000, samples=1000) == pytest.approx(0.101)
