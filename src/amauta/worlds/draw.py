"""What a cat learnt, drawn: squares with their values and moves, and learning curves, as text, picture or page."""

from pathlib import Path
from typing import Any

from amauta.base.errors import ConfigError
from amauta.base.messages import language as spoken
from amauta.pages import PICTURES, Speech, inline, look, picture_bytes, template
from amauta.runs import write_atomically
from amauta.worlds.gridworld import BATH, BROOM, CAT, FREE, MEAT, WALL

Cell = dict[str, Any]
COLOURS = ("#33508c", "#c2602c", "#4b8b5b", "#8a6bb0", "#b0892e", "#4d8f9e", "#a04a64")
WORDS = {CAT: "gridworld.cat", BROOM: "gridworld.broom", BATH: "gridworld.bath", MEAT: "gridworld.meat",
         WALL: "gridworld.wall"}  # fmt: skip


def write(result: Cell, path: Path, language: str | None = None) -> None:
    """Draw what ``playground`` returned into a file, by its ending; ConfigError for an ending that is not known."""
    speak, kind = Speech(language or spoken()), path.suffix[1:].lower()
    if kind in PICTURES:
        write_atomically(path, picture(result, speak, kind))
    elif kind == "html":
        write_atomically(path, page(result, speak))
    elif kind == "txt":
        write_atomically(path, text(result, speak) + "\n")
    else:
        raise ConfigError("gridworld.unknown-ending", file=path, endings=", ".join((*PICTURES, "html", "txt")))


def runs_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What each method came to, whether the result is of one or of all."""
    return result.get("methods") or [result]


# -- in lines


def text(result: Cell, speak: Speech | None = None) -> str:
    """Every method's squares with its figures below, and who learnt what in one table where there are several."""
    speak = speak or Speech(spoken())
    parts = [f"{run['method']}\n{squares(result, run, speak)}\n{said(result, run, speak)}" for run in runs_of(result)]
    if len(parts) > 1:
        rows = [f"{run['method']:16} {speak.number(run['start_value']):>9}" for run in runs_of(result)]
        parts.append("\n".join((speak("gridworld.start-value"), *rows)))
    return "\n\n".join([*parts, legend(result, speak)])


def squares(result: Cell, run: Cell, speak: Speech) -> str:
    """A box for each square: what stands there, the move, the value."""
    boxes = [
        [(_head(square, move), "" if move in (BATH, MEAT, WALL) else speak.number(value, 2))
         for square, move, value in zip(row, moves, values, strict=True)]
        for row, moves, values in zip(result["layout"], run["policy"], run["values"], strict=True)
    ]  # fmt: skip
    width = max(len(part) for row in boxes for box in row for part in box) + 2

    def line(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * width for _ in boxes[0]) + right

    drawn = [line("┌", "┬", "┐")]
    for number, row in enumerate(boxes):
        drawn += ["│" + "│".join(box[part].center(width) for box in row) + "│" for part in (0, 1)]
        drawn.append(line("├", "┼", "┤") if number + 1 < len(boxes) else line("└", "┴", "┘"))
    return "\n".join(drawn)


def _head(square: str, move: str) -> str:
    return move if square in (FREE, move) else f"{square} {move}"


def said(result: Cell, run: Cell, speak: Speech) -> str:
    """The figures of one method in a few lines."""
    lines = [speak("gridworld.figures", value=speak.number(run["start_value"]),
                   best=speak.number(result["optimal_start_value"]))]  # fmt: skip
    if run["believed"] is not None:
        lines.append(speak("gridworld.believed", value=speak.number(run["believed"])))
    key = "gridworld.sweeps" if run["method"] == "value-iteration" else "gridworld.episodes"
    lines.append(speak(key, count=speak.number(run["seen"], 0)))
    played = run["episode"]
    lines.append(speak("gridworld.played", moves=played["moves"], value=speak.number(played["return"])))
    return "\n".join(lines)


def legend(result: Cell, speak: Speech) -> str:
    """What the letters of the squares mean, those that there are."""
    there = set("".join(result["layout"]))
    return ", ".join(f"{letter} {speak(key)}" for letter, key in WORDS.items() if letter in there)


# -- as a picture


def picture(result: Cell, speak: Speech, kind: str) -> bytes:
    """All methods' squares side by side, and their learning curves below; equal results give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(look("gridworld")):
        runs = runs_of(result)
        across = min(len(runs), 4)
        down = -(-len(runs) // across)
        height, width = len(result["layout"]), len(result["layout"][0])
        figure = Figure(figsize=(max(5.0, 0.75 * width * across), 0.75 * height * down + 3.0), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=(0.75 * height * down, 3.0))
        above, below = parts
        panels = above.subplots(down, across, squeeze=False).flatten()
        for panel, run in zip(panels, runs, strict=False):
            _panel(panel, result, run, speak)
        for panel in panels[len(runs) :]:
            panel.set_axis_off()
        _curves(below.subplots(), result, speak)
        return picture_bytes(figure, kind)


def _panel(axes: Any, result: Cell, run: Cell, speak: Speech) -> None:
    """The value as a colour, the move as arrows as long as they are likely, what stands there as a letter."""
    values = run["values"]
    high = max(1e-9, *(abs(value) for row in values for value in row))
    axes.imshow(values, cmap="RdYlGn", vmin=-high, vmax=high, alpha=0.55)
    for r, row in enumerate(result["layout"]):
        for c, square in enumerate(row):
            if square != FREE:
                axes.text(c - 0.43, r - 0.3, square, fontweight="bold")
            if run["policy"][r][c] in (BATH, MEAT, WALL):
                continue
            axes.text(c, r + 0.38, speak.number(values[r][c], 1), ha="center", fontsize=7)
            for chance, (down, right) in zip(run["probabilities"][r][c], ((-1, 0), (0, 1), (1, 0), (0, -1)),
                                             strict=True):  # fmt: skip
                if chance > 0.02:
                    axes.annotate("", (c + 0.3 * chance * right, r - 0.05 + 0.3 * chance * down), (c, r - 0.05),
                                  arrowprops={"arrowstyle": "-|>", "lw": 0.4 + chance, "mutation_scale": 3 + 7 * chance,
                                              "color": "#22252a"})  # fmt: skip
    path = run["episode"]["squares"]
    axes.plot([c for _, c in path], [r for r, _ in path], color="#33508c", linewidth=3, alpha=0.25)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{run['method']}: {speak.number(run['start_value'])}", fontsize=9)


def _curves(axes: Any, result: Cell, speak: Speech) -> None:
    for number, run in enumerate(runs_of(result)):
        seen, values = zip(*run["curve"], strict=True)
        axes.plot(seen, values, label=run["method"], color=COLOURS[number % len(COLOURS)], linewidth=1.4)
    axes.axhline(result["optimal_start_value"], color="#777777", linestyle=(0, (4, 2)), linewidth=0.8)
    single = runs_of(result)[0]["method"] if len(runs_of(result)) == 1 else ""
    axes.set_xlabel(speak("gridworld.sweeps-axis" if single == "value-iteration" else "gridworld.episodes-axis"))
    axes.set_ylabel(speak("gridworld.value-axis"))
    if not single:
        axes.legend(frameon=False, fontsize=8, loc="lower right")


# -- as a page


def page(result: Cell, speak: Speech) -> str:
    """One HTML page that asks for nothing from outside; what the picture shows stands in tables too."""
    runs = [
        {"name": run["method"], "said": said(result, run, speak).split("\n"),
         "rows": [[{"square": square, "move": move, "value": speak.number(value)}
                   for square, move, value in zip(*three, strict=True)]
                  for three in zip(result["layout"], run["policy"], run["values"], strict=True)]}
        for run in runs_of(result)
    ]  # fmt: skip
    words = {"title": speak("gridworld.title"), "legend": legend(result, speak), "foot": speak("gridworld.foot"),
             "picture": speak("gridworld.picture")}  # fmt: skip
    svg = inline(picture(result, speak, "svg"))
    return template("amauta.worlds").render(language=speak.language, words=words, runs=runs, svg=svg)
