"""``python -m benchmarks.pages.decoding MEASURED.json FOLDER``: decoding.md and decoding.es.md, from what
``python -m benchmarks methods --json`` printed. Every number and every verdict on the pages is computed here; the words
stand in decoding.toml."""

import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amauta.grades import mean_interval

Found = dict[str, Any]
Interval = Sequence[float]  # a mean, and the ends of its 95 % interval
Tell = Callable[..., Any]
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SHOWN = 160  # characters of a text


def page(found: Found, language: str) -> str:
    def tell(name: str, **blanks: Any) -> Any:
        words = WORDS[name][language]
        return words.format(**blanks) if blanks else words

    minutes = found["seconds"] / 60
    return "\n".join(
        [
            f"# {tell('title')}", "", tell("intro", **{**found, "minutes": minutes}),
            "", f"## {tell('ways')}", "", tell("ways-help"), "", ways(found, tell),
            "", f"## {tell('verdicts')}", "", *verdicts(found, tell),
            "", f"## {tell('beams')}", "", tell("beams-help", **found["wide"]), "", beams(found, tell),
            "", f"## {tell('defects')}", "", *defects(found, tell),
            "", f"## {tell('sample')}", "", tell("sample-help"), "", *samples(found), "",
        ]
    )  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def span(found: Interval, digits: int = 2) -> str:
    mean, low, high = found
    return f"{mean:.{digits}f} ± {abs(high - low) / 2:.{digits}f}"


def bracket(found: Interval) -> str:
    """A share in percent, with its interval, which is no symmetric one."""
    mean, low, high = (100 * value for value in found)
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def ways(found: Found, tell: Tell) -> str:
    rows = [
        [
            one["way"], "–" if one["temperature"] is None else f"{one['temperature']:g}",
            span(one["distinct"]["1"]), span(one["distinct"]["2"]), f"{one['distinct_of_all']['2']:.2f}",
            span(one["repeated"]), span(one["bits_per_byte"]), f"{one['perplexity']:.1f}",
            span(one["logprob_per_token"]),
            f"{one['length'][0]:.0f}", bracket(one["right"]), f"{one['seconds']:.1f}",
        ]
        for one in found["ways"].values()
    ]  # fmt: skip
    return table(tell("ways-head"), rows)


def verdicts(found: Found, tell: Tell) -> list[str]:
    """For each way that draws: its coldest against its hottest texts, beginning by beginning."""
    by_way: dict[str, list[Found]] = {}
    for one in found["ways"].values():
        if one["temperature"] is not None:
            by_way.setdefault(one["way"], []).append(one)
    lines, signs = [], []
    for way, ones in by_way.items():
        low, *_, high = sorted(ones, key=lambda one: one["temperature"])
        told = {name: changed(low[each], high[each], tell) for name, each in
                (("distinct", "distinct_2_each"), ("repeated", "repeated_each"), ("bits", "bits"))}  # fmt: skip
        signs.append(sign(difference(low["bits"], high["bits"])))
        first, second = low["right"], high["right"]
        meet = first[1] <= second[2] and second[1] <= first[2]
        right = tell("close" if meet else "apart", first=f"{first[0]:.0%}", second=f"{second[0]:.0%}")
        temperatures = {"low": low["temperature"], "high": high["temperature"]}
        lines.append("- " + tell("way-verdict", way=way, right=right, **temperatures, **told))
    fluency = {"fewer": signs.count(1), "more": signs.count(-1), "neither": signs.count(0), "count": len(signs)}
    return [*lines, "", tell("fluency", **fluency)]


def changed(before: Sequence[float | None], after: Sequence[float | None], tell: Tell) -> str:
    """What the paired differences say: a rise, a fall, or nothing beyond chance."""
    found = difference(before, after)
    if sign(found) == 0:
        return tell("same", by=span(found))
    return tell("rise", by=span(found)) if sign(found) > 0 else tell("fall", by=span([-value for value in found]))


def difference(before: Sequence[float | None], after: Sequence[float | None]) -> Interval:
    """Beginning by beginning, where there are both."""
    return mean_interval([b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None])


def sign(found: Interval) -> int:
    """Of what lies on one side of zero with its whole interval; 0 of anything else."""
    return int(found[1] > 0) - int(found[2] < 0)


def beams(found: Found, tell: Tell) -> str:
    greedy = found["beams"]["1"]
    rows, last = [], None
    for width, one in found["beams"].items():
        gains = mean_interval([a - b for a, b in zip(one["logprobs"], greedy["logprobs"], strict=True)])
        times = one["seconds"] / greedy["seconds"]
        last = tell("beams-verdict", width=width, times=times, gain=span(gains))
        rows.append([
            width, span(one["logprob"]), span(gains), f"{one['seconds']:.1f}", f"{times:.1f}", span(one["distinct"]),
            span(one["repeated"]), str(one["texts"]),
        ])  # fmt: skip
    return f"{table(tell('beams-head'), rows)}\n\n{last}"


def defects(found: Found, tell: Tell) -> list[str]:
    searched, loops = found["greedy"]["not the likeliest"], found["greedy"]["repeats itself"]
    rows = [[tell(name.replace(" ", "-")), one["text"], f"{one['prob']:.2f}"] for name, one in searched.items()]
    told = {name: span(loops[name]["repeated"]) for name in ("greedy", "ancestral")}
    told["circle"] = span(loops["circle"], 1)
    return [tell("trellis"), "", table(tell("trellis-head"), rows), "", tell("loops", **{**loops, **told})]


def samples(found: Found) -> list[str]:
    return [f"- **{name}**: {' '.join(one['sample'].split())[:SHOWN]}…" for name, one in found["ways"].items()]


def main() -> None:
    measured, folder = map(Path, sys.argv[1:3])
    found = json.loads(measured.read_text(encoding="utf-8").splitlines()[-1])
    folder.mkdir(parents=True, exist_ok=True)
    for language, suffix in (("en", ".md"), ("es", ".es.md")):
        (folder / f"decoding{suffix}").write_text(page(found, language), encoding="utf-8")


if __name__ == "__main__":
    main()
