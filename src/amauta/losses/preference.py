"""Losses over pairs of answers. To add one: one function, its name in the tuple at the foot, one hand-worked test row.

Contract: ``(policy[, ref], *, knobs) → (B,)`` nats; ``policy`` and ``ref`` are (B, 2) sums of log-probs of the chosen
and the rejected answer given the prompt, end of turn included. A loss without a ``ref`` parameter needs no reference
model, and none is loaded.
"""

from torch import Tensor
from torch.nn import functional as F


def margins(policy: Tensor, ref: Tensor) -> Tensor:
    """``Δ = h(chosen) - h(rejected)``, ``h = log π - log π_ref``: (B, 2), (B, 2) → (B,)."""
    h = policy - ref  # (B, 2)
    return h[:, 0] - h[:, 1]


def dpo(policy: Tensor, ref: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """``-(1-ε) log σ(βΔ) - ε log σ(-βΔ)``.

    Rafailov et al. 2023, arXiv 2305.18290, eq. 7; ε > 0 is the conservative form (Mitchell 2023). log 2 when the
    policy equals the reference.
    """
    scaled = beta * margins(policy, ref)
    return -(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)


PREFERENCE_LOSSES = (dpo,)
