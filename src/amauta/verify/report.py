"""What the oracle found, as a table, a plot and a page, in either language."""

from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.messages import language as spoken
from amauta.pages import PICTURES, Speech, inline, look, picture_bytes, template
from amauta.runs import write_atomically

Cell = dict[str, Any]
KNOWN = {"formula": "oracle.formula", "sums": "oracle.sums", "limit": "oracle.limit"}
WHERE = {  # what the optimum of each method is
    "dpo": "oracle.at-dpo", "cdpo": "oracle.at-cdpo", "robust": "oracle.at-robust", "ipo": "oracle.at-ipo",
    "ipo-mean": "oracle.at-ipo-mean", "hinge": "oracle.at-hinge", "kto": "oracle.at-kto", "orpo": "oracle.at-orpo",
    "simpo": "oracle.at-simpo", "cpo": "oracle.at-cpo", "tdpo": "oracle.at-tdpo", "tdpo2": "oracle.at-tdpo2",
    "sepo": "oracle.at-sepo", "mapo": "oracle.at-mapo", "sparsepo": "oracle.at-sparsepo",
    "reinforce": "oracle.at-rl", "rloo": "oracle.at-rl", "ppo": "oracle.at-rl", "grpo": "oracle.at-grpo",
    "dr-grpo": "oracle.at-best", "dapo": "oracle.at-best", "gspo": "oracle.at-best",
}  # fmt: skip
COLOURS = {"preference": "#33508c", "policy": "#c2602c"}


def write(result: Cell, path: Path, language: str | None = None) -> None:
    """Write what ``oracle`` returned into a file, by its ending; ConfigError for an ending that is not known."""
    speak, kind = Speech(language or spoken()), path.suffix[1:].lower()
    if kind in PICTURES:
        write_atomically(path, picture(result, speak, kind))
    elif kind == "html":
        write_atomically(path, page(result, speak))
    elif kind == "md":
        write_atomically(path, markdown(result, speak))
    else:
        raise ConfigError("oracle.unknown-ending", file=path, endings=", ".join((*PICTURES, "html", "md")))


def heads(speak: Speech) -> list[str]:
    return [speak("oracle.method"), speak("oracle.known"), speak("oracle.distance"), speak("oracle.to-rl"),
            speak("oracle.bias"), speak("oracle.scale"), speak("oracle.variance"), ""]  # fmt: skip


def cells(row: Cell, speak: Speech) -> list[str]:
    """One method in text; a value that only rounding keeps from 0 is given as below what it could be."""
    return [row["method"], speak(KNOWN[row["known"]]), _small(row["distance"], speak), _small(row["to_rl"], speak),
            _small(row["bias"], speak), speak.number(row["scale"]), speak.number(row["variance"], 2),
            "" if row["passed"] else speak("oracle.missed")]  # fmt: skip


def _small(value: float, speak: Speech) -> str:
    return "<" + speak.number(1e-5, 5) if value < 1e-5 else speak.number(value, 5)


def text(result: Cell, speak: Speech | None = None) -> str:
    """The table for a terminal, and what it says below."""
    speak = speak or Speech(spoken())
    rows = [heads(speak), *(cells(row, speak) for row in result["rows"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join([*(_line(row, widths) for row in rows), "", *said(result, speak)])


def _line(row: list[str], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    cells = zip(row, widths, strict=True)
    return "  ".join(
        cell.rjust(width) if i > 1 else cell.ljust(width) for i, (cell, width) in enumerate(cells)
    ).rstrip()


def said(result: Cell, speak: Speech) -> list[str]:
    """What was measured on what, and the equality of the two ways to one optimum."""
    told = [speak("oracle.ground", prompts=result["prompts"], answers=result["answers"], pairs=result["pairs"],
                  beta=speak.number(result["beta"], 2), group=result["group"])]  # fmt: skip
    if result["quick"]:
        told.append(speak("oracle.quick"))
    elif "dpo_to_rloo" in result:
        told.append(speak("oracle.equal", value=_small(result["dpo_to_rloo"], speak)))
    return told


def markdown(result: Cell, speak: Speech) -> str:
    """A page: what was done, the table, and what each optimum is."""
    rows = [heads(speak), ["---"] * 8, *(cells(row, speak) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    optima = "\n".join(f"- **{row['method']}**: {speak(WHERE[row['method']])}" for row in result["rows"])
    told = "\n".join(f"- {line}" for line in [*said(result, speak), *_read(speak)])
    return f"# {speak('oracle.title')}\n\n{told}\n\n{table}\n\n## {speak('oracle.optima')}\n\n{optima}\n"


def _read(speak: Speech) -> list[str]:
    return [speak("oracle.read-distance"), speak("oracle.read-bias"), speak("oracle.read-variance")]


def picture(result: Cell, speak: Speech, kind: str) -> bytes:
    """Distances on the left, bias and variance on the right; equal results give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(look("oracle")):
        rows = result["rows"]
        figure = Figure(figsize=(10.5, 0.24 * len(rows) + 1.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3, sharey=True)
        places = range(len(rows))
        colours = [COLOURS[row["kind"]] for row in rows]
        floor = 1e-8
        left.scatter([max(floor, row["distance"]) for row in rows], places, color=colours, s=26, zorder=3,
                     label=speak("oracle.distance"))  # fmt: skip
        left.scatter([max(floor, row["to_rl"]) for row in rows], places, facecolors="none", edgecolors=colours, s=26,
                     label=speak("oracle.to-rl"))  # fmt: skip
        middle.scatter([max(floor, row["bias"]) for row in rows], places, color=colours, s=26)
        right.scatter([row["variance"] for row in rows], places, color=colours, s=26)
        for axes, key in ((left, "oracle.distance-axis"), (middle, "oracle.bias"), (right, "oracle.variance")):
            axes.set_xscale("log")
            axes.set_xlabel(speak(key))
            axes.grid(axis="y", linewidth=0.3)
        left.set_yticks(list(places), [row["method"] for row in rows])
        left.invert_yaxis()
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", frameon=False, ncols=2)
        return picture_bytes(figure, kind)


def page(result: Cell, speak: Speech) -> str:
    """One HTML page that asks for nothing from outside."""
    return template("amauta.verify").render(
        language=speak.language, title=speak("oracle.title"), optima=speak("oracle.optima"),
        told=[*said(result, speak), *_read(speak)], heads=heads(speak),
        rows=[cells(row, speak) for row in result["rows"]], picture=speak("oracle.picture"),
        where=[(row["method"], speak(WHERE[row["method"]])) for row in result["rows"]],
        svg=inline(picture(result, speak, "svg")),
    )  # fmt: skip
