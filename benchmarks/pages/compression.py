"""``python -m benchmarks.pages.compression MEASURED.json FOLDER``: compression.md and compression.es.md with a plot
each, from what ``python -m benchmarks tradeoff --json`` printed. Every number and every verdict on the pages is
computed here; the words stand in compression.toml."""

import io
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amauta.pages import look
from amauta.yardstick.plots import COLOURS
from benchmarks.pages.decoding import bracket, table

Found = dict[str, Any]
Tell = Callable[..., Any]
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
MB = 1e6
NEAR = 1.03  # of the perplexity of f32


def page(found: Found, language: str, plot: str) -> str:
    def tell(name: str, **blanks: Any) -> Any:
        words = WORDS[name][language]
        return words.format(**blanks) if blanks else words

    blanks = {
        "model": found["model"], "parameters": found["schemes"]["f32"]["formula"] / 4 / 1e6,
        "calibration": Path(found["calibration"][0]).name, "rows": found["calibration"][1],
        "length": found["calibration"][2], "prose": Path(found["prose"][0]).name, "windows": found["prose"][1],
        "pairs": found["pairs"], "questions": found["questions"], "tokens": found["tokens"], "cores": found["cores"],
        "minutes": found["seconds"] / 60,
    }  # fmt: skip
    said = ", ".join(f"{70 * bits / 8:g} GB ({bits})" for bits in (64, 32, 16, 8, 4))
    return "\n".join(
        [
            f"# {tell('title')}", "", tell("intro", **blanks), "", tell("origin"),
            "", f"## {tell('schemes')}", "", schemes(found, tell), "", tell("zeros"), "", *verdicts(found, tell), "",
            f"![{tell('plot')}]({plot})",
            "", f"## {tell('memory')}", "", tell("memory-help", said=said), "", memory(found, tell), "",
        ]
    )  # fmt: skip


def schemes(found: Found, tell: Tell) -> str:
    base = found["schemes"]["f32"]["prose"]
    rows = [
        [
            name, f"{one['bytes'] / MB:.0f}", f"{one['kl']:.2g}", f"{one['top1_agreement']:.1%}".rstrip("%"),
            f"{one['perplexity_ratio']:.3f}", f"{one['prose']:.2f}", f"{one['prose'] / base:.3f}",
            bracket(one["blimp"]), bracket(one["arc"]),
            f"{one['tokens_per_second']:.0f}" if "speed" in one else "–",
            f"{one['speed']:.2f}" if "speed" in one else "–",
        ]
        for name, one in found["schemes"].items()
    ]  # fmt: skip
    return table(tell("schemes-head"), rows)


def verdicts(found: Found, tell: Tell) -> list[str]:
    all_ = found["schemes"]
    base, half = all_["f32"], all_["bf16"]
    lossy = {name: one for name, one in all_.items() if name not in ("f32", "bf16")}
    near = [name for name, one in lossy.items() if one["prose"] <= NEAR * base["prose"]]
    smallest = min(near, key=lambda name: lossy[name]["bytes"], default=None)
    lines = []
    if smallest is not None:
        share = lossy[smallest]["bytes"] / half["bytes"]
        lines.append("- " + tell("within", names=", ".join(near), smallest=smallest, share=share))
    over = {name: one["prose"] / base["prose"] for name, one in all_.items()}
    lines.append("- " + tell("watching", nearest=over["int4"], affine=over["int4, affine"], awq=over["awq"],
                             gptq=over["gptq"]))  # fmt: skip
    apart = [name for name, one in lossy.items() if any(_apart(one[task], base[task]) for task in ("blimp", "arc"))]
    names = ", ".join(apart) or tell("nobody")
    return [*lines, "- " + tell("tasks", count=len(apart), all=len(lossy), names=names)]


def _apart(one: list[float], other: list[float]) -> bool:
    """Whether two intervals do not meet."""
    return one[1] > other[2] or other[1] > one[2]


def memory(found: Found, tell: Tell) -> str:
    rows = [
        [name, f"{one['formula'] / MB:.0f}", f"{one['bytes'] / MB:.0f}", f"{one['bytes'] / one['formula']:.2f}",
         f"{one['peak'] / MB:.0f}"]
        for name, one in found["schemes"].items() if "peak" in one
    ]  # fmt: skip
    return table(tell("memory-head"), rows)


def picture(found: Found, language: str) -> bytes:
    """Bytes against perplexity: what lies to the left and below is better."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context(look("compression")):
        figure, axes = pyplot.subplots(figsize=(7.2, 4.2))
        for i, (name, one) in enumerate(found["schemes"].items()):
            x, y = one["bytes"] / MB, one["prose"]
            axes.plot(x, y, "o" if "speed" in one else "x", color=COLOURS[i % len(COLOURS)])
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(5, 4 if i % 2 else -9), fontsize=7)
        axes.set(xlabel=WORDS["megabytes"][language], ylabel=WORDS["perplexity"][language], xscale="log", yscale="log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        data = io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)
    return data.getvalue()


def main(measured: str, folder: str) -> None:
    found = json.loads(Path(measured).read_text(encoding="utf-8").splitlines()[-1])
    for language, suffix in (("en", ""), ("es", ".es")):
        plot = f"compression{suffix}.svg"
        Path(folder, plot).write_bytes(picture(found, language))
        Path(folder, f"compression{suffix}.md").write_text(page(found, language, plot), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
