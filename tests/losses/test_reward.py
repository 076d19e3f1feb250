"""Losses of reward models: values worked by hand, naive loops, enumeration, and TRL's own trainer."""

import itertools
import math

import pytest
import torch

from amauta.losses.reward import (
    best_of_n_kl,
    bradley_terry,
    centring,
    k_wise,
    mean_by,
    pairs_of,
    plackett_luce,
)

CHOSEN, REJECTED = torch.tensor([1.2, -0.3]), torch.tensor([0.4, 0.5])
K4 = torch.tensor([2.0, 1.0, 0.5, -1.0])
ONE = torch.zeros(4, dtype=torch.long)


def close(found: torch.Tensor, wanted: object, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), atol=atol, rtol=0)


def test_bradley_terry_by_hand():
    close(bradley_terry(CHOSEN, REJECTED), [0.371101, 1.171101])
    close(bradley_terry(CHOSEN, REJECTED, margin=0.5), [0.554355, 1.541008])
    close(bradley_terry(CHOSEN, REJECTED, margin=torch.tensor([0.0, 0.5])), [0.371101, 1.541008])
    close(bradley_terry(CHOSEN, CHOSEN), [math.log(2)] * 2)


def test_bradley_terry_is_the_share_of_exponentials():
    chance = CHOSEN.exp() / (CHOSEN.exp() + REJECTED.exp())
    close((-bradley_terry(CHOSEN, REJECTED)).exp(), chance)
    close((-bradley_terry(REJECTED, CHOSEN)).exp(), 1 - chance)


def test_it_is_finite_far_out():
    far = torch.tensor([300.0, -300.0], requires_grad=True)
    losses = bradley_terry(far, torch.zeros(2))
    close(losses.detach(), [0.0, 300.0])
    losses.sum().backward()
    close(far.grad, [0.0, -1.0])


def test_k_wise_and_plackett_luce_by_hand():
    close(k_wise(K4, ONE, torch.arange(4)), [0.227613])
    close(plackett_luce(K4, ONE), [1.251552])


def test_the_better_answer_may_stand_anywhere():
    order = [2, 0, 3, 1]
    close(k_wise(K4[order], ONE, torch.tensor(order)), [0.227613])


def naive(rewards: list[float], ranks: list[int], margin: float) -> float:
    losses = [
        math.log1p(math.exp(-(rewards[i] - rewards[j] - margin)))
        for i in range(len(rewards)) for j in range(len(rewards)) if ranks[i] < ranks[j]
    ]  # fmt: skip
    return sum(losses) / len(losses)


def test_rankings_of_many_sizes_are_each_what_it_is_alone():
    drawn = torch.randn(14, generator=torch.Generator().manual_seed(1))
    ranks = [[0, 1], [0, 1, 1, 2], [0, 0, 1], [0, 1, 2, 3, 4]]
    margins = torch.tensor([0.0, 0.3, -0.2, 1.0])
    groups = torch.arange(4).repeat_interleave(torch.tensor([len(one) for one in ranks]))
    found = k_wise(drawn, groups, torch.tensor(sum(ranks, [])), margin=margins)
    parts = drawn.split([len(one) for one in ranks])
    close(found, [naive(part.tolist(), one, float(m)) for part, one, m in zip(parts, ranks, margins, strict=True)])


def test_ties_are_no_pair():
    better, worse = pairs_of(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 0, 1, 0, 1]))
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [(1, 0), (1, 2), (3, 4)]


def test_a_group_without_a_value_has_the_mean_0():
    close(mean_by(torch.tensor([1.0, 3.0]), torch.tensor([2, 2]), torch.tensor([0, 1, 2, 2])), [0.0, 0.0, 2.0])


def test_plackett_luce_is_a_distribution_over_orders():
    """The chances of all orders of four answers sum to 1, and each is drawn best first from what is left."""
    total = 0.0
    for order in itertools.permutations(range(4)):
        left, chance = K4.exp().tolist(), 1.0
        for place in order:
            chance *= left[place] / sum(left)
            left[place] = 0.0
        found = math.exp(-float(plackett_luce(K4[list(order)], ONE)))
        assert found == pytest.approx(chance, rel=1e-5)
        total += found
    assert total == pytest.approx(1.0, abs=1e-5)


def test_plackett_luce_of_two_is_bradley_terry():
    rewards = torch.stack([CHOSEN, REJECTED], 1).flatten()
    close(plackett_luce(rewards, torch.tensor([0, 0, 1, 1])), bradley_terry(CHOSEN, REJECTED))


@pytest.mark.parametrize("loss", [lambda r: k_wise(r, GROUPS, RANKS, margin=0.2), lambda r: plackett_luce(r, GROUPS)])
def test_gradients_are_finite_differences_and_a_shift_changes_nothing(loss):  # type: ignore[no-untyped-def]
    rewards = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(loss, (rewards,))
    torch.testing.assert_close(loss(rewards + 7.0), loss(rewards))
    (gradient,) = torch.autograd.grad(loss(rewards).sum(), rewards)
    assert gradient[0] < 0 and gradient[2] > 0  # the best answer of the first ranking gains, its worst loses


GROUPS, RANKS = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1])


def test_centring_by_hand():
    close(centring(CHOSEN, REJECTED), [2.56, 0.04])
    close(centring(CHOSEN, -CHOSEN), [0.0, 0.0])


def test_the_bound_of_best_of_n():
    for n, bound in ((1, 0.0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (64, 3.174508)):
        assert best_of_n_kl(n) == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_best_of_n_is_within_its_bound_and_near_it_without_ties(n: int):
    """The distribution of the best of n is exact where rewards differ: F(x)^n - F(x-)^n."""
    for chances in (
        torch.tensor([0.5, 0.3, 0.2]).double(),
        torch.ones(4000).double() / 4000,
    ):
        below = chances.cumsum(0).clamp(max=1.0)
        best = below**n - (below - chances).clamp(min=0) ** n
        divergence = float((best * (best / chances).log()).nansum())
        assert divergence <= best_of_n_kl(n) + 1e-9
    assert divergence == pytest.approx(best_of_n_kl(n), rel=1e-2)


@pytest.mark.parametrize("coefficient", [None, 0.01])
@pytest.mark.parametrize("margin", [False, True])
def test_equal_to_trl(coefficient: float | None, margin: bool):
    """The loss that TRL's RewardTrainer computes from the same rewards, margins and coefficient."""
    trl = pytest.importorskip("trl")
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    draw = torch.Generator().manual_seed(5)
    rewards = 2 * torch.randn(12, generator=draw)
    margins = torch.rand(6, generator=draw)
    inputs = {"input_ids": torch.ones(12, 3, dtype=torch.long), "attention_mask": torch.ones(12, 3)}
    trainer = MagicMock()
    trainer.args = SimpleNamespace(center_rewards_coefficient=coefficient)
    trainer.accelerator.gather_for_metrics.side_effect = trainer.accelerator.gather.side_effect = lambda x: x
    model = lambda **_: SimpleNamespace(logits=rewards[:, None])  # noqa: E731
    given = inputs | ({"margin": margins} if margin else {})
    theirs = trl.RewardTrainer.compute_loss(trainer, model, given)
    ours = bradley_terry(rewards[:6], rewards[6:], margin=margins if margin else 0.0).mean()
    ours = ours + (coefficient or 0.0) * centring(rewards[:6], rewards[6:]).mean()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
