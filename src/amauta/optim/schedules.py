"""Schedules: the factor of the peak rate at step t of T, with w steps of warm-up.

``factor(step)`` is for the update that ends step ``step`` (0-based). Warm-up is ``(t+1)/w``, so that the first update
is not lost at a rate of 0.
"""

import math
from collections.abc import Callable

from amauta.optim.settings import Optim


def cosine(t: float, w: float, total: float, final: float) -> float:
    """``r + (1-r)·½(1+cos(π(t-w)/(T-w)))`` (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (t - w) / max(1e-9, total - w)))


def linear(t: float, w: float, total: float, final: float) -> float:
    """``r + (1-r)(T-t)/(T-w)``."""
    return final + (1 - final) * (total - t) / max(1e-9, total - w)


def inverse_sqrt(t: float, w: float, total: float, final: float) -> float:
    """``√(w/t)`` (Vaswani et al. 2017, eq. 3), never under ``final``."""
    return max(final, math.sqrt(max(1.0, w) / max(1.0, t)))


def wsd(t: float, w: float, total: float, final: float, decay: float) -> float:
    """1 until ``T - decay·T``, then linearly to ``final`` (Hu et al. 2024, arXiv 2404.06395, section 4)."""
    down = decay * total
    return 1.0 if t < total - down else final + (1 - final) * (total - t) / max(1e-9, down)


def factor(settings: Optim, total: int) -> Callable[[int], float]:
    """The function step → factor that the settings name, for a run of ``total`` steps."""
    w = settings.warmup * total
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda t: cosine(t, w, total, settings.final),
        "linear": lambda t: linear(t, w, total, settings.final),
        "inverse-sqrt": lambda t: inverse_sqrt(t, w, total, settings.final),
        "wsd": lambda t: wsd(t, w, total, settings.final, settings.decay),
        "constant": lambda t: 1.0,
    }
    shape = shapes[settings.schedule]
    return lambda step: (step + 1) / w if step + 1 < w else min(1.0, max(0.0, shape(step)))
