"""Preference losses: hand-worked values, trl's own code on random batches, and the properties of the whole table."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from amauta.losses.preference import (
    PREFERENCE_LOSSES,
    UNPAIRED_LOSSES,
    cpo,
    dpo,
    hinge,
    ipo,
    knobs_of,
    kto_baseline,
    orpo,
    per_token,
    robust,
    simpo,
    tdpo,
    tdpo2,
)

# log-probs of two pairs, worked by hand: Δ = (1.5, -1.5), |w| = (6, 8), |l| = (7, 5)
GIVEN = {
    "policy": torch.tensor([[-12.0, -14.0], [-20.0, -18.0]], dtype=torch.float64),
    "ref": torch.tensor([[-13.0, -13.5], [-19.0, -18.5]], dtype=torch.float64),
    "lengths": torch.tensor([[6.0, 7.0], [8.0, 5.0]], dtype=torch.float64),
    "divergence": torch.tensor([[0.3, 0.7], [0.5, 0.1]], dtype=torch.float64),
}
HAND_WORKED: list[tuple[Any, dict[str, Any], tuple[float, float]]] = [
    (dpo, {}, (0.620957, 0.770957)),
    (dpo, {"label_smoothing": 0.1}, (0.635957, 0.755957)),
    (robust, {"label_smoothing": 0.1}, (0.602207, 0.789707)),
    (robust, {"label_smoothing": 0.0}, (0.620957, 0.770957)),
    (hinge, {}, (0.85, 1.15)),
    (ipo, {"per_length": False}, (12.25, 42.25)),
    (ipo, {"per_length": True}, (22.675737, 27.300625)),
    (simpo, {"beta": 2.0, "target_margin": 0.5}, (0.974077, 0.167786)),
    (orpo, {"odds_weight": 0.1}, (2 + 0.069315, 2.5 + 0.027318)),
    (cpo, {}, (2 + math.log1p(math.exp(-0.2)), 2.5 + math.log1p(math.exp(0.2)))),
    # δ = D(l) - D(w) = (0.4, -0.4): Δ - δ = (1.1, -1.1), and Δ - δ/2 = (1.3, -1.3)
    (tdpo, {}, (math.log1p(math.exp(-0.11)), math.log1p(math.exp(0.11)))),
    (tdpo2, {}, (math.log1p(math.exp(-0.13)), math.log1p(math.exp(0.13)))),
]


def call(loss: Any, policy: Tensor = GIVEN["policy"], **knobs: Any) -> Tensor:
    given = GIVEN | {"policy": policy}
    names = inspect.signature(loss).parameters.keys() - knobs_of(loss.__name__).keys()
    return loss(**{name: given[name] for name in names}, **knobs)


@pytest.mark.parametrize(("loss", "knobs", "wanted"), HAND_WORKED)
def test_hand_worked(loss: Any, knobs: dict[str, Any], wanted: tuple[float, float]):
    assert call(loss, **knobs).tolist() == pytest.approx(wanted, abs=1e-6)


def test_every_loss_of_the_table_has_a_hand_worked_row():
    assert {loss for loss, _, _ in HAND_WORKED} == set(PREFERENCE_LOSSES)


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_finite_and_falls_when_the_chosen_answer_gains(loss: Any):
    for scale in (1.0, 1e4):
        assert torch.isfinite(call(loss, GIVEN["policy"] * scale)).all()
    base = call(loss)
    assert (call(loss, GIVEN["policy"] + torch.tensor([0.5, 0.0])) < base).all()
    assert (call(loss, GIVEN["policy"] + torch.tensor([0.0, 0.5])) > base).all()


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_gradient_equals_finite_differences(loss: Any):
    assert torch.autograd.gradcheck(lambda x: call(loss, x), (GIVEN["policy"].clone().requires_grad_(),))


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_an_answer_without_tokens_or_one_that_is_certain_is_no_nan(loss: Any):
    """A sum of 0 over no token, or over some: loss and gradient are finite."""
    for lengths in (torch.zeros(2, 2), torch.full((2, 2), 3.0)):
        policy = torch.zeros(2, 2, requires_grad=True)
        given = {"policy": policy, "ref": torch.zeros(2, 2), "lengths": lengths, "divergence": torch.zeros(2, 2)}
        names = inspect.signature(loss).parameters.keys() - knobs_of(loss.__name__).keys()
        losses = loss(**{name: given[name] for name in names})
        losses.sum().backward()
        assert torch.isfinite(losses).all() and policy.grad is not None and torch.isfinite(policy.grad).all()


def test_dpo_is_ln_2_at_the_reference_and_its_slope_is_beta_sigma():
    policy = GIVEN["ref"].clone().requires_grad_()
    assert dpo(policy, GIVEN["ref"], beta=0.1).tolist() == pytest.approx([math.log(2)] * 2)
    policy = GIVEN["policy"].clone().requires_grad_()
    dpo(policy, GIVEN["ref"], beta=0.1).sum().backward()
    assert policy.grad is not None
    assert policy.grad.flatten().tolist() == pytest.approx([-0.046257, 0.046257, -0.053743, 0.053743], abs=1e-6)


def test_robust_is_the_mean_over_flips_undone():
    """Over pairs flipped with chance ε, the mean of robust is dpo of the pairs as they were."""
    policy, ref, share = GIVEN["policy"], GIVEN["ref"], 0.2
    straight = robust(policy, ref, label_smoothing=share)
    flipped = robust(policy.flip(1), ref.flip(1), label_smoothing=share)
    assert torch.allclose((1 - share) * straight + share * flipped, dpo(policy, ref))


def test_divergences_with_no_gap_leave_dpo_and_tdpo2_holds_the_chosen_one():
    policy, ref = GIVEN["policy"], GIVEN["ref"]
    same = torch.full((2, 2), 0.7, dtype=torch.float64)
    assert torch.equal(tdpo(policy, ref, same), dpo(policy, ref))
    divergence = GIVEN["divergence"].clone().requires_grad_()
    tdpo(policy, ref, divergence).sum().backward()
    assert divergence.grad is not None and (divergence.grad[:, 0] < 0).all() and (divergence.grad[:, 1] > 0).all()
    divergence.grad = None
    tdpo2(policy, ref, divergence).sum().backward()
    assert divergence.grad is not None and divergence.grad[:, 0].tolist() == [0.0, 0.0]
    assert (divergence.grad[:, 1] > 0).all()


@pytest.mark.parametrize("loss", UNPAIRED_LOSSES)
def test_kto_hand_worked(loss: Any):
    policy = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
    given = (torch.zeros(2, dtype=torch.float64), torch.tensor([True, False]), torch.tensor(0.8, dtype=torch.float64))
    assert loss(policy, *given).tolist() == pytest.approx([0.495000, 0.492501], abs=1e-6)
    weighed = loss(policy, *given, desirable=2.0, undesirable=3.0)
    assert weighed.tolist() == pytest.approx([0.99, 1.477503], abs=1e-5)
    assert torch.autograd.gradcheck(lambda x: loss(x, *given), (policy,))
    loss(policy, *given).sum().backward()
    assert policy.grad is not None and policy.grad[0] < 0 < policy.grad[1]


def test_the_baseline_of_kto_is_a_mean_not_below_0_and_has_no_gradient():
    policy = torch.tensor([1.0, -0.5, 2.5], requires_grad=True)
    ref = torch.tensor([0.5, 0.5, 1.0])
    assert kto_baseline(policy, ref).item() == pytest.approx(1 / 3)
    assert kto_baseline(ref, policy).item() == 0.0
    assert not kto_baseline(policy, ref).requires_grad


def test_knobs_and_means():
    assert knobs_of("simpo") == {"beta": 2.0, "target_margin": 0.5}
    assert knobs_of("kto") == {"beta": 0.1, "desirable": 1.0, "undesirable": 1.0}
    assert knobs_of("sepo") == {}
    assert per_token(torch.tensor([[-6.0, 0.0]]), torch.tensor([[3.0, 0.0]])).tolist() == [[-2.0, 0.0]]


def random_pairs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 40, (32, 2), generator=draw).float()
    policy = -lengths * torch.rand(32, 2, generator=draw) * 4
    ref = policy + torch.randn(32, 2, generator=draw) * 3
    return {"policy": policy, "ref": ref, "lengths": lengths}


def of_trl(trainer: str) -> Any:
    """The trainer class of trl that has the losses without a reference; only its pure functions are called."""
    pytest.importorskip("trl")
    from importlib import import_module

    module, name = f"trl.experimental.{trainer}.{trainer}_trainer", f"{trainer.upper()}Trainer"
    return getattr(import_module(module), name)


def test_simpo_cpo_and_orpo_are_those_of_trl():
    given = random_pairs()
    policy, lengths, mean = given["policy"], given["lengths"], per_token(given["policy"], given["lengths"])
    accelerator = SimpleNamespace(device="cpu")

    def theirs(name: str, kind: str, values: Tensor, **knobs: float) -> Tensor:
        trainer = of_trl(name)
        self = SimpleNamespace(accelerator=accelerator, loss_type=kind, label_smoothing=0.0, alpha=0.0, **knobs)
        function = trainer.odds_ratio_loss if name == "orpo" else trainer.cpo_loss
        return function(self, values[:, 0], values[:, 1])[0]

    simpos = theirs("cpo", "simpo", mean, beta=2.5, simpo_gamma=0.7)
    torch.testing.assert_close(simpo(policy, lengths, beta=2.5, target_margin=0.7), simpos)
    cpos = theirs("cpo", "sigmoid", policy, beta=0.3)
    torch.testing.assert_close(cpo(policy, lengths, beta=0.3) + mean[:, 0], cpos)
    orpos = theirs("orpo", "", mean, beta=0.25)  # theirs is λ log σ, which they subtract
    torch.testing.assert_close(orpo(policy, lengths, odds_weight=0.25), -mean[:, 0] - orpos)
