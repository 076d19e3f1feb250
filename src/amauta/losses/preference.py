"""Losses over pairs of answers, and over single answers that are wanted or not.

To add one: one function, its name in the tuple at the foot, one hand-worked test row.

Contract of pairs: ``(policy[, ref][, lengths][, divergence], *, knobs) → (B,)`` nats, each tensor (B, 2), the chosen
answer first. A tensor is given by its name, so what a loss does not ask for is not computed: without ``ref`` no
reference model is loaded. ``policy`` and ``ref`` are sums of the log-probs of the answer's tokens given the prompt, end
of turn included; ``lengths`` are their number; ``divergence`` is the sum over them of KL(ref || policy) over the whole
vocabulary. Below, h = log π - log π_ref, Δ = h(chosen) - h(rejected), β·h is the implicit reward.

Contract of single answers: ``(policy, ref, wanted, baseline, *, knobs) → (B,)``, see ``kto``.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SURE = 1e-7  # an answer that is certain counts as one of probability 1 - SURE a token: its odds are then finite


def margins(policy: Tensor, ref: Tensor) -> Tensor:
    """``Δ = h(chosen) - h(rejected)``, ``h = log π - log π_ref``: (B, 2), (B, 2) → (B,)."""
    return _lead(policy - ref)


def per_token(sums: Tensor, lengths: Tensor) -> Tensor:
    """Means over the answer's tokens, 0 for an answer without any: two (B, 2) → (B, 2)."""
    return sums / lengths.clamp_min(1)


def logistic(lead: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """``-(1-ε) log σ(β·lead) - ε log σ(-β·lead)``: the Bradley-Terry loss of a lead (B,), with a share ε of the pairs
    believed to be the wrong way round. log 2 where the lead is 0."""
    scaled = beta * lead
    return -(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)


def dpo(policy: Tensor, ref: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """``-(1-ε) log σ(βΔ) - ε log σ(-βΔ)``.

    Rafailov et al. 2023, arXiv 2305.18290, eq. 7; ε > 0 is the conservative form (Mitchell 2023). log 2 when the
    policy equals the reference.
    """
    return logistic(margins(policy, ref), beta=beta, label_smoothing=label_smoothing)


def robust(policy: Tensor, ref: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """``(-(1-ε) log σ(βΔ) + ε log σ(-βΔ)) / (1 - 2ε)``: the mean over pairs flipped with chance ε < 1/2 is dpo of the
    pairs as they were (Chowdhury et al. 2024, arXiv 2403.00409, eq. 12). May be below 0."""
    scaled = beta * margins(policy, ref)
    flipped = label_smoothing * F.logsigmoid(-scaled) - (1 - label_smoothing) * F.logsigmoid(scaled)
    return flipped / (1 - 2 * label_smoothing)


def hinge(policy: Tensor, ref: Tensor, *, beta: float = 0.1) -> Tensor:
    """``max(0, 1 - βΔ)`` (Liu et al. 2024, arXiv 2309.06657, eq. 8, after Zhao et al. 2023, arXiv 2305.10425)."""
    return F.relu(1 - beta * margins(policy, ref))


def ipo(policy: Tensor, ref: Tensor, lengths: Tensor, *, beta: float = 0.1, per_length: bool = True) -> Tensor:
    """``(Δ - 1/(2β))²`` (Azar et al. 2023, arXiv 2310.12036, eq. 17; their τ is β).

    ``per_length`` makes h a mean over the answer's tokens, which the paper does not say and its authors meant; without
    it h is a sum, as the paper writes.
    """
    h = policy - ref  # (B, 2)
    return (_lead(per_token(h, lengths) if per_length else h) - 1 / (2 * beta)).square()


def orpo(policy: Tensor, lengths: Tensor, *, odds_weight: float = 0.1) -> Tensor:
    """``-m(chosen) - λ log σ(log odds(chosen) - log odds(rejected))``, m the mean log-prob of a token and
    odds = p/(1-p) of p = exp(m) (Hong et al. 2024, arXiv 2403.07691, eq. 4 to 7).

    The first term is over the answer alone; the authors' code has the prompt in it too.
    """
    mean = per_token(policy, lengths)  # (B, 2)
    sure = mean.clamp_max(-SURE)
    odds = sure - torch.log(-torch.expm1(sure))  # (B, 2)
    return -mean[:, 0] - odds_weight * F.logsigmoid(_lead(odds))


def simpo(policy: Tensor, lengths: Tensor, *, beta: float = 2.0, target_margin: float = 0.5) -> Tensor:
    """``-log σ(β(m(chosen) - m(rejected)) - γ)``, m the mean log-prob of a token (Meng et al. 2024, arXiv 2405.14734,
    eq. 6). ``target_margin`` is γ itself, not the paper's γ/β."""
    return -F.logsigmoid(beta * _lead(per_token(policy, lengths)) - target_margin)


def cpo(policy: Tensor, lengths: Tensor, *, beta: float = 0.1) -> Tensor:
    """``-log σ(β(log π(chosen) - log π(rejected))) - m(chosen)``, m the mean log-prob of a token (Xu et al. 2024, arXiv
    2401.08417, eq. 5). The paper sums the second term over the answer; its code takes the mean, as is done here."""
    return logistic(_lead(policy), beta=beta) - per_token(policy, lengths)[:, 0]


def tdpo(policy: Tensor, ref: Tensor, divergence: Tensor, *, beta: float = 0.1) -> Tensor:
    """``-log σ(β(Δ - (D(rejected) - D(chosen))))``, D the sum over the answer of KL(ref || policy): TDPO1 (Zeng et al.
    2024, arXiv 2404.11999, eq. 15)."""
    return logistic(margins(policy, ref) + _lead(divergence), beta=beta)


def tdpo2(policy: Tensor, ref: Tensor, divergence: Tensor, *, beta: float = 0.1, alpha: float = 0.5) -> Tensor:
    """``-log σ(β(Δ - α(D(rejected) - D(chosen))))`` with no gradient through D(chosen): TDPO2 (Zeng et al. 2024, arXiv
    2404.11999, eq. 17)."""
    held = divergence[:, 0].detach() - divergence[:, 1]
    return logistic(margins(policy, ref) + alpha * held, beta=beta)


def kto(
    policy: Tensor,
    ref: Tensor,
    wanted: Tensor,
    baseline: Tensor,
    *,
    beta: float = 0.1,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> Tensor:
    """``λ_D (1 - σ(β(h - z)))`` where the answer is wanted, ``λ_U (1 - σ(β(z - h)))`` where it is not.

    Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8. policy, ref (B,) sums of log-probs, wanted (B,) bool; ``baseline``
    () is z, see ``kto_baseline``.
    """
    gain = beta * (policy - ref - baseline)  # (B,)
    return torch.where(wanted, desirable * torch.sigmoid(-gain), undesirable * torch.sigmoid(gain))


@torch.no_grad()
def kto_baseline(policy: Tensor, ref: Tensor) -> Tensor:
    """z, the estimate of KL(policy || ref): max(0, mean h) over answers to *other* prompts than their own, (N,), (N,)
    → (). An answer beside its own prompt would measure its reward instead. No gradient."""
    return (policy - ref).mean().clamp_min(0)


def knobs_of(name: str) -> dict[str, Any]:
    """The knobs of the loss called ``name`` with their defaults; {} for a name of neither table."""
    for loss in (*PREFERENCE_LOSSES, *UNPAIRED_LOSSES):
        if loss.__name__ == name:
            parameters = inspect.signature(loss).parameters.values()
            return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    return {}


def _lead(values: Tensor) -> Tensor:
    """Of the chosen over the rejected: (B, 2) → (B,)."""
    return values[:, 0] - values[:, 1]


PREFERENCE_LOSSES = (dpo, robust, hinge, ipo, orpo, simpo, cpo, tdpo, tdpo2)
UNPAIRED_LOSSES = (kto,)
