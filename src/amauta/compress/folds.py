"""Where a linear layer's inputs can be divided by numbers that its weights are multiplied by, at no cost: what comes
before it takes the division into its own weights, and the model computes what it did."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from amauta.nn.attention import Attention
from amauta.nn.block import Block
from amauta.nn.feedforward import FeedForward

Divide = Callable[[Tensor], None]


@dataclass(frozen=True)
class Fold:
    """``reads``: the name within its block of the linear layer whose inputs are divided. ``divide(s)`` takes s (I,)
    into what comes before. ``shared``: numbers that must be equal, as heads that read one value head: s (I,) as
    (sets, members, width). ``by_norm``: whether it is a norm that comes before."""

    reads: str
    divide: Divide
    by_norm: bool
    shared: tuple[int, int, int] | None = None

    def conform(self, s: Tensor) -> Tensor:
        """The nearest numbers that what comes before can take: those that must be equal get their mean."""
        if self.shared is None:
            return s
        return s.view(self.shared).mean(1, keepdim=True).expand(self.shared).reshape(-1)

    def apply(self, linear: nn.Module, s: Tensor) -> None:
        """Divide what the layer reads by s (I,), and multiply its weights."""
        with torch.no_grad():
            linear.weight.mul_(s)  # type: ignore[operator, union-attr]
            self.divide(s)


def folds(block: Block) -> list[Fold]:
    """Those of a block whose norms stand before its parts: norms → q|k|v, norms → up, values → out, up → down.

    What attention does is linear in its values, and a gated layer in its upper half; a plain one passes a factor on
    only with ReLU. A decoder's keys and values of an encoder come from that one's last norm, which all layers read.
    """
    assert block.place in ("pre", "both")
    attention, forward = block.attention, block.feedforward
    found = [_norm("attention.qkv", block.attention_norm), _norm("feedforward.up", block.feedforward_norm)]
    if block.cross is not None and block.cross_norm is not None:
        found.append(_norm("cross.q", block.cross_norm))
    found.append(_values(attention))
    if forward.gated or forward.activation is torch.relu or forward.activation is nn.functional.relu:
        found.append(_inner(forward))
    return found


def _norm(reads: str, norm: nn.Module) -> Fold:
    def divide(s: Tensor) -> None:
        for values in norm.parameters():
            values.div_(s)

    return Fold(reads, divide, by_norm=True)


def _values(attention: Attention) -> Fold:
    sizes, share = attention.split_sizes(), attention.heads // attention.kv_heads
    shape = (attention.kv_heads, share, attention.head_width)

    def divide(s: Tensor) -> None:
        _divide_rows(attention.qkv, sizes[0] + sizes[1], s.view(shape)[:, 0].reshape(-1))

    return Fold("attention.out", divide, by_norm=False, shared=shape)


def _inner(forward: FeedForward) -> Fold:
    first = forward.up.out_features // 2 if forward.gated else 0
    return Fold("feedforward.down", partial(_divide_rows, forward.up, first), by_norm=False)


def _divide_rows(linear: nn.Linear, first: int, s: Tensor) -> None:
    """Divide the rows from ``first`` on, and their biases."""
    linear.weight[first:].div_(s[:, None])
    bias: Tensor | None = linear.bias  # torch's own type leaves None out
    if bias is not None:
        bias[first:].div_(s)
