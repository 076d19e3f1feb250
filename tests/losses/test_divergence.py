"""Entropy, cross-entropy and divergence against scipy, torch and worked values."""

import math

import pytest
import torch

from amauta.losses.divergence import cross_entropy, entropy, kl, kl_estimates

P = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
Q = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)


def test_worked_values_in_bits() -> None:
    assert entropy(P.log(), base=2).item() == pytest.approx(1.5)
    assert cross_entropy(P.log(), Q.log(), base=2).item() == pytest.approx(0.5 * 2 + 0.25 * 2 + 0.25 * 1)
    assert kl(P.log(), Q.log(), base=2).item() == pytest.approx(0.25)
    other = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    assert kl(P.log(), other.log()).item() != pytest.approx(kl(other.log(), P.log()).item())


def test_equal_to_scipy_and_torch() -> None:
    scipy = pytest.importorskip("scipy.stats")
    p, q = (
        torch.rand(4, 9, generator=torch.Generator().manual_seed(s), dtype=torch.float64).softmax(-1) for s in (0, 1)
    )
    assert entropy(p.log()).tolist() == pytest.approx(scipy.entropy(p.numpy(), axis=-1).tolist())
    assert kl(p.log(), q.log(), base=2).tolist() == pytest.approx(
        scipy.entropy(p.numpy(), q.numpy(), base=2, axis=-1).tolist()
    )
    assert kl(p.log(), q.log()).tolist() == pytest.approx(
        torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1).tolist()
    )
    assert (kl(p.log(), q.log()) > 0).all() and kl(p.log(), p.log()).abs().max() < 1e-15


def test_outcomes_without_probability() -> None:
    sure = torch.tensor([1.0, 0.0, 0.0]).log()
    assert entropy(sure).item() == 0
    assert kl(sure, P.log().float()).item() == pytest.approx(math.log(2))
    assert kl(P.log().float(), sure).item() == math.inf


def test_estimates_from_samples() -> None:
    exact = kl(P.log(), Q.log()).item()
    each = kl_estimates(P.log(), Q.log())  # every outcome once: weighted by p the unbiased ones are exact
    for name in ("k1", "k3"):
        assert (P * each[name]).sum().item() == pytest.approx(exact, rel=1e-12)
    drawn = torch.multinomial(P, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    found = kl_estimates(P.log()[drawn], Q.log()[drawn])
    assert found["k1"].mean().item() == pytest.approx(exact, abs=0.01)
    assert found["k3"].mean().item() == pytest.approx(exact, abs=0.01)
    near = (0.99 * P + 0.01 * Q).log()  # k2 is good where the two are near
    assert (P * kl_estimates(P.log(), near)["k2"]).sum().item() == pytest.approx(kl(P.log(), near).item(), rel=0.02)
    assert (found["k3"] >= 0).all() and (found["k2"] >= 0).all() and (found["k1"] < 0).any()
    assert found["k3"].var() < found["k1"].var()
