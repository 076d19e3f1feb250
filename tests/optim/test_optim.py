"""Optimisers and schedules against torch's own and the published shapes."""

import pytest
import torch
from torch import nn

from amauta.optim.groups import Optimizers
from amauta.optim.muon import Muon, orthogonalise
from amauta.optim.schedules import cosine, factor, inverse_sqrt, linear, wsd
from amauta.optim.settings import Optim

STEPS = (10, 11, 50, 90, 100)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (lambda t: cosine(t, 10, 100, 0.0), (1, 0.999695, 0.586824, 0.030154, 0)),
        (lambda t: linear(t, 10, 100, 0.0), (1, 0.988889, 0.555556, 0.111111, 0)),
        (lambda t: inverse_sqrt(t, 10, 100, 0.0), (1, 0.953463, 0.447214, 0.333333, 0.316228)),
        (lambda t: wsd(t, 10, 100, 0.1, 0.2), (1, 1, 1, 0.55, 0.1)),
    ],
)
def test_published_shapes(shape, wanted):  # type: ignore[no-untyped-def]
    assert [shape(t) for t in STEPS] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "linear", "inverse-sqrt", "constant"])
def test_a_factor_warms_up_and_never_leaves_0_to_1(schedule):  # type: ignore[no-untyped-def]
    rate = factor(Optim(schedule=schedule, warmup=0.1), 100)
    assert rate(0) == pytest.approx(0.1) and rate(4) == pytest.approx(0.5)
    assert all(0 <= rate(step) <= 1 for step in range(100))
    assert rate(12) > 0.9


def test_muon_equals_torchs():
    torch.manual_seed(0)
    for shape in ((12, 30), (30, 12), (16, 16)):
        ours, theirs = (nn.Parameter(torch.randn(shape)) for _ in range(2))
        theirs.data.copy_(ours.data)
        a = Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1, dtype=torch.bfloat16)
        b = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True)
        for _ in range(3):
            grad = torch.randn(shape)
            ours.grad, theirs.grad = grad.clone(), grad.clone()
            a.step()
            b.step()
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-2)


def test_orthogonal_means_singular_values_near_1():
    flat = orthogonalise(torch.randn(3, 40, 25, generator=torch.Generator().manual_seed(0)), torch.float32)
    values = torch.linalg.svdvals(flat)
    assert 0.6 < float(values.min()) and float(values.max()) < 1.25


def test_a_packed_matrix_is_cut_before_it_is_made_orthogonal():
    torch.manual_seed(1)
    packed, first, second = nn.Parameter(torch.zeros(20, 6)), *(nn.Parameter(torch.zeros(10, 6)) for _ in range(2))
    grad = torch.cat([torch.randn(10, 6), 1000 * torch.randn(10, 6)])
    packed.grad, first.grad, second.grad = grad, grad[:10].clone(), grad[10:].clone()
    Muon([packed], lr=1.0, weight_decay=0.0, splits={packed: (10, 10)}).step()
    Muon([first, second], lr=1.0, weight_decay=0.0).step()
    torch.testing.assert_close(packed.data, torch.cat([first.data, second.data]))
    whole = nn.Parameter(torch.zeros(20, 6))
    whole.grad = grad
    Muon([whole], lr=1.0, weight_decay=0.0).step()
    assert not torch.allclose(whole.data, packed.data, atol=1e-2)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_decay_is_for_the_matrices_of_blocks_only(optimizer):  # type: ignore[no-untyped-def]
    model = Small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    chosen = Optimizers(model, Optim(optimizer=optimizer, lr=0.1, matrix_lr=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chosen.step(1.0)
    for name, parameter in model.named_parameters():
        shrinks = name == "blocks.0.weight"
        wanted = before[name] * (1 - 0.1 * 0.5) if shrinks else before[name]
        torch.testing.assert_close(parameter.detach(), wanted)


def test_adamw_by_hand():
    model = Small()
    chosen = Optimizers(model, Optim(optimizer="adamw", lr=0.01, weight_decay=0.1, eps=1e-8))
    p = model.blocks[0].weight
    value, m, v = p.detach().clone(), torch.zeros(4, 4), torch.zeros(4, 4)
    for t in (1, 2, 3):
        grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(t))
        p.grad = grad.clone()
        chosen.step(0.5)
        m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad**2
        value = value * (1 - 0.005 * 0.1) - 0.005 * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        torch.testing.assert_close(p.detach(), value)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_kept_state_goes_on_as_if_never_kept(optimizer):  # type: ignore[no-untyped-def]
    def grads(model: Small, t: int) -> None:
        for i, p in enumerate(model.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * t + i))

    torch.manual_seed(0)
    one = Small()
    a = Optimizers(one, Optim(optimizer=optimizer))
    for t in range(3):
        grads(one, t)
        a.step(1.0)
    two = Small()
    two.load_state_dict(one.state_dict())
    b = Optimizers(two, Optim(optimizer=optimizer))
    b.restore({name: value.clone() for name, value in a.tensors().items()})
    for t in range(3, 6):
        for model, chosen in ((one, a), (two, b)):
            grads(model, t)
            chosen.step(0.7)
    for x, y in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_parameters_with_a_rate_and_a_decay_of_their_own(optimizer):  # type: ignore[no-untyped-def]
    model = Small()
    name, own = next((name, p) for name, p in model.named_parameters() if name == "blocks.0.weight")
    group = {"params": [own], "lr": 0.5, "weight_decay": 0.25}
    settings = Optim(optimizer=optimizer, lr=0.1, matrix_lr=0.1, weight_decay=0.9, eps=1e-12)
    chosen = Optimizers(model, settings, own=[group])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    chosen.step(0.5)  # AdamW's first step is as long as its rate
    for each, parameter in model.named_parameters():
        wanted = before[each] * (1 - 0.25 * 0.25) - 0.25 if each == name else before[each] - 0.05
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-5)
    assert sum(key.startswith("0/") or key.startswith("1/") for key in chosen.tensors()) == len(chosen.tensors())
