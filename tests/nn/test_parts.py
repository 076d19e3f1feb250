"""Norms, rotary positions, feed-forward: values worked by hand and torch's own."""

import pytest
import torch
from torch.nn import functional as F

from amauta.nn.feedforward import ACTIVATIONS, FeedForward
from amauta.nn.init import initialise, scaled_residuals
from amauta.nn.norms import LayerNorm, RMSNorm
from amauta.nn.positions import frequencies, relative_bucket, rotary_table, rotate, slowed


def test_rms_norm_of_1_2_3_4():
    found = RMSNorm(4, eps=0.0)(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(found, torch.tensor([0.365148, 0.730297, 1.095445, 1.460594]), atol=1e-6, rtol=0)


def test_rms_norm_computes_in_f32_and_returns_the_inputs_type():
    norm = RMSNorm(64, eps=1e-5)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)) * 100
    found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, norm(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_torchs(bias: bool):
    ours, theirs = LayerNorm(8, 1e-5, bias), torch.nn.LayerNorm(8, eps=1e-5, bias=bias)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_rotation_of_0_to_7_at_position_3():
    cos, sin = rotary_table(4, frequencies(8, 10_000.0))
    found = rotate(torch.arange(8.0).view(1, 1, 1, 8), cos[3].view(1, 1, 1, 4), sin[3].view(1, 1, 1, 4))
    wanted = [-0.56448, -0.522265, 1.819127, 2.978987, -3.95997, 5.072203, 6.057291, 7.008968]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted), atol=1e-5, rtol=0)


def test_a_rotated_product_depends_on_the_distance_only():
    cos, sin = rotary_table(50, frequencies(16, 10_000.0))
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(i: int, j: int) -> float:
        turn = [rotate(x, cos[p].view(1, 1, 1, 8), sin[p].view(1, 1, 1, 8)) for x, p in ((q, i), (k, j))]
        return float((turn[0] * turn[1]).sum())

    assert product(7, 3) == pytest.approx(product(44, 40), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)


def test_activations_at_1():
    one = torch.ones(())
    wanted = {"gelu": 0.841345, "gelu_tanh": 0.841192, "silu": 0.731059, "relu": 1.0}
    assert {name: pytest.approx(float(f(one)), abs=1e-6) for name, f in ACTIVATIONS.items()} == wanted


def test_gated_feedforward_is_its_equation():
    layer = FeedForward(6, 10, activation="silu", gated=True, bias=False)
    initialise(layer, lambda *_: 1.0, torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 6)
    gate, up = layer.up.weight[:10], layer.up.weight[10:]
    wanted = (F.silu(x @ gate.T) * (x @ up.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), wanted)


def test_first_weights_follow_seed_std_and_depth():
    def made(seed: int) -> FeedForward:
        layer = FeedForward(128, 512, activation="gelu", gated=False, bias=True)
        initialise(layer, scaled_residuals(0.02, layers=8), torch.Generator().manual_seed(seed))
        return layer

    a, b, c = made(1), made(1), made(2)
    assert torch.equal(a.up.weight, b.up.weight) and not torch.equal(a.up.weight, c.up.weight)
    assert float(a.up.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(a.down.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.02)  # √(2·8) = 4
    assert not a.up.bias.any()


# The reference values of Raffel et al. 2020's code for 32 buckets up to 128: distance (key less query) -> bucket.
TWO_SIDED = {-128: 15, -64: 14, -32: 12, -20: 10, -16: 10, -12: 9, -8: 8, -7: 7, 0: 0, 1: 17, 7: 23, 8: 24, 16: 26,
             32: 28, 64: 30, 127: 31, 500: 31}  # fmt: skip
CAUSAL = {-8: 8, -16: 16, -20: 17, -32: 21, -64: 26, -127: 31, -500: 31, 0: 0, 1: 0, 90: 0}


@pytest.mark.parametrize(("causal", "wanted"), [(False, TWO_SIDED), (True, CAUSAL)])
def test_relative_buckets(causal: bool, wanted: dict[int, int]):
    found = relative_bucket(torch.tensor([*wanted]), causal=causal, buckets=32, furthest=128)
    assert dict(zip(wanted, found.tolist(), strict=True)) == wanted


def test_llama3_slows_the_slow_frequencies_alone():
    frequency = torch.tensor([1.0, 2 * torch.pi * 2.5 / 8192, 1e-5], dtype=torch.float64)  # many, 2.5 and few turns
    fast, middle, slow = (slowed(frequency, 8.0, 1.0, 4.0, 8192) / frequency).tolist()
    assert fast == 1.0 and slow == pytest.approx(1 / 8)
    assert middle == pytest.approx(0.5 + 0.5 / 8)  # 2.5 turns are half-way from 1 to 4
