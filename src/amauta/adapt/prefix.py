"""What stands ahead of a text: trained vectors that every token sees (prompt, prefix and prefix-layer).

    prompt        input vectors, as if so many tokens stood before the text (Lester et al. 2021, arXiv 2104.08691)
    prefix        the keys and values of each layer (Li and Liang 2021, arXiv 2101.00190), used as they are
    prefix-layer  the stream's vectors before each layer, from which that layer makes its keys and values (Hu et al.
                  2021, arXiv 2106.09685, section 5.1: "PreLayer")

In a causal stack all three come to the same thing: keys and values before those of the text, whose places are counted
on from behind them (``models/ahead.py`` makes them). All begin as what the model computes of words drawn from its
vocabulary, so before training the three are one function.

Differences from the papers: what Li and Liang train by way of two matrices is here added to those words' keys and
values and begins at 0; Hu et al. may also put vectors behind the text.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AheadKind = Literal["prefix", "prompt", "prefix-layer"]
Layers = list[tuple[Tensor, Tensor]]  # the keys and values of each layer, (1 or B, P, G, K) each


class Detour(nn.Module):
    """``W₂ tanh(W₁ p + b₁) + b₂`` of vectors p (P, width): (P, N), 0 at the start.

    It helps while a prefix is trained (Li and Liang 2021, section 4.3); only what it gives is kept.
    """

    def __init__(self, length: int, width: int, hidden: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.empty(length, width).normal_(generator=generator))
        self.inner = nn.Parameter(torch.empty(hidden, width).normal_(0.0, width**-0.5, generator=generator))
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        self.outer = nn.Parameter(torch.zeros(size, hidden))
        self.outer_bias = nn.Parameter(torch.zeros(size))

    def forward(self) -> Tensor:
        hidden = torch.tanh(F.linear(self.places, self.inner, self.inner_bias))  # (P, hidden)
        return F.linear(hidden, self.outer, self.outer_bias)


class Ahead(nn.Module):
    """The vectors of one adapter in one stack; ``given()`` is what the stack uses, and all that is saved.

    prompt: (P, E). prefix: (P, 2·L·G·K), for each place the layers one after another, each layer's keys and then its
    values, as peft stores them. prefix-layer: (L, P, D). ``on``: whether the texts see it, or which rows do, (B,).
    """

    table: Tensor

    def __init__(self, kind: AheadKind, first: Tensor, *, name: str = "default", detour: Detour | None = None) -> None:
        super().__init__()
        self.kind: AheadKind = kind
        self.name, self.detour = name, detour
        self.length = first.shape[1] if kind == "prefix-layer" else first.shape[0]
        self.on: bool | Tensor = True
        self.kept: tuple[object, Layers] | None = None  # of a prompt: what it came to, as long as nothing changes
        first = first.detach().clone()
        if detour is None:
            self.table = nn.Parameter(first)
        else:
            self.register_buffer("table", first)  # what the detour is added to

    def given(self) -> Tensor:
        """The vectors, shaped as the class says."""
        return self.table if self.detour is None else self.table + self.detour()


def prefix_layers(given: Tensor, layers: int, groups: int) -> Layers:
    """A prefix, (P, 2·L·G·K), as each layer's keys and values."""
    parts = given.view(1, len(given), layers, 2, groups, -1)
    return [(parts[:, :, layer, 0], parts[:, :, layer, 1]) for layer in range(layers)]


def prefix_table(layers: Layers) -> Tensor:
    """What ``prefix_layers`` takes apart, put together again."""
    parts = [torch.stack([keys[0], values[0]], dim=1) for keys, values in layers]  # (P, 2, G, K) each
    return torch.stack(parts, dim=1).flatten(1)
