"""Preference losses: hand-worked values, and the properties that every entry of the table must have."""

import inspect
import math

import pytest
import torch

from amauta.losses.preference import PREFERENCE_LOSSES, dpo

# log-probs of two pairs (methods/09): Δ = (1.5, -1.5)
POLICY = torch.tensor([[-12.0, -14.0], [-20.0, -18.0]], dtype=torch.float64)
REF = torch.tensor([[-13.0, -13.5], [-19.0, -18.5]], dtype=torch.float64)
HAND_WORKED = [
    (dpo, {"beta": 0.1}, (0.620957, 0.770957)),
    (dpo, {"beta": 0.1, "label_smoothing": 0.1}, (0.635957, 0.755957)),
]


def call(loss, policy: torch.Tensor, **knobs: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
    takes_ref = "ref" in inspect.signature(loss).parameters
    return loss(policy, REF, **knobs) if takes_ref else loss(policy, **knobs)


@pytest.mark.parametrize(("loss", "knobs", "wanted"), HAND_WORKED)
def test_hand_worked(loss, knobs, wanted):  # type: ignore[no-untyped-def]
    assert call(loss, POLICY, **knobs).tolist() == pytest.approx(wanted, abs=1e-6)


def test_every_loss_of_the_table_has_a_hand_worked_row():
    assert {loss for loss, _, _ in HAND_WORKED} == set(PREFERENCE_LOSSES)


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_finite_and_falls_when_the_chosen_answer_gains(loss):  # type: ignore[no-untyped-def]
    for scale in (1.0, 1e4):
        base = call(loss, POLICY * scale)
        assert torch.isfinite(base).all()
    better = POLICY + torch.tensor([0.5, 0.0], dtype=torch.float64)
    worse = POLICY + torch.tensor([0.0, 0.5], dtype=torch.float64)
    assert (call(loss, better) < call(loss, POLICY)).all()
    assert (call(loss, worse) > call(loss, POLICY)).all()


@pytest.mark.parametrize("loss", PREFERENCE_LOSSES)
def test_gradient_equals_finite_differences(loss):  # type: ignore[no-untyped-def]
    policy = POLICY.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(loss, x), (policy,))


def test_dpo_is_ln_2_at_the_reference_and_its_slope_is_beta_sigma():
    policy = REF.clone().requires_grad_()
    losses = dpo(policy, REF, beta=0.1)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)
    policy = POLICY.clone().requires_grad_()
    dpo(policy, REF, beta=0.1).sum().backward()
    assert policy.grad.flatten().tolist() == pytest.approx([-0.046257, 0.046257, -0.053743, 0.053743], abs=1e-6)
