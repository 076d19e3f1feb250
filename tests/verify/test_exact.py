"""Known optima: formulas against sums, sums against brute force, and the search for a rest against known rests."""

import itertools

import pytest
import torch
from torch import Tensor

from amauta.verify import exact, policies, preferences
from amauta.verify.ground import STRENGTHS, Ground
from amauta.verify.settings import Oracle
from amauta.worlds.enumerable import kl, objective, total_variation

GROUND = Ground(Oracle(group=2))


def test_the_data_has_every_pair_as_often_as_its_chance():
    shares = GROUND.shares
    assert float(shares.sum()) == pytest.approx(1) and len(GROUND.pairs) == len(GROUND.units)
    for x, strengths in enumerate(STRENGTHS):
        for i, j in itertools.permutations(range(7), 2):
            chance = float(shares[x, i, j] / (shares[x, i, j] + shares[x, j, i]))
            assert chance == pytest.approx(strengths[i] / (strengths[i] + strengths[j]))
            assert chance == pytest.approx(float(torch.sigmoid(GROUND.reward[x, i] - GROUND.reward[x, j])))
    both = GROUND.of_pairs(GROUND.reward)
    x, i, j = GROUND.pairs[17].tolist()
    assert both[17].tolist() == pytest.approx([float(GROUND.reward[x, i]), float(GROUND.reward[x, j])])
    assert [len(piece.ids) for piece in GROUND.units[17]] == [1 + int(GROUND.space.lengths[y]) for y in (i, j)]


@pytest.mark.parametrize("name", ["dpo", "ipo", "ipo-mean", "tdpo"])
def test_an_optimum_by_formula_is_where_the_sums_come_to_rest(name: str):
    trial = preferences.trial(GROUND, name)
    assert trial.formula is not None
    found = GROUND.space.logprobs(exact.settled(exact.downhill(trial.loss()), GROUND.ref_table))
    torch.testing.assert_close(found, trial.formula, atol=1e-7, rtol=0)
    assert float(total_variation(trial.formula, GROUND.best).max()) == pytest.approx(0, abs=1e-9) or name != "dpo"


def test_sparsepo_tilts_each_state_by_its_mask():
    """``π ∝ ref e^(Q_ref / (β m))`` for the masks as they begin, where none is 0."""
    trial = preferences.trial(GROUND, "sparsepo")
    with torch.no_grad():
        masks = trial.model.masks["both"]([GROUND.ref_table.float().flatten(0, 1)]).double().view(2, 3, 1)
    assert bool((masks > 0).all())
    quality = GROUND.space.expected_after(GROUND.ref, GROUND.reward)
    wanted = GROUND.space.logprobs(GROUND.ref_table + quality / (GROUND.settings.beta * masks))
    found = GROUND.space.logprobs(exact.settled(exact.downhill(trial.loss()), GROUND.ref_table))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_nothing_near_the_hinges_optimum_is_better():
    trial = preferences.trial(GROUND, "hinge")
    steps = exact.whole_steps(GROUND)
    assert torch.equal(steps, steps.round()) and float(steps.max()) <= 6
    assert trial.formula is not None
    loss, best = trial.loss(), GROUND.space.table(trial.formula)
    least = float(loss(best, best))
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(60):
            other = best + size * torch.randn(best.shape, generator=generator, dtype=torch.float64)
            assert float(loss(other, other)) > least - 1e-12


@pytest.mark.parametrize("name", ["cdpo", "robust", "kto", "orpo", "simpo", "cpo", "sepo", "mapo"])
def test_a_rest_by_sums_is_a_minimum(name: str):
    loss = preferences.trial(GROUND, name).loss()
    end = exact.settled(exact.downhill(loss), GROUND.ref_table)
    least = float(loss(end, end))
    assert least < float(loss(GROUND.ref_table, GROUND.ref_table)) - 1e-3
    generator = torch.Generator().manual_seed(1)
    for size in (1e-2, 0.5):
        for _ in range(20):
            other = end.clamp(min=-12) + size * torch.randn(end.shape, generator=generator, dtype=torch.float64)
            assert float(loss(other, end)) > least - 1e-6


def test_a_rest_is_found_at_a_point_and_at_infinity():
    target = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(-1)

    def closer(table: Tensor, held: Tensor) -> Tensor:
        return kl(target, table.log_softmax(-1)).sum()

    found = exact.settled(exact.downhill(closer), torch.zeros_like(target))
    torch.testing.assert_close(found, target, atol=1e-8, rtol=0)

    def first(table: Tensor, held: Tensor) -> Tensor:
        return -table.softmax(-1)[..., 0].sum()

    assert float(exact.settled(exact.downhill(first), torch.zeros_like(target))[..., 1:].max()) < -15


def test_what_is_held_fixed_has_no_gradient_and_follows():
    """At rest of ``½ (x - 2 held + 1)²`` x is what it is when the held one is itself: 1."""

    def loss(table: Tensor, held: Tensor) -> Tensor:
        return ((table - 2 * held + 1) ** 2).sum() / 2

    field = exact.downhill(loss)
    point = torch.full((1, 1, 2), 3.0, dtype=torch.float64)
    torch.testing.assert_close(field(point), -(point - 2 * point + 1))


def test_wishes_are_gradients_of_weighed_logprobs():
    table = GROUND.point.clone().requires_grad_()
    coefficients = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (wanted,) = torch.autograd.grad((coefficients * GROUND.space.along(table.log_softmax(-1))).sum(), table)
    torch.testing.assert_close(exact.wishes(GROUND, GROUND.point, coefficients), wanted)


def test_the_worth_of_an_answer_in_groups_is_the_mean_over_ordered_groups():
    ground = Ground(Oracle(group=3))
    logprobs = ground.space.logprobs(ground.point)
    found = exact.grouped(ground, logprobs)
    wanted = torch.zeros(7, dtype=torch.float64)
    for group in itertools.product(range(7), repeat=3):
        rewards = ground.reward[1, list(group)]
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        chance = float(logprobs[1, list(group)].sum().exp())
        for y, advantage in zip(group, advantages, strict=True):
            wanted[y] += chance * advantage / 3
    torch.testing.assert_close(found[1], wanted)


def test_lengths_spread_one_lead_over_their_tokens():
    lead = torch.randn(2, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = exact.normalised_by_length(GROUND, lead)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, dtype=torch.float64))
    left = (found - GROUND.ref) / GROUND.space.lengths - lead
    torch.testing.assert_close(left, left[:, :1].expand_as(left), atol=1e-9, rtol=0)


def test_the_critic_expects_what_the_objective_says():
    """Of the first state ``E r - β KL``; of a state with one token left the mean of what its tokens earn."""
    values = policies.exact_critic(GROUND, GROUND.point, 0.5)
    logprobs = GROUND.space.logprobs(GROUND.point)
    torch.testing.assert_close(values[:, 0], objective(logprobs, GROUND.ref, GROUND.reward, 0.5))
    logs = GROUND.point.log_softmax(-1)[1, 2]
    rows = [i for i, answer in enumerate(GROUND.space.answers) if answer[0] == 1 and len(answer) == 2]
    earned = GROUND.reward[1, rows] - 0.5 * (logs - GROUND.ref_table[1, 2])
    assert float(values[1, 2]) == pytest.approx(float((logs.exp() * earned).sum()))


def test_where_methods_with_rewards_must_end():
    best = [6, 3]
    for name in ("dr-grpo", "dapo", "gspo"):
        end = policies.optimum_of(GROUND, name).exp()
        assert end.argmax(1).tolist() == best and float(end.sum()) == 2
    for name in ("reinforce", "rloo", "ppo"):
        assert policies.optimum_of(GROUND, name) is GROUND.best
    move = policies.grpo_field(GROUND)
    end = GROUND.space.table(policies.optimum_of(GROUND, "grpo"))
    assert float(move(end).abs().max()) < 1e-9 < float(move(GROUND.ref_table).abs().max())
    assert float(total_variation(policies.optimum_of(GROUND, "grpo"), GROUND.best).max()) > 0.05
