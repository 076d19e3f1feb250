"""How far a reward model can be believed: how often it is right, and whether as often as it says."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from amauta.base.messages import say
from amauta.grades import wilson
from amauta.pages import look, picture_bytes

EDGES = np.linspace(0.5, 1.0, 11)  # of the confidence


def calibration(differences: np.ndarray, longer: np.ndarray) -> dict[str, Any]:
    """What the rewards of pairs tell: ``differences`` (N,) of the better answer's and the worse one's.

    By Bradley-Terry a model says that it is right with the confidence σ(|difference|) between 0.5 and 1; in each bin of
    it ``accuracy`` is how often it was, with its 95 % interval. ``calibration_error`` is the mean distance of the two,
    weighted by the pairs of each bin (Naeini et al. 2015, ECE). ``longer`` (N,) is by how many tokens the better
    answer is longer: ``length_accuracy`` is what choosing the longer one would reach, ``prefers_longer`` how often the
    model does; pairs of one length count as a half. So do pairs of one reward in every accuracy.
    """
    right, sure = _half(differences), 1 / (1 + np.exp(-np.abs(differences)))
    places = np.clip(np.searchsorted(EDGES, sure, side="right") - 1, 0, len(EDGES) - 2)
    bins: list[dict[str, Any]] = []
    for number, (low, high) in enumerate(pairwise(EDGES)):
        mine = places == number
        n = int(mine.sum())
        if n:
            least, most = wilson(float(right[mine].sum()), n)
            bins.append({
                "low": float(low), "high": float(high), "n": n, "confidence": float(sure[mine].mean()),
                "accuracy": float(right[mine].mean()), "accuracy_low": least, "accuracy_high": most,
            })  # fmt: skip
    least, most = wilson(float(right.sum()), len(right))
    error = sum(one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / len(right)
    return {
        "pairs": len(right), "accuracy": float(right.mean()), "accuracy_low": least, "accuracy_high": most,
        "margin": float(differences.mean()), "calibration_error": error, "length_accuracy": float(_half(longer).mean()),
        "prefers_longer": float(_half(differences * np.sign(longer)).mean()), "bins": bins,
    }  # fmt: skip


def _half(values: np.ndarray) -> np.ndarray:
    """1 where positive, 0.5 where 0, 0 where negative."""
    return (np.sign(values) + 1) / 2


def picture(found: dict[str, Any]) -> bytes:
    """The table of bins as an SVG: on the diagonal a model is right as often as it says. The same table gives the same
    bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    bins: Sequence[dict[str, Any]] = found["bins"]
    sure, right = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    spread = [[max(0.0, one["accuracy"] - one["accuracy_low"]) for one in bins],
              [max(0.0, one["accuracy_high"] - one["accuracy"]) for one in bins]]  # fmt: skip
    with matplotlib.rc_context(look("calibration")):
        figure = Figure(figsize=(4.2, 4.4), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        above.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=0.8, linestyle="--")
        above.errorbar(sure, right, yerr=spread, fmt="o-", color="#33508c", linewidth=1.2, markersize=4, capsize=2)
        above.set(ylabel=say("reward.right"), ylim=(0, 1.03), xlim=(0.49, 1.01))
        below.bar([(one["low"] + one["high"]) / 2 for one in bins], [one["n"] for one in bins], width=0.045,
                  color="#33508c")  # fmt: skip
        below.set(ylabel=say("reward.pairs"), xlabel=say("reward.sure"))
        return picture_bytes(figure)


def as_text(found: dict[str, Any]) -> str:
    """The table for people."""
    head = [say(key) for key in ("reward.sure", "reward.right", "reward.interval", "reward.pairs")]
    rows = [
        [f"{one['confidence']:.3f}", f"{one['accuracy']:.3f}",
         f"{one['accuracy_low']:.3f}–{one['accuracy_high']:.3f}", str(one["n"])] for one in found["bins"]
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    )
