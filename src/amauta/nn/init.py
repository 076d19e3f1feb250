"""First weights. Every number comes from the generator that is passed, in the order of ``named_parameters``, so a seed
gives the same weights everywhere."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialise(model: nn.Module, spread: Callable[[str, Tensor], float | Tensor], generator: torch.Generator) -> None:
    """Fill every parameter of ``model`` in place: matrices from N(0, s²), gains with 1, biases with 0.

    ``spread(name, matrix)`` gives s, one number or one for each row, (rows, 1).
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            s = spread(name, parameter)
            if isinstance(s, Tensor):
                parameter.normal_(generator=generator).mul_(s)
            else:
                parameter.normal_(0.0, s, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def scaled_residuals(std: float, layers: int) -> Callable[[str, Tensor], float]:
    """std, and std/√(2L) for matrices that write into the residual stream (Radford et al. 2019, GPT-2, section 2.3)."""
    return lambda name, _: std / (2 * layers) ** 0.5 if name.endswith(("out.weight", "down.weight")) else std
