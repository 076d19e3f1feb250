"""Curves as SVG for one self-contained page: its colours are the page's, so that light and dark both read well."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amauta.recipes.numbers import tick

# Colours that stand for the page's CSS variables; matplotlib needs real ones.
_INK, _FAINT, _LINE, _OTHER, _MARK = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _LINE: "--line", _OTHER: "--other", _MARK: "--mark"}
_POINTS = 600  # more cannot be told apart in a picture this wide


@dataclass(frozen=True)
class Curve:
    """Values over steps, in the order of steps."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Level:
    """A horizontal line: a bound or another model's figure."""

    label: str
    value: float
    bound: bool = False


def draw(name: str, title: str, across: str, curves: Sequence[Curve], levels: Sequence[Level] = ()) -> str:
    """One chart as an ``<svg>`` element. ``name`` is unique in the page, ``title`` the vertical axis and its unit,
    ``across`` the horizontal axis.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    look: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "DejaVu Sans", "font.size": 9.0,
        "axes.linewidth": 0.6, "path.simplify": True,
    }  # fmt: skip
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(4.7, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for curve, colour in zip(curves, (_LINE, _OTHER, _MARK), strict=False):
            steps, values = _thin(curve.steps), _thin(curve.values)
            mark = "o" if len(values) <= 25 else ""
            axes.plot(steps, values, color=colour, linewidth=1.4, marker=mark, markersize=2.8, label=curve.label)
        for level in levels:
            style, colour = ((0, (5, 2)), _MARK) if level.bound else ((0, (1, 1.5)), _INK)
            axes.axhline(level.value, color=colour, linewidth=1.1, linestyle=style, label=level.label)
        axes.set_xlabel(across, color=_INK)
        axes.set_ylabel(title, color=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_tick))
        axes.tick_params(colors=_INK, width=0.6)
        axes.grid(axis="y", color=_FAINT, linewidth=0.5)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_FAINT)
        axes.legend(frameon=False, labelcolor=_INK, fontsize=8.5)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue(), name)


def finite(steps: Sequence[object], values: Sequence[object]) -> tuple[list[float], list[float]]:
    """The pairs of which both are finite numbers; the rest cannot be drawn."""
    pairs = [(float(s), float(v)) for s, v in zip(steps, values, strict=True)
             if isinstance(s, (int, float)) and isinstance(v, (int, float)) and math.isfinite(v)]  # fmt: skip
    return [s for s, _ in pairs], [v for _, v in pairs]


def _tick(value: float, place: int | None) -> str:
    return tick(value)


def _thin(values: Sequence[float]) -> list[float]:
    """At most about ``_POINTS`` of the values, evenly spaced, the last one among them."""
    stride = max(1, math.ceil(len(values) / _POINTS))
    kept = list(values[::stride])
    return kept if not values or (len(values) - 1) % stride == 0 else [*kept, values[-1]]


def _inline(svg: str, name: str) -> str:
    """The bare element: no prolog, no metadata, no fixed size, ids of its own, the page's fonts and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg class="chart" viewBox="\1" role="img">', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()
