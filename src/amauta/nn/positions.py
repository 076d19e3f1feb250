"""Where a token stands: rotary embedding (Su et al. 2021, arXiv 2104.09864), in the half-split layout of Llama files.

Learned positions need no code of their own: they are an embedding table in the model.
"""

import torch
from torch import Tensor


def rotary_table(context: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of ``position · theta^(-2k/K)``, each (context, K/2) in f32."""
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)  # (K/2,)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * frequency  # (context, K/2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_k, x_{k+K/2}) by its position's angle (eq. 34, pairs taken from the two halves).

    x (B, T, heads, K); cos, sin (B or 1, T, 1, K/2). Returns x's dtype; the turn itself is in f32.
    """
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).type_as(x)
