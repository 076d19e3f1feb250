"""``python -m benchmarks.pages.finetuning MINILM.json PROSE.json FOLDER``: finetuning.md and finetuning.es.md.

From what ``python -m benchmarks minilm --json`` and ``… prose --json`` printed: every number and every verdict on the
pages is computed here; the words stand in finetuning.toml.
"""

import json
import statistics
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages.decoding import table

Found = dict[str, Any]
Tell = Callable[..., Any]
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def page(minilm: Found, prose: Found, language: str) -> str:
    def tell(name: str, **blanks: Any) -> Any:
        words = WORDS[name][language]
        return words.format(**blanks) if blanks else words

    compared = {"model": minilm["model"], "seeds": seeds_of(minilm), "minutes": minilm["seconds"] / 60}
    learnt = {**prose["settings"], **prose["settings"]["shape"], "seeds": prose["seeds"]}
    learnt |= {"vocabulary": prose["vocabulary"], "minutes": prose["seconds"] / 60}
    return "\n".join(
        [
            f"# {tell('title')}", "", tell("intro"),
            "", f"## {tell('minilm')}", "", tell("minilm-help", **{**minilm["settings"], **compared}), "",
            peers(minilm, tell), "", *verdicts(minilm, tell),
            "", f"## {tell('pretraining')}", "", tell("pretraining-help", **learnt), "", pretraining(prose, tell),
            "", f"## {tell('tasks')}", "", tell("tasks-help", **learnt), "", tasks(prose, tell), "",
            *gains(prose, tell), "",
        ]
    )  # fmt: skip


def seeds_of(minilm: Found) -> int:
    return min(len(one["values"]["amauta"]) for one in minilm["tasks"].values())


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, of a sample."""
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def peers(minilm: Found, tell: Tell) -> str:
    rows = [
        [
            tell(name), one["source"], str(one["train"]), str(one["heldout"]), str(one["steps"]), tell(one["measure"]),
            spread(one["values"]["amauta"]), spread(one["values"]["transformers"]), f"{one['difference']:+.3f}",
            f"{one['deviation']:.3f}", tell("yes" if one["passed"] else "no"),
        ]
        for name, one in minilm["tasks"].items()
    ]  # fmt: skip
    return table(tell("peers-head"), rows)


def verdicts(minilm: Found, tell: Tell) -> list[str]:
    ones = list(minilm["tasks"].values())
    within = tell("within", within=sum(one["passed"] for one in ones), count=len(ones))
    steps = {who: statistics.median(second for one in ones for second in one["seconds"][who])
             for who in ("amauta", "transformers")}  # fmt: skip
    (ratio,) = minilm["ratios"].values()
    return [within, "", tell("speed", **steps, ratio=ratio, threads=minilm["threads"])]


def pretraining(prose: Found, tell: Tell) -> str:
    rows: list[list[str]] = []
    for family, ways in prose["pretraining"].items():
        for way, one in ways.items():
            start, language = way.split()
            rows.append([
                tell(family), tell(f"{start}-model"), tell(language), f"{one['parameters']:,}", f"{one['trained']:,}",
                f"{one['tokens_per_epoch']:,}", str(one["steps"]), figures(one["before"], tell),
                figures(one["after"], tell),
            ])  # fmt: skip
    return table(tell("pretraining-head"), rows)


def figures(found: Found, tell: Tell) -> str:
    if "bits_per_byte" in found:
        return tell("bits", bits=found["bits_per_byte"])
    return tell("masked", nats=found["heldout_loss"], right=found["heldout_accuracy"])


def tasks(prose: Found, tell: Tell) -> str:
    rows = [
        [
            tell(one["task"]), tell(one["language"]), one["source"], str(one["train"]), str(one["heldout"]),
            tell(one["measure"]), tell(one["family"]), tell(one["start"]), spread(one["values"]),
            "–" if one["start"] == "nothing" else interval(one["gain"]),
        ]
        for one in prose["tasks"]
    ]  # fmt: skip
    return table(tell("tasks-head"), rows)


def interval(found: Sequence[float]) -> str:
    mean, low, high = found
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def gains(prose: Found, tell: Tell) -> list[str]:
    """For each family and start: in how many tasks it is better than from nothing, beyond chance, or worse."""
    lines: list[str] = []
    for family in prose["pretraining"]:
        for start in ("pretrained", "adapted"):
            found = [one["gain"] for one in prose["tasks"] if (one["family"], one["start"]) == (family, start)]
            better, worse = sum(low > 0 for _, low, _ in found), sum(high < 0 for _, _, high in found)
            counts = {"better": better, "worse": worse, "same": len(found) - better - worse, "count": len(found)}
            lines.append("- " + tell("gain", family=tell(family), start=tell(start), **counts))
    return lines


def main() -> None:
    *measured, folder = map(Path, sys.argv[1:4])
    minilm, prose = (json.loads(file.read_text(encoding="utf-8").splitlines()[-1]) for file in measured)
    folder.mkdir(parents=True, exist_ok=True)
    for language, suffix in (("en", ".md"), ("es", ".es.md")):
        (folder / f"finetuning{suffix}").write_text(page(minilm, prose, language), encoding="utf-8")


if __name__ == "__main__":
    main()
