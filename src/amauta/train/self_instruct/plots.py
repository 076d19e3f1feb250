"""The report's pictures as SVG that stands inside the page; the same numbers give the same bytes."""

from collections.abc import Callable, Sequence
from typing import Any

from amauta.pages import Speech, inline, look, picture_bytes

LINE, OTHER, GREY = "#33508c", "#c2602c", "#777777"
BINS = 20


def curve(points: Sequence[tuple[int, int, int]], say: Speech) -> Any:
    """Instructions that were proposed, and those that were kept, over requests."""

    def draw(axes: Any) -> None:
        across = [0, *(one[0] for one in points)]
        for place, colour, name in ((1, GREY, say("self_instruct.proposed")), (2, LINE, say("self_instruct.kept"))):
            axes.plot(across, [0, *(one[place] for one in points)], color=colour, linewidth=1.4, label=name)
        axes.set_xlabel(say("self_instruct.requests"))
        axes.set_ylabel(say("self_instruct.instructions"))
        axes.legend(frameon=False)

    return _drawn(draw)


def shares(values: Sequence[float], limit: float, say: Speech) -> Any:
    """How many tasks have which ROUGE-L with the likest seed; the line is the limit."""

    def draw(axes: Any) -> None:
        axes.hist(values, bins=[n / BINS for n in range(BINS + 1)], color=LINE, rwidth=0.92)
        axes.axvline(limit, color=OTHER, linestyle=(0, (4, 2)), linewidth=1.0)
        axes.set_xlabel("ROUGE-L")
        axes.set_ylabel(say("self_instruct.instructions"))

    return _drawn(draw)


def bars(counts: Sequence[tuple[str, int]], say: Speech) -> Any:
    """Opening words, the commonest first."""

    def draw(axes: Any) -> None:
        places = range(len(counts))
        axes.barh(places, [count for _, count in counts], color=LINE)
        axes.set_yticks(places, [_plain(word) for word, _ in counts])
        axes.invert_yaxis()
        axes.set_xlabel(say("self_instruct.instructions"))

    return _drawn(draw, height=max(2.0, 0.6 + 0.18 * len(counts)))


def lengths(groups: Sequence[tuple[str, list[int], list[int]]], say: Speech) -> Any:
    """Words of instructions, inputs and outputs: boxes from the first to the third quarter, of made tasks and seeds."""

    def draw(axes: Any) -> None:
        for shift, colour, name, place in (
            (-0.18, LINE, say("self_instruct.made"), 1), (0.18, OTHER, say("self_instruct.seeds"), 2),
        ):  # fmt: skip
            held = [(n + shift, group[place]) for n, group in enumerate(groups) if group[place]]
            drawn = axes.boxplot(
                [values for _, values in held], positions=[at for at, _ in held], widths=0.3, showfliers=False,
                patch_artist=True, medianprops={"color": "#22252a"}, boxprops={"facecolor": colour, "linewidth": 0},
                whiskerprops={"color": colour}, capprops={"color": colour}, manage_ticks=False,
            )  # fmt: skip
            if drawn["boxes"]:
                drawn["boxes"][0].set_label(name)
        axes.set_xticks(range(len(groups)), [name for name, *_ in groups])
        axes.set_ylabel(say("self_instruct.words"))
        axes.legend(frameon=False)

    return _drawn(draw)


def _plain(word: str) -> str:
    return word.replace("$", r"\$")  # no formula


def _drawn(draw: Callable[[Any], None], *, height: float = 2.9) -> Any:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(look("self-instruct")):
        figure = Figure(figsize=(4.7, height), layout="constrained")
        draw(figure.add_subplot())
        return inline(picture_bytes(figure))
