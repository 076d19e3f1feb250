"""Where a token stands: rotary embedding (Su et al. 2021, arXiv 2104.09864), in the half-split layout of Llama files,
and the relative buckets of T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

Learned positions need no code of their own: they are an embedding table in the model.
"""

import math

import torch
from torch import Tensor


def frequencies(head_width: int, theta: float) -> Tensor:
    """``theta^(-2k/K)`` for k = 0..K/2-1, f64."""
    return theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)  # (K/2,)


def slowed(frequency: Tensor, factor: float, low: float, high: float, original: int) -> Tensor:
    """Llama 3's frequencies for a longer context (Llama Team 2024, arXiv 2407.21783, section 3.4.3; as in its code).

    Those that turn less than ``low`` times within ``original`` tokens are divided by ``factor``, those that turn more
    than ``high`` times stay, and between the two the division comes in gradually.
    """
    turns = original * frequency / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequency + (1 - kept) * frequency / factor


def rotary_table(context: int, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of position times frequency, each (context, K/2) in f32."""
    angle = torch.arange(context, dtype=torch.float64)[:, None] * frequency  # (context, K/2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_k, x_{k+K/2}) by its position's angle (eq. 34, pairs taken from the two halves).

    x (B, T, heads, K); cos, sin (B or 1, T, 1, K/2). Returns x's dtype; the turn itself is in f32.
    """
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).type_as(x)


def relative_bucket(distance: Tensor, *, causal: bool, buckets: int, furthest: int) -> Tensor:
    """The bucket of each distance (key's position less the query's): int64, shaped as ``distance``.

    Half of the buckets are one distance each; the others grow with its logarithm up to ``furthest``, beyond which all
    share the last one. Without ``causal`` the second half of all buckets is for keys that stand after the query; with
    it those keys, which are never seen, share bucket 0.
    """
    if causal:
        sided, distance = 0, (-distance).clamp(min=0)
    else:
        buckets //= 2
        sided, distance = (distance > 0).long() * buckets, distance.abs()
    exact = buckets // 2
    far = (distance.clamp(min=1).float() / exact).log() / math.log(furthest / exact) * (buckets - exact)
    return sided + torch.where(distance < exact, distance, (exact + far.long()).clamp(max=buckets - 1))
