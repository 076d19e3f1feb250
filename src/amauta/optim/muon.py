"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al. 2024; Liu et al. 2025,
arXiv 2502.16982). For the matrices of the blocks only; everything else belongs to AdamW.

It differs from ``torch.optim.Muon`` in two things. Matrices of one shape are orthogonalised together, in one batched
product. A matrix that holds several (q, k and v; gate and up) is cut into them first, since each has its own scale.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, rows, columns) → the same shape with singular values in about [.68, 1.13], by a quintic Newton–Schulz
    iteration: ``A = XXᵀ; X ← aX + (bA + cA²)X``, five times, from ``X/‖X‖``."""
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """``M = μM + (1-μ)g; u = (1-μ)g + μM; p ← p - lr·wd·p - lr·√max(1, rows/columns)·orthogonal(u)``.

    ``splits`` maps a parameter to the row counts of the matrices it holds; ``dtype`` is that of the products.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        splits: dict[Tensor, tuple[int, ...]] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.splits = splits or {}
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            lr, mu = group["lr"], group["momentum"]
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                held = state["momentum"].lerp_(parameter.grad, 1 - mu)
                update = parameter.grad.lerp(held, mu)
                parameter.mul_(1 - lr * group["weight_decay"])
                sizes = self.splits.get(parameter, (parameter.shape[0],))
                for target, piece in zip(parameter.split(sizes), update.split(sizes), strict=True):
                    by_shape[tuple(piece.shape)].append((target, piece))
            for (rows, columns), pieces in by_shape.items():
                flat = orthogonalise(torch.stack([piece for _, piece in pieces]), self.dtype)
                for (target, _), direction in zip(pieces, flat, strict=True):
                    target.add_(direction, alpha=-lr * max(1.0, rows / columns) ** 0.5)
