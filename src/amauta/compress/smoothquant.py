"""SmoothQuant: inputs with outliers are divided, and the weights that meet them multiplied, until both round equally
well (Xiao et al. 2022, arXiv 2211.10438, eq. 4)."""

from torch import Tensor

LEAST = 1e-5  # of a factor


def factors(inputs: Tensor, weights: Tensor, strength: float = 0.5) -> Tensor:
    """``s_j = max|X_j|ᵃ / max|W_j|¹⁻ᵃ``: what input j is divided and column j of the weights multiplied by, (I,).

    ``inputs`` (I,): max|X_j| over all tokens; ``weights`` (O, I). Inputs that are always 0 are left alone.
    """
    largest = weights.abs().amax(0).float()
    s = (inputs**strength / largest.clamp(min=LEAST) ** (1 - strength)).clamp(min=LEAST)
    return s.where(inputs > 0, 1.0)
