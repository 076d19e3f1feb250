"""Reversible layers: the gradients of a run that stores everything, and nothing stored."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.local import Window
from amauta.nn.lsh import Hashing, LSHAttention
from amauta.nn.reversible import Pair, Part, reversible

D = 8


def stored(x1: Tensor, x2: Tensor, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """The same layers under torch's own gradient."""
    for pair in pairs:
        x1 = x1 + pair.f(x2)[0]
        x2 = x2 + pair.g(x1)[0]
    return x1, x2


class Layer(nn.Module):
    """LSH attention with its own rotations at each call, a feed-forward layer, dropout on both."""

    def __init__(self, at_once: int = 0) -> None:
        super().__init__()
        self.attention = LSHAttention(D, 2, 4, Window(4, 1, 0, True), Hashing(2, (4,), 64, None), dropout=0.2)
        self.feedforward = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 16), nn.GELU(), nn.Linear(16, D))
        nn.init.normal_(self.attention.qkv.weight, std=0.5)
        nn.init.normal_(self.attention.out.weight, std=0.5)
        self.at_once, self.inputs = at_once, []  # what each part was given, in order

    def attend(self, x: Tensor, buckets: Any) -> tuple[Tensor, Any]:
        self.inputs.append(x.detach())
        out, buckets = self.attention(F.layer_norm(x, (D,)), None, buckets)
        return F.dropout(out, 0.2, self.training), buckets

    def feed(self, x: Tensor, kept: None) -> tuple[Tensor, None]:
        self.inputs.append(x.detach())
        return F.dropout(self.feedforward(x), 0.2, self.training), kept

    def pair(self) -> Pair:
        return Pair(
            Part(self.attend, tuple(self.attention.parameters())),
            Part(self.feed, tuple(self.feedforward.parameters()), self.at_once),
        )


def made(layers: int, at_once: int = 0) -> tuple[list[Layer], Tensor, Tensor]:
    torch.manual_seed(layers)
    blocks = [Layer(at_once) for _ in range(layers)]
    return blocks, torch.randn(2, 16, D), torch.randn(2, 16, D)


def gradients(run: Any, blocks: list[Layer], x1: Tensor, x2: Tensor) -> list[Tensor]:
    """Outputs, then the gradients of the inputs and of every parameter, dropout and hashing drawn from one seed."""
    leaves = [x1.clone().requires_grad_(), x2.clone().requires_grad_()]
    torch.manual_seed(11)
    y1, y2 = run(*leaves, [block.pair() for block in blocks])
    torch.manual_seed(99)  # a replay that draws anew would now draw other numbers
    wanted = [p for block in blocks for p in block.parameters() if p.requires_grad]
    weight = torch.linspace(-1, 1, y1.numel()).view_as(y1)
    return [y1, y2, *torch.autograd.grad((y1 * weight).sum() + y2.square().sum(), [*leaves, *wanted])]


@pytest.mark.parametrize("at_once", [0, 5], ids=["whole", "pieces"])
def test_gradients_of_a_run_that_stores(at_once: int):
    blocks, x1, x2 = made(4, at_once)
    for ours, theirs in zip(gradients(reversible, blocks, x1, x2), gradients(stored, blocks, x1, x2), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_pieces_are_the_whole():
    blocks, x1, x2 = made(3)
    for block in blocks:
        block.eval()
    whole = gradients(reversible, blocks, x1, x2)
    for block in blocks:
        block.at_once = 5  # 16 tokens: 5, 5, 5 and 1
    for ours, theirs in zip(gradients(reversible, blocks, x1, x2), whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_inverse_in_f32():
    blocks, x1, x2 = made(6)
    gradients(reversible, blocks, x1, x2)
    for block in blocks:
        f, g, again_g, again_f = block.inputs
        assert (f - again_f).abs().max() < 1e-5
        assert (g - again_g).abs().max() < 1e-5


def test_buckets_are_those_of_the_first_run():
    """A part gets back what it kept: hashing the regained input anew could move a vector into another bucket."""
    given = []

    def f(x: Tensor, kept: int | None) -> tuple[Tensor, int]:
        given.append(kept)
        return x * 0.5, 7

    pair = Pair(Part(f, ()), Part(lambda x, kept: (x.tanh(), None), ()))
    x = torch.randn(1, 2, 3, requires_grad=True)
    y1, y2 = reversible(x, x, [pair])
    (y1 + y2).sum().backward()
    assert given == [None, 7]


def test_gradcheck_in_f64():
    torch.manual_seed(0)
    weights = [torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]

    def part(w: Tensor, at_once: int = 0) -> Part:
        return Part(lambda x, kept: ((x @ w).tanh(), kept), (w,), at_once)

    def run(x1: Tensor, x2: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c, d = weights
        return reversible(x1, x2, [Pair(part(a), part(b, 1)), Pair(part(c), part(d)), Pair(part(a), part(a))])

    x1, x2 = (torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(run, (x1, x2, *weights))


def test_nothing_of_a_layer_is_stored():
    def held(run: Any, layers: int) -> int:
        """Numbers that torch keeps for the backward pass, weights aside."""
        blocks, x1, x2 = made(layers)
        weights = {p.data_ptr() for block in blocks for p in block.parameters()}
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            run(x1.requires_grad_(), x2, [block.pair() for block in blocks])
        return sum(t.numel() for t in kept if t.data_ptr() not in weights)

    assert held(reversible, 1) == held(reversible, 8) == 2 * (2 * 16 * D)  # the two streams at the end
    assert held(stored, 8) > 100 * held(reversible, 8)


def test_the_backward_pass_leaves_the_random_numbers_alone():
    blocks, x1, x2 = made(2)
    torch.manual_seed(3)
    y1, y2 = reversible(x1.requires_grad_(), x2, [block.pair() for block in blocks])
    before = torch.get_rng_state()
    (y1 + y2).sum().backward()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    stored(x1, x2, [block.pair() for block in blocks])
    assert torch.equal(before, torch.get_rng_state())  # as many were drawn as without the reversal


def test_frozen_and_changed_parameters():
    blocks, x1, x2 = made(2)
    for block in blocks:
        block.feedforward.requires_grad_(False)
    y1, _ = reversible(x1, x2, [block.pair() for block in blocks])
    y1.sum().backward()
    assert blocks[0].feedforward[1].weight.grad is None
    assert blocks[0].attention.qkv.weight.grad.abs().sum() > 0
    y1, _ = reversible(x1, x2, [block.pair() for block in blocks])
    with torch.no_grad():
        blocks[0].attention.qkv.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y1.sum().backward()


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
def test_under_autocast(inside: bool):
    """Half precision inside the parts, in both passes; a weight that was cast without a gradient still gets one."""
    blocks, x1, x2 = made(2)
    for block in blocks:
        block.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = reversible(x1, x2, [block.pair() for block in blocks])
        if inside:
            (ours[0].sum() + ours[1].square().sum()).backward()
    if not inside:
        (ours[0].sum() + ours[1].square().sum()).backward()
    mine = [p.grad.clone() for block in blocks for p in block.parameters()]
    for block in blocks:
        block.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = stored(x1, x2, [block.pair() for block in blocks])
    (theirs[0].sum() + theirs[1].square().sum()).backward()
    for grad, parameter in zip(mine, (p for block in blocks for p in block.parameters()), strict=True):
        assert F.cosine_similarity(grad.flatten(), parameter.grad.flatten(), dim=0) > 0.99
    torch.testing.assert_close(ours[0], theirs[0])


def test_without_a_gradient_it_just_runs():
    blocks, x1, x2 = made(2)
    for block in blocks:
        block.eval()
    with torch.no_grad():
        y1, y2 = reversible(x1, x2, [block.pair() for block in blocks])
    assert y1.grad_fn is None
    wanted = stored(x1, x2, [block.pair() for block in blocks])
    torch.testing.assert_close((y1, y2), wanted)
