"""The results as two plots: the families side by side, and fine-tuning from pretrained and from first weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amauta.base.messages import language
from amauta.pages import look, picture_bytes
from amauta.runs import write_atomically
from amauta.yardstick.gather import BITS
from amauta.yardstick.tables import NAMED, Tell, speaker

Cell = dict[str, Any]
COLOURS = ("#33508c", "#c2602c", "#4b8b5b", "#8a6bb0")


def write(result: Cell, folder: Path, kinds: Sequence[str], *, stem: str = "yardstick", spoken: str | None = None
          ) -> list[Path]:  # fmt: skip
    """Write the plots that the result has data for, a file of each kind; the same result gives the same bytes."""
    tell = speaker(spoken or language())
    found: list[Path] = []
    for name, part, draw in ((stem, "families", families), (f"{stem}-start", "start", start)):
        if part not in result:
            continue
        for kind in kinds:
            found.append(folder / f"{name}.{kind}")
            write_atomically(found[-1], _saved(draw, result, tell, kind))
    return found


def _saved(draw: Any, result: Cell, tell: Tell, kind: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(look("yardstick")):
        figure = Figure(layout="constrained")
        draw(figure, result, tell)
        return picture_bytes(figure, kind)


def families(figure: Any, result: Cell, tell: Tell) -> None:
    """Bits per byte on the left (the pseudo-log-likelihood hatched, since it compares with none), probes and tasks on
    the right; bars are means and their lines the 95 % intervals."""
    found: dict[str, Cell] = result["families"]
    probes, tasks = result["ground"]["probes"], result["ground"]["tasks"]
    figure.set_size_inches(9.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 4))
    width = 0.8 / len(found)
    for place, (name, one) in enumerate(found.items()):
        shift = (place - (len(found) - 1) / 2) * width
        bits = [one.get(figure_name) for figure_name in BITS]
        right_ones = [*(one["probes"][probe] for probe in probes), *(one["tasks"][task] for task in tasks)]
        for axes, means, factor in ((left, bits, 1.0), (right, right_ones, 100.0)):
            at = [i + shift for i, mean in enumerate(means) if mean]
            heights = [factor * mean["mean"] for mean in means if mean]
            halves = [factor * (mean["half"] or 0.0) for mean in means if mean]
            hatch = ["//" if axes is left and BITS[i] == "pseudo" else "" for i, mean in enumerate(means) if mean]
            axes.bar(at, heights, width * 0.92, yerr=halves, color=COLOURS[place % len(COLOURS)], label=name,
                     hatch=hatch, edgecolor="white", error_kw={"linewidth": 0.9})  # fmt: skip
    left.set_ylabel(tell("yardstick.bits-axis"))
    left.set_xticks(range(len(BITS)), [tell(NAMED[name][1]) for name in BITS])
    right.set_ylabel(tell("yardstick.right-axis"))
    names = [*(tell("yardstick.probe", name=name) for name in probes),
             *(tell("yardstick.task", name=name) for name in tasks)]  # fmt: skip
    right.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    for i in range(len(probes)):  # chance: a coin for pairs, the usual class for tasks
        right.hlines(50, i - 0.45, i + 0.45, color="#777777", linestyle=(0, (4, 2)), linewidth=0.9)
    for i, task in enumerate(tasks, start=len(probes)):
        right.hlines(100 * result["usual"][task], i - 0.45, i + 0.45, color="#777777", linestyle=(0, (4, 2)),
                     linewidth=0.9)  # fmt: skip
    entropy = next((one["entropy"] for one in found.values() if "entropy" in one), None)
    if entropy:
        left.axhline(entropy, color="#777777", linestyle=(0, (1, 1.5)), linewidth=1.0)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=len(found), frameon=False)


def start(figure: Any, result: Cell, tell: Tell) -> None:
    """Held-out loss over fine-tuning steps, a panel for each system and task."""
    rows: list[Cell] = result["start"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure.set_size_inches(3.2 * len(systems), 2.4 * len(tasks) + 0.4)
    axes = figure.subplots(len(tasks), len(systems), squeeze=False)
    for row in rows:
        panel = axes[tasks.index(row["task"])][systems.index(row["system"])]
        for name, key, colour in (("pretrained", "yardstick.pretrained", COLOURS[0]),
                                  ("random", "yardstick.random", COLOURS[1])):  # fmt: skip
            curve = row[f"{name}_curve"]
            panel.plot([point[0] for point in curve], [point[1] for point in curve], color=colour, linewidth=1.4,
                       marker="o", markersize=2.6, label=tell(key))  # fmt: skip
        panel.axhline(row["loss"]["mean"], color="#777777", linestyle=(0, (4, 2)), linewidth=0.8)
        panel.set_title(f"{row['system']}, {row['task']}", fontsize=9)
        panel.set_xlabel(tell("yardstick.steps"))
        panel.set_ylabel(tell("yardstick.heldout-loss"))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
