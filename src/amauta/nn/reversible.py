"""Reversible residual layers (Gomez et al. 2017, arXiv 1707.04585, eqs. 6-8): the backward pass makes the activations
again instead of storing them, so memory does not grow with the number of layers.

Two streams, ``y1 = x1 + f(x2)`` and ``y2 = x2 + g(y1)``, undone by ``x2 = y2 - g(y1)`` and ``x1 = y1 - f(x2)``. What
is kept between the passes: the last layer's output, and for each part the state of the random numbers (dropout,
hashing) and what the part must not compute anew. That is an LSH layer's buckets, since a rounding of the regained input
could move a vector into another bucket. In f32 the regained inputs are those of the forward pass up to rounding; under
bf16 they are so up to the coarser rounding of the parts, and the gradients with them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

Run = Callable[[Tensor, Any], tuple[Tensor, Any]]  # (input, what the first run kept or None) -> output, what to keep


@dataclass(frozen=True)
class Part:
    """One of the two functions of a layer, and the parameters that it uses.

    ``at_once``: a part that acts on each token alone may run, and be undone, that many tokens at a time (0: all), which
    bounds the memory of a wide feed-forward layer; such a part keeps nothing.
    """

    run: Run
    parameters: tuple[Tensor, ...]
    at_once: int = 0

    def __call__(self, x: Tensor) -> tuple[Tensor, Any]:
        if not self.at_once:
            return self.run(x, None)
        return torch.cat([self.run(piece, None)[0] for piece in x.split(self.at_once, dim=1)], dim=1), None


@dataclass(frozen=True)
class Pair:
    """One reversible layer."""

    f: Part
    g: Part


def reversible(x1: Tensor, x2: Tensor, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Run the layers: (B, T, D) twice in, twice out. Nothing of a layer is stored for its gradient."""
    found = dict.fromkeys(p for pair in pairs for part in (pair.f, pair.g) for p in part.parameters if p.requires_grad)
    if torch.is_grad_enabled() and (found or x1.requires_grad or x2.requires_grad):
        return _Reversible.apply(tuple(pairs), x1, x2, *found)  # type: ignore[return-value]
    for pair in pairs:
        x1 = x1 + pair.f(x2)[0]
        x2 = x2 + pair.g(x1)[0]
    return x1, x2


class _Replay:
    """What is needed to run a part again as it ran: its random numbers, and what it kept."""

    def __init__(self, x: Tensor) -> None:
        self.processor = torch.get_rng_state()
        self.devices, self.states = get_device_states(x)
        self.kind = x.device.type
        self.kept: Any = None

    @contextmanager
    def again(self) -> Iterator[None]:
        kind = {} if self.kind == "cpu" else {"device_type": self.kind}
        with torch.random.fork_rng(devices=self.devices, **kind):
            torch.set_rng_state(self.processor)
            set_device_states(self.devices, self.states, **kind)
            yield


class _Reversible(Function):
    @staticmethod
    def forward(ctx: Any, pairs: tuple[Pair, ...], x1: Tensor, x2: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        kind = x1.device.type
        ctx.pairs, ctx.replays = pairs, []
        # no cache: in some versions of torch a weight that is cast here, without a gradient, would serve a later part
        ctx.autocast = {"device_type": kind, "enabled": torch.is_autocast_enabled(kind), "cache_enabled": False,
                        "dtype": torch.get_autocast_dtype(kind)}  # fmt: skip
        with torch.autocast(**ctx.autocast):
            for pair in pairs:
                first = _Replay(x1)
                out, first.kept = pair.f(x2)
                x1 = x1 + out
                second = _Replay(x1)
                out, second.kept = pair.g(x1)
                x2 = x2 + out
                ctx.replays.append((first, second))
        ctx.save_for_backward(x1, x2, *parameters)  # the parameters so that torch sees one changed in between
        return x1, x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2, *parameters = ctx.saved_tensors
        d1, d2 = grads
        totals: dict[Tensor, Tensor] = {}
        with torch.autocast(**ctx.autocast):
            for pair, (first, second) in zip(reversed(ctx.pairs), reversed(ctx.replays), strict=True):
                y2, d1 = _undo(pair.g, second, y1, y2, d1, d2, totals)
                y1, d2 = _undo(pair.f, first, y2, y1, d2, d1, totals)
        return None, d1, d2, *(totals.get(p) for p in parameters)


def _undo(
    part: Part, replay: _Replay, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor, totals: dict[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Of ``y = s + part(x)``: s, and the gradient of x with what came through the part added to ``dx``.

    Adds the parameters' gradients to ``totals``.
    """
    size = part.at_once or x.shape[1]
    parameters = [p for p in part.parameters if p.requires_grad]
    regained, through = [], []
    with replay.again():
        for xs, ys, dxs, dys in zip(*(one.split(size, dim=1) for one in (x, y, dx, dy)), strict=True):
            with torch.enable_grad():
                leaf = xs.detach().requires_grad_()
                out = part.run(leaf, replay.kept)[0].to(ys.dtype)
            of_x, *of_parameters = torch.autograd.grad(out, [leaf, *parameters], dys, allow_unused=True)
            for parameter, grad in zip(parameters, of_parameters, strict=True):
                if grad is not None:
                    totals[parameter] = totals[parameter] + grad if parameter in totals else grad
            regained.append(ys - out.detach())
            through.append(dxs if of_x is None else dxs + of_x)
    return torch.cat(regained, dim=1), torch.cat(through, dim=1)
