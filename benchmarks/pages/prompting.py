"""``python -m benchmarks.pages.prompting MEASURED.json FOLDER``: prompting.md and prompting.es.md with a plot each,
from what ``python -m benchmarks prompting --json`` printed. Every number and every verdict on the pages is computed
here; the words stand in prompting.toml."""

import io
import json
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amauta.base.messages import subject
from amauta.grades import mean_interval, wilson
from amauta.pages import look
from amauta.yardstick.plots import COLOURS
from benchmarks.pages.decoding import bracket, sign, table

Found = dict[str, Any]
Tell = Callable[..., Any]
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
WAYS = ("context", "weights")


def page(found: Found, language: str, plot: str) -> str:
    def tell(name: str, **blanks: Any) -> Any:
        words = WORDS[name][language]
        return words.format(**blanks) if blanks else words

    caveat = subject("prompt")["labels-caveat"][language]
    return "\n".join(
        [
            f"# {tell('title')}", "", tell("intro", **{**found, "minutes": found["seconds"] / 60}),
            "", f"## {tell('methods')}", "", tell("methods-help", **found, **found["thoughts"]), "",
            methods(found, tell), "", *against_direct(found, tell),
            "", f"## {tell('labels')}", "", tell("labels-help", **found["labels"]), "", labels(found["labels"], tell),
            "", difference(found["labels"], tell), "", caveat,
            "", f"## {tell('learning')}", "", tell("learning-help", **found["learning"]), "",
            learning(found["learning"], tell), "", f"![{tell('learning')}]({plot})", "",
            *lessons(found["learning"], tell),
            "", f"## {tell('scratchpads')}", "", tell("scratchpads-help", **scratch_facts(found["scratchpads"])), "",
            scratchpads(found["scratchpads"], tell), "", scratch_verdict(found["scratchpads"], tell), "",
        ]
    )  # fmt: skip


def accuracy(one: Found) -> tuple[float, float, float]:
    return one["accuracy"], one["accuracy_low"], one["accuracy_high"]


def methods(found: Found, tell: Tell) -> str:
    rows = [
        [
            f"{task}, {method}", str(one["examples"]), bracket(accuracy(one)), f"{100 * one['no_answer']:.0f}",
            f"{one['generated_tokens']:.0f}", f"{one['read_tokens']:.0f}", f"{one['calls']:.0f}",
            f"{one['seconds']:.1f}",
        ]
        for task, ones in found["methods"].items()
        for method, one in ones.items()
    ]  # fmt: skip
    return table(tell("methods-head"), rows)


def against_direct(found: Found, tell: Tell) -> list[str]:
    """For each task: the methods whose interval does not meet that of the direct answer, and what the dearest costs."""
    lines: list[str] = []
    for task, ones in found["methods"].items():
        direct = ones["direct"]
        better = [name for name, one in ones.items() if one["accuracy_low"] > direct["accuracy_high"]]
        worse = [name for name, one in ones.items() if one["accuracy_high"] < direct["accuracy_low"]]
        told = {"better": ", ".join(better) or tell("none"), "worse": ", ".join(worse) or tell("none")}
        others = [each for each in ones.items() if each[0] != "direct"]
        dear, one = max(others, key=lambda each: each[1]["seconds"])
        told |= {"dear": dear, "times": f"{one['seconds'] / direct['seconds']:.0f}"}
        lines.append("- " + tell("against-direct", task=task, **told))
    return lines


def labels(found: Found, tell: Tell) -> str:
    rows = [
        [tell(f"labels-{name}"), str(one["draws"]), bracket(accuracy(one)), f"{one['macro_f1']:.2f}"]
        for name, one in found["conditions"].items()
    ]
    return table(tell("labels-head"), rows)


def difference(found: Found, tell: Tell) -> str:
    one = found["gold_minus_random"]
    interval = one["accuracy"], one["low"], one["high"]
    verdict = tell(("labels-fewer", "labels-same", "labels-more")[sign(interval) + 1])
    return tell("labels-verdict", points=points(interval), verdict=verdict)


def points(found: Sequence[float]) -> str:
    """A difference of shares in percentage points, with its interval."""
    mean, low, high = (100 * value for value in found)
    return f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]"


def accuracies(found: Found, way: str, shots: str) -> list[float]:
    """Of each seed."""
    right = found["right"]
    return [
        sum(a == b for a, b in zip(one["answers"], right, strict=True)) / len(right)
        for one in found["ways"][way][shots]
    ]


def alike(found: Found, shots: str) -> tuple[float, float]:
    """The share of texts that both ways answer alike, over seeds; and the share that would be alike if each way gave
    its labels as often, but independently of the text."""
    same, chance = [], []
    for one, other in zip(*(found["ways"][way][shots] for way in WAYS), strict=True):
        pairs = list(zip(one["answers"], other["answers"], strict=True))
        same.append(sum(a == b for a, b in pairs) / len(pairs))
        counts, others = Counter(one["answers"]), Counter(other["answers"])
        chance.append(sum(counts[name] * others[name] for name in counts) / len(pairs) ** 2)
    return sum(same) / len(same), sum(chance) / len(chance)


def learning(found: Found, tell: Tell) -> str:
    rows: list[list[str]] = []
    for shots in found["ways"]["context"]:
        context, weights = (accuracies(found, way, shots) for way in WAYS)
        same, chance = alike(found, shots)
        steps = [len(one["losses"]) for one in found["ways"]["weights"][shots] if "losses" in one]
        taken = f"{statistics.fmean(steps):.0f}" if steps else "0"
        between = ["–"] * 3 if shots == "0" else [points(gap(found, shots)), f"{100 * same:.0f}", f"{100 * chance:.0f}"]
        rows.append([shots, *(bracket(span(one, len(found["right"]))) for one in (context, weights)), *between, taken])
    return table(tell("learning-head"), rows)


def span(each: Sequence[float], examples: int) -> tuple[float, float, float]:
    """The mean over seeds and its interval; of one alone, Wilson's over the examples."""
    if len(each) > 1:
        return mean_interval(each, 0.0, 1.0)
    return (each[0], *wilson(each[0] * examples, examples))


def gap(found: Found, shots: str) -> tuple[float, float, float]:
    """In context less in the weights, seed by seed."""
    context, weights = (accuracies(found, way, shots) for way in WAYS)
    return mean_interval([a - b for a, b in zip(context, weights, strict=True)], -1.0, 1.0)


def lessons(found: Found, tell: Tell) -> list[str]:
    learnt = [shots for shots in found["ways"]["context"] if shots != "0"]
    signs = {shots: sign(gap(found, shots)) for shots in learnt}
    sides = {
        name: ", ".join(shots for shots in learnt if signs[shots] == side) or tell("none")
        for name, side in (("context", 1), ("weights", -1), ("neither", 0))
    }
    lines = [tell("learning-verdict", **sides)]
    [zero] = accuracies(found, "context", "0")
    most = learnt[-1]
    told = {way: mean_interval([one - zero for one in accuracies(found, way, most)], -1.0, 1.0) for way in WAYS}
    lines.append(tell("learning-gain", shots=most, **{way: points(one) for way, one in told.items()}))
    pairs = [alike(found, shots) for shots in learnt]
    above = sum(same > chance for same, chance in pairs)
    return [*lines, tell("learning-alike", above=above, count=len(pairs)), "", tell("learning-limits", **found)]


def plot(found: Found, language: str) -> str:
    """Accuracy over the number of examples, both ways, as an SVG file; lines are 95 % intervals."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(look("prompting")):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        names = list(found["ways"]["context"])
        for shift, colour, mark, way in zip((-0.06, 0.06), COLOURS, "os", WAYS, strict=False):
            each = [accuracies(found, way, shots) for shots in names]
            spans = [span(one, len(found["right"])) for one in each]
            means = [100 * mean for mean, _, _ in spans]
            ends = [[100 * abs(mean - end[side]) for mean, *end in spans] for side in (0, 1)]
            at = [place + shift for place in range(len(names))]
            axes.errorbar(at, means, yerr=ends, color=colour, marker=mark, markersize=4, linewidth=1.3, capsize=2.5,
                          label=WORDS[way][language])  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, 100)
        axes.set_xlabel(WORDS["across"][language])
        axes.set_ylabel(WORDS["right"][language])
        axes.legend(frameon=False)
        data = io.StringIO()
        figure.savefig(data, format="svg", metadata={"Date": None})
    return data.getvalue()


def scratch_facts(found: Found) -> Found:
    direct = found["ways"]["direct"]
    shape = {name: found["shape"][name] for name in ("width", "layers", "heads")}
    return {**found, **shape, "learnt": direct["learnt"], "parameters": direct["parameters"]}


def scratchpads(found: Found, tell: Tell) -> str:
    direct, scratch = (found["ways"][way]["digits"] for way in ("direct", "scratchpad"))
    rows = [
        [
            digits, str(direct[digits]["examples"]), bracket(accuracy(direct[digits])),
            bracket(accuracy(scratch[digits])), f"{direct[digits]['generated_tokens']:.0f}",
            f"{scratch[digits]['generated_tokens']:.0f}", f"{100 * scratch[digits].get('scratch_right', 0):.0f}",
        ]
        for digits in direct
    ]  # fmt: skip
    return table(tell("scratchpads-head"), rows)


def scratch_verdict(found: Found, tell: Tell) -> str:
    """The numbers of digits at which one of the two is right more often, beyond both intervals."""
    direct, scratch = (found["ways"][way]["digits"] for way in ("direct", "scratchpad"))
    pairs = {digits: (accuracy(direct[digits]), accuracy(scratch[digits])) for digits in direct}
    better = [digits for digits, (a, b) in pairs.items() if b[1] > a[2]]
    worse = [digits for digits, (a, b) in pairs.items() if b[2] < a[1]]
    same = [digits for digits in pairs if digits not in (*better, *worse)]
    told = {name: ", ".join(one) or tell("none") for name, one in
            (("better", better), ("worse", worse), ("same", same))}  # fmt: skip
    return tell("scratchpads-verdict", **told, steps=found["steps"])


def main() -> None:
    measured, folder = map(Path, sys.argv[1:3])
    found = json.loads(measured.read_text(encoding="utf-8").splitlines()[-1])
    folder.mkdir(parents=True, exist_ok=True)
    for language, suffix in (("en", ""), ("es", ".es")):
        drawn = folder / f"prompting{suffix}.svg"
        drawn.write_text(plot(found["learning"], language), encoding="utf-8")
        drawn.with_suffix(".md").write_text(page(found, language, drawn.name), encoding="utf-8")


if __name__ == "__main__":
    main()
