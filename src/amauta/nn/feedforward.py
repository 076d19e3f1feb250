"""Feed-forward layers: plain ``W₂ act(W₁ x)``, and gated ``W_down(act(W_gate x) · W_up x)``
(Shazeer 2020, arXiv 2002.05202).
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from amauta.nn.linear import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """Width D → F → D. A gated layer keeps gate and up in one matrix: its first F rows are the gate."""

    def __init__(self, width: int, feedforward: int, *, activation: str, gated: bool, bias: bool) -> None:
        super().__init__()
        self.gated = gated
        self.activation = ACTIVATIONS[activation]
        self.up = Linear(width, feedforward * (2 if gated else 1), bias=bias)
        self.down = Linear(feedforward, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        if not self.gated:
            return self.down(self.activation(self.up(x)))
        gate, up = self.up(x).chunk(2, dim=-1)  # (B, T, F) each
        return self.down(self.activation(gate) * up)
