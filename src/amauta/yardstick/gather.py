"""From what each system gave with each seed to the figures of the four parts, with their intervals."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from amauta.yardstick.statistics import interval, paired, rank_correlation, ranks
from amauta.yardstick.systems import ARCHITECTURES, PUBLISHED_GLUE, TABLE

Cell = dict[str, Any]  # what one system gave with one seed
Cells = Mapping[str, Sequence[Cell]]  # by the system's name, a cell a seed
BITS = ("bits_per_byte", "continuation", "pseudo")
CONTRASTS: dict[str, tuple[tuple[str, str] | None, tuple[str, str] | None]] = {
    # what is compared: (less, more); None: the mean over all architectures by the other and by this objective
    "denoising": (None, None),
    "both-stacks": (("decoder", "denoising"), ("encoder-decoder", "denoising")),
    "prefix": (("decoder", "denoising"), ("prefix-lm", "denoising")),
    "against-prefix": (("prefix-lm", "denoising"), ("encoder-decoder", "denoising")),
    "shared": (("encoder-decoder", "denoising"), ("shared", "denoising")),
    "half-depth": (("encoder-decoder", "denoising"), ("half-depth", "denoising")),
}


def families(cells: Cells) -> dict[str, Any]:
    """Each family's size, cost, and what was measured; the n-gram model is counted once and has no interval."""
    return {name: _system(own) for name, own in cells.items()}


def _system(cells: Sequence[Cell]) -> Cell:
    first = cells[0]
    found: Cell = {name: first[name] for name in ("parameters", "steps", "flops") if name in first}
    found |= {name: _mean([cell[name] for cell in cells]) for name in BITS if name in first}
    if "entropy_bits_per_byte" in first:
        found["entropy"] = first["entropy_bits_per_byte"]  # of the held-out documents themselves: the same for all
    for group in ("probes", "tasks"):
        found[group] = {name: _mean([_value(cell[group][name]) for cell in cells]) for name in first.get(group, {})}
    return found


def _value(found: Any) -> float:
    return found["accuracy"] if isinstance(found, dict) else found


def _mean(values: Sequence[float]) -> Cell:
    return asdict(interval(values))


def objectives(cells: Cells) -> dict[str, Any]:
    """The T5 table: accuracies, costs as a share of the first system's, and how far the order is the published one."""
    keys = [(architecture, objective) for objective in ("denoising", "lm") for architecture in ARCHITECTURES]
    own = {key: cells[TABLE[key].name] for key in keys}
    first = own[keys[0]][0]
    rows: list[Cell] = []
    for key in keys:
        row = _system(own[key])
        rows.append({
            "architecture": key[0], "objective": key[1], "parameters": row["parameters"], "steps": row["steps"],
            "cost": row["flops"] / first["flops"], "size": row["parameters"] / first["parameters"],
            "tasks": row["tasks"], "accuracy": _mean(_scores(own[key])), "published": PUBLISHED_GLUE[key],
        })  # fmt: skip
    ours, theirs = ([row["accuracy"]["mean"] for row in rows], [row["published"] for row in rows])
    for row, mine, published in zip(rows, ranks(ours), ranks(theirs), strict=True):
        row |= {"rank": mine, "published_rank": published}
    return {"rows": rows, "rank_correlation": rank_correlation(ours, theirs), "contrasts": _contrasts(own)}


def _scores(cells: Sequence[Cell]) -> list[float]:
    """The mean accuracy over the tasks, a value a seed."""
    return [statistics.fmean(_value(task) for task in cell["tasks"].values()) for cell in cells]


def _contrasts(own: Mapping[tuple[str, str], Sequence[Cell]]) -> list[Cell]:
    """The differences that the paper draws its conclusions from, beside ours; ``agrees``: the same sign."""
    found: list[Cell] = []
    for name, (less, more) in CONTRASTS.items():
        if less is None or more is None:
            by = [
                [
                    statistics.fmean(each)
                    for each in zip(*(_scores(own[a, objective]) for a in ARCHITECTURES), strict=True)
                ]
                for objective in ("lm", "denoising")
            ]
            theirs = statistics.fmean(PUBLISHED_GLUE[a, "denoising"] - PUBLISHED_GLUE[a, "lm"] for a in ARCHITECTURES)
        else:
            by = [_scores(own[less]), _scores(own[more])]
            theirs = PUBLISHED_GLUE[more] - PUBLISHED_GLUE[less]
        ours = paired(by[0], by[1])
        agrees = ours.mean * theirs > 0
        found.append({"name": name, "difference": asdict(ours), "published": theirs, "agrees": agrees,
                      "differs": ours.differs})  # fmt: skip
    return found


def nsp(without: Sequence[Cell], with_: Sequence[Cell]) -> list[Cell]:
    """Every figure without and with next-sentence prediction, and the difference, seed by seed."""
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "pseudo": ([cell["pseudo"] for cell in without], [cell["pseudo"] for cell in with_])
    }
    for group in ("probes", "tasks"):
        for name in without[0][group]:
            pairs[f"{group}.{name}"] = tuple([_value(cell[group][name]) for cell in side] for side in (without, with_))  # type: ignore[assignment]  # two sides
    if len(without[0]["tasks"]) > 1:
        pairs["tasks"] = (_scores(without), _scores(with_))
    found: list[Cell] = []
    for name, (before, after) in pairs.items():
        difference = paired(before, after)
        found.append({"name": name, "without": _mean(before), "with": _mean(after), "difference": asdict(difference),
                      "differs": difference.differs})  # fmt: skip
    return found


def start(pretrained: Cells, random: Cells) -> list[Cell]:
    """Steps of fine-tuning to the lowest held-out loss that random first weights reach, for both beginnings.

    Between two evaluations the loss is taken to be straight. ``share``: the pretrained model's steps over the others'.
    """
    found: list[Cell] = []
    for name, cells in random.items():
        for task in cells[0]["tasks"]:
            ones = [cell["tasks"][task] for cell in cells]
            others = [cell["tasks"][task] for cell in pretrained[name]]
            levels = [min(loss for _, loss, _ in one["curve"]) for one in ones]
            steps = [steps_to(one["curve"], level) for one, level in zip(ones, levels, strict=True)]
            sooner = [steps_to(other["curve"], level) for other, level in zip(others, levels, strict=True)]
            reached = [one for one in sooner if one is not None]
            row: Cell = {
                "system": name, "task": task, "loss": _mean(levels), "random_steps": _mean([s or 0.0 for s in steps]),
                "random_accuracy": _mean([one["accuracy"] for one in ones]),
                "accuracy": _mean([other["accuracy"] for other in others]), "reached": len(reached),
                "pretrained_steps": None, "share": None,
                "random_curve": _curve(ones), "pretrained_curve": _curve(others),
            }  # fmt: skip
            if len(reached) == len(steps):
                row["pretrained_steps"] = _mean(reached)
                if all(steps):
                    row["share"] = _mean([b / a for a, b in zip(steps, reached, strict=True) if a])
            found.append(row)
    return found


def steps_to(curve: Sequence[Sequence[float]], level: float) -> float | None:
    """The first step at which the loss is ``level`` or less; None where it never is."""
    before: Sequence[float] | None = None
    for point in curve:
        step, loss = point[0], point[1]
        if loss <= level:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - level) / (before[1] - loss)
        before = point
    return None


def _curve(runs: Sequence[Cell]) -> list[list[float]]:
    """The mean over seeds: [step, loss, accuracy]."""
    return [
        [statistics.fmean(column) for column in zip(*points, strict=True)]
        for points in zip(*(run["curve"] for run in runs), strict=True)
    ]


def exact_order(found: Mapping[str, Cell]) -> list[str]:
    """The families that have exact bits per byte of a second half, the best first; the n-gram model among them."""
    return sorted((name for name in found if "continuation" in found[name]),
                  key=lambda name: found[name]["continuation"]["mean"])  # fmt: skip
