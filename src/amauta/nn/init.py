"""First weights: N(0, std), and N(0, std/√(2L)) for the matrices that write into the residual stream.

Radford et al. 2019 (GPT-2), section 2.3. Every number comes from the generator that is passed, in the order of
``named_parameters``, so a seed gives the same weights everywhere.
"""

import torch
from torch import nn


@torch.no_grad()
def initialise(model: nn.Module, std: float, layers: int, generator: torch.Generator) -> None:
    """Fill every parameter of ``model`` in place: matrices as above, gains with 1, biases with 0."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            writes = name.endswith(("out.weight", "down.weight"))
            parameter.normal_(0.0, std / (2 * layers) ** 0.5 if writes else std, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
