"""The results as tables, for a terminal and for a page alike: in Markdown, in either language."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from amauta.base.messages import language, subject
from amauta.yardstick.gather import BITS

Cell = dict[str, Any]
Tell = Callable[..., str]
NONE = "–"
NAMED = {  # the figures in bits: in a table, and under a plot
    "bits_per_byte": ("yardstick.bits-per-byte", "yardstick.bits-per-byte-short"),
    "continuation": ("yardstick.continuation", "yardstick.continuation-short"),
    "pseudo": ("yardstick.pseudo", "yardstick.pseudo-short"),
}
HEADINGS = {
    "families": "yardstick.heading-families", "objectives": "yardstick.heading-objectives",
    "nsp": "yardstick.heading-nsp", "start": "yardstick.heading-start",
}  # fmt: skip
CONTRASTS = {
    "denoising": "yardstick.contrast-denoising", "both-stacks": "yardstick.contrast-both-stacks",
    "prefix": "yardstick.contrast-prefix", "against-prefix": "yardstick.contrast-against-prefix",
    "shared": "yardstick.contrast-shared", "half-depth": "yardstick.contrast-half-depth",
}  # fmt: skip
WIDE = 10_000  # columns: nothing is folded


def speaker(spoken: str) -> Tell:
    """What says the messages of this subject in one language: ``tell("yardstick.title", …)``."""

    def tell(key: str, **fields: object) -> str:
        return subject("yardstick")[key.removeprefix("yardstick.")][spoken].format(**fields)

    return tell


def drawn(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned: the first to the left, numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.MARKDOWN, show_edge=True)
    for number, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=WIDE, color_system=None).print(table)
    return "\n".join(line for line in text.getvalue().splitlines() if line.strip())  # the box has empty edges


def number(found: Cell | None, digits: int = 3, factor: float = 1.0, *, sign: bool = False) -> str:
    """A mean with half of its interval: ``2.041 ± 0.012``."""
    if found is None:
        return NONE
    mean = f"{factor * found['mean']:{'+' if sign else ''}.{digits}f}"
    return mean if found["half"] is None else f"{mean} ± {factor * found['half']:.{digits}f}"


def share(found: Cell | None, *, sign: bool = False) -> str:
    """A share, or a difference of shares, in percent."""
    return number(found, 1, 100.0, sign=sign)


def power(value: float) -> str:
    return f"{value:.2e}" if value else "0"


def plan(told: Sequence[Cell], seeds: int, spoken: str | None = None) -> str:
    """What will be trained, and its FLOPs."""
    tell = speaker(spoken or language())
    names = ("yardstick.system", "yardstick.parameters", "yardstick.steps", "yardstick.step-flops", "yardstick.flops")
    headers = [*map(tell, names)]
    rows = [[one["system"], f"{one['parameters']:,}", " + ".join(map(str, one["steps"])),
             " + ".join(map(power, one["step_flops"])), power(one["flops"])] for one in told]  # fmt: skip
    total = seeds * sum(one["flops"] for one in told)
    return f"{drawn(headers, rows)}\n{tell('yardstick.total', seeds=seeds, flops=power(total))}"


def families(result: Cell, tell: Tell) -> str:
    """A row a family: size, cost, bits, probes, tasks."""
    found: dict[str, Cell] = result["families"]
    probes, tasks = result["ground"]["probes"], result["ground"]["tasks"]
    headers = [tell("yardstick.system"), tell("yardstick.parameters"), tell("yardstick.flops")]
    headers += [tell(NAMED[name][0]) for name in BITS]
    headers += [tell("yardstick.probe", name=name) for name in probes]
    headers += [tell("yardstick.task", name=name) for name in tasks]
    rows = [
        [name, f"{one['parameters']:,}", power(one["flops"]), *(number(one.get(bits)) for bits in BITS),
         *(share(one["probes"][probe]) for probe in probes), *(share(one["tasks"][task]) for task in tasks)]
        for name, one in found.items()
    ]  # fmt: skip
    usual = [share({"mean": result["usual"][task], "half": None}) for task in tasks]
    rows.append([tell("yardstick.chance"), NONE, NONE, *[NONE] * len(BITS), *["50.0"] * len(probes), *usual])
    return drawn(headers, rows)


def objectives(result: Cell, tell: Tell) -> str:
    """The T5 table, a row a system."""
    found: Cell = result["objectives"]
    tasks = result["ground"]["tasks"]
    names = ("yardstick.architecture", "yardstick.objective", "yardstick.parameters", "yardstick.size",
             "yardstick.cost")  # fmt: skip
    headers = [*map(tell, names), *(tell("yardstick.task", name=task) for task in tasks),
               tell("yardstick.mean"), tell("yardstick.rank"), tell("yardstick.published")]  # fmt: skip
    rows = [
        [row["architecture"], row["objective"], f"{row['parameters']:,}", f"{2 * row['size']:.2f} P",
         f"{row['cost']:.2f} M", *(share(row["tasks"][task]) for task in tasks), share(row["accuracy"]),
         f"{row['rank']:g}", f"{row['published']:.2f} ({row['published_rank']:g})"]
        for row in found["rows"]
    ]  # fmt: skip
    return drawn(headers, rows)


def contrasts(result: Cell, tell: Tell) -> str:
    """The differences behind the paper's conclusions, ours beside the published ones."""
    names = ("yardstick.contrast", "yardstick.ours", "yardstick.published-points", "yardstick.agrees",
             "yardstick.clear")  # fmt: skip
    rows = [
        [tell(CONTRASTS[row["name"]]), share(row["difference"], sign=True), f"{row['published']:+.2f}",
         yes(row["agrees"], tell), yes(row["differs"], tell)]
        for row in result["objectives"]["contrasts"]
    ]  # fmt: skip
    return drawn([*map(tell, names)], rows)


def nsp(result: Cell, tell: Tell) -> str:
    """Without and with next-sentence prediction."""
    names = ("yardstick.figure", "yardstick.without", "yardstick.with", "yardstick.difference", "yardstick.clear")
    rows: list[list[str]] = []
    for row in result["nsp"]:
        bits = row["name"] == "pseudo"
        cells = [number(row[side]) if bits else share(row[side]) for side in ("without", "with")]
        both = number(row["difference"], sign=True) if bits else share(row["difference"], sign=True)
        rows.append([figure(row["name"], tell), *cells, both, yes(row["differs"], tell)])
    return drawn([*map(tell, names)], rows)


def start(result: Cell, tell: Tell) -> str:
    """Steps to one loss, from first weights and from pretrained ones."""
    names = ("yardstick.system", "yardstick.task-column", "yardstick.loss", "yardstick.random-steps",
             "yardstick.pretrained-steps", "yardstick.share-steps", "yardstick.random-accuracy",
             "yardstick.pretrained-accuracy")  # fmt: skip
    rows = [
        [row["system"], row["task"], number(row["loss"]), number(row["random_steps"], 0),
         number(row["pretrained_steps"], 0) if row["pretrained_steps"] else tell("yardstick.reached",
         reached=row["reached"], seeds=len(row["loss"]["values"])), share(row["share"]),
         share(row["random_accuracy"]), share(row["accuracy"])]
        for row in result["start"]
    ]  # fmt: skip
    return drawn([*map(tell, names)], rows)


def figure(name: str, tell: Tell) -> str:
    """The name of a figure for people: of bits, a probe, a task, or the mean over tasks."""
    group, _, own = name.partition(".")
    if own:
        return tell("yardstick.probe" if group == "probes" else "yardstick.task", name=own)
    return tell("yardstick.mean" if name == "tasks" else "yardstick.pseudo")


def yes(value: bool | None, tell: Tell) -> str:
    return NONE if value is None else tell("yardstick.yes" if value else "yardstick.no")


SHOWN: dict[str, tuple[Callable[[Cell, Tell], str], ...]] = {
    "families": (families,), "objectives": (objectives, contrasts), "nsp": (nsp,), "start": (start,),
}  # fmt: skip


def as_text(result: Cell) -> str:
    """All tables of a result, or its plan, in the user's language."""
    tell = speaker(language())
    if "ground" not in result:
        return plan(result["plan"], result["seeds"])
    parts = [
        "\n\n".join([tell(HEADINGS[part]), *(draw(result, tell) for draw in tables)])
        for part, tables in SHOWN.items() if part in result
    ]  # fmt: skip
    return "\n\n".join(parts)
