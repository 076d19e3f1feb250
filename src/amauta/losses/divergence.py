"""Entropy, cross-entropy and Kullback-Leibler divergence of distributions, exact and from samples.

Distributions are log-probs in nats, (..., V); results are in nats, or in bits with ``base=2``. An outcome of
probability 0 adds nothing where it is p's, and makes H(p, q) and KL(p || q) infinite where it is q's alone.
"""

import math

import torch
from torch import Tensor


def entropy(log_p: Tensor, *, base: float = math.e) -> Tensor:
    """H(p) = -sum p log p: (..., V) -> (...)."""
    return cross_entropy(log_p, log_p, base=base)


def cross_entropy(log_p: Tensor, log_q: Tensor, *, base: float = math.e) -> Tensor:
    """H(p, q) = -sum p log q = H(p) + KL(p || q): two (..., V) -> (...)."""
    return -_weighted(log_p, log_q) / math.log(base)


def kl(log_p: Tensor, log_q: Tensor, *, base: float = math.e) -> Tensor:
    """KL(p || q) = sum p (log p - log q), at least 0 and not symmetric: two (..., V) -> (...)."""
    return cross_entropy(log_p, log_q, base=base) - entropy(log_p, base=base)


def kl_estimates(log_p: Tensor, log_q: Tensor) -> dict[str, Tensor]:
    """Estimates of KL(p || q) in nats from the log-probs of outcomes drawn from p, (N,): one each, (N,); take the mean.

    With log r = log q - log p (Schulman 2020, "Approximating KL divergence"): ``k1`` = -log r, unbiased; ``k2`` =
    (log r)^2 / 2, biased, of little variance and never below 0; ``k3`` = r - 1 - log r, unbiased and never below 0.
    """
    log_r = log_q - log_p
    return {"k1": -log_r, "k2": log_r.square() / 2, "k3": torch.expm1(log_r) - log_r}


def _weighted(log_p: Tensor, values: Tensor) -> Tensor:
    """sum p * values, in which 0 times infinity is 0."""
    p = log_p.exp()
    return torch.where(p > 0, p * values, 0.0).sum(-1)
