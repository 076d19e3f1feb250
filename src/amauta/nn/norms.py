"""Normalisations. Both compute in f32 whatever the input's dtype, and return that dtype."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """``x * rsqrt(mean(x²) + eps) * g`` over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., D)
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight.type_as(x)


class LayerNorm(nn.Module):
    """Layer normalisation with gain and optional bias (Ba, Kiros and Hinton 2016, arXiv 1607.06450, eq. 4)."""

    def __init__(self, width: int, eps: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., D)
        if x.dtype == self.weight.dtype:  # torch's kernel adds up in f32 as well
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).type_as(x)


def norm(kind: str, width: int, eps: float, bias: bool = True) -> nn.Module:
    """The norm named in a spec: ``layer`` or ``rms``."""
    return LayerNorm(width, eps, bias) if kind == "layer" else RMSNorm(width, eps)
