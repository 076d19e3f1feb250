"""The results as a page in Markdown, once in each language; no number in it is typed by hand."""

from pathlib import Path
from typing import Any

from amauta.base.messages import LANGUAGES
from amauta.runs import write_atomically
from amauta.yardstick import plots, tables
from amauta.yardstick.gather import exact_order
from amauta.yardstick.systems import ADAPTED
from amauta.yardstick.tables import Tell, number, power, share, speaker

Cell = dict[str, Any]
HOW = {
    "families": "yardstick.how-families", "objectives": "yardstick.how-objectives", "nsp": "yardstick.how-nsp",
    "start": "yardstick.how-start",
}  # fmt: skip


def write(result: Cell, path: Path) -> list[Path]:
    """Write the page at ``path`` in English and at ``….es.md`` in Spanish, with their plots beside them."""
    made: list[Path] = []
    for spoken in LANGUAGES:
        own = path if spoken == "en" else path.with_suffix(f".{spoken}{path.suffix}")
        drawn = plots.write(result, path.parent, ("svg",), stem=own.name.removesuffix(path.suffix), spoken=spoken)
        write_atomically(own, text(result, speaker(spoken), [plot.name for plot in drawn]))
        made += [own, *drawn]
    return made


def text(result: Cell, tell: Tell, drawn: list[str]) -> str:
    """The page: what was done, then each part with its table, its plot and what it says."""
    parts = [f"# {tell('yardstick.title')}", tell("yardstick.intro"), _facts(result, tell)]
    plot = {"families": drawn[0] if "families" in result else None, "start": drawn[-1] if "start" in result else None}
    for part, said in (("families", _families), ("objectives", _objectives), ("nsp", _nsp), ("start", _start)):
        if part not in result:
            continue
        parts += [f"## {tell(tables.HEADINGS[part])}", tell(HOW[part], share=f"{ADAPTED:.0%}")]
        parts += [draw(result, tell) for draw in tables.SHOWN[part]]
        if picture := plot.get(part):
            parts.append(f"![{tell(tables.HEADINGS[part])}]({picture})")
        parts.append("\n".join(f"- {line}" for line in said(result, tell)))
    return "\n\n".join(parts) + "\n"


def _facts(result: Cell, tell: Tell) -> str:
    """The corpus, the sizes and the seeds."""
    settings, ground = result["settings"], result["ground"]
    corpus = ", ".join(Path(name).name for name in ground["corpus"])
    lines = [
        tell("yardstick.fact-corpus", corpus=corpus, bytes=f"{ground['train_bytes']:,}",
             heldout=f"{ground['heldout_bytes']:,}", documents=ground["heldout_documents"]),
        tell("yardstick.fact-models", vocabulary=ground["vocabulary"], width=settings["width"],
             layers=settings["layers"], length=settings["length"], rows=settings["rows"], order=settings["order"]),
        tell("yardstick.fact-budget", budget=power(settings["budget"]), table=power(settings["table_budget"])),
        tell("yardstick.fact-tasks", tasks=", ".join(f"{name} ({count})" for name, count in ground["learnt"].items()),
             heldout=settings["heldout_examples"], epochs=f"{settings['epochs']:g}"),
        tell("yardstick.fact-seeds", seeds=settings["seeds"]),
    ]  # fmt: skip
    return "\n".join(f"- {line}" for line in lines)


def _families(result: Cell, tell: Tell) -> list[str]:
    found: dict[str, Cell] = result["families"]
    order = exact_order(found)
    bits = ", ".join(f"{name} {number(found[name]['continuation'])}" for name in order)
    said = [tell("yardstick.say-order", order=bits, best=order[0])]
    entropy = next((one["entropy"] for one in found.values() if "entropy" in one), None)
    if entropy is not None:
        said.append(tell("yardstick.say-entropy", entropy=f"{entropy:.3f}"))
    for group, names in (("probes", result["ground"]["probes"]), ("tasks", result["ground"]["tasks"])):
        for name in names:
            best = max(found, key=lambda system: found[system][group][name]["mean"])
            label = tables.figure(f"{group}.{name}", tell)
            said.append(tell("yardstick.say-best", figure=label, best=best, value=share(found[best][group][name])))
    return said


def _objectives(result: Cell, tell: Tell) -> list[str]:
    found: Cell = result["objectives"]
    rho, rows = found["rank_correlation"], found["contrasts"]
    agreeing = sum(row["agrees"] for row in rows)
    clear = sum(bool(row["differs"]) and row["agrees"] for row in rows)
    against = [tell(tables.CONTRASTS[row["name"]]) for row in rows if row["differs"] and not row["agrees"]]
    said = [
        tell("yardstick.say-rho", rho=tables.NONE if rho is None else f"{rho:+.2f}"),
        tell("yardstick.say-contrasts", agreeing=agreeing, all=len(rows), clear=clear),
        tell("yardstick.say-against", names="; ".join(against)) if against else tell("yardstick.say-none-against"),
    ]
    moved = sorted(found["rows"], key=lambda row: -abs(row["rank"] - row["published_rank"]))[0]
    if moved["rank"] != moved["published_rank"]:
        said.append(tell("yardstick.say-moved", architecture=moved["architecture"], objective=moved["objective"],
                         rank=f"{moved['rank']:g}", published=f"{moved['published_rank']:g}"))  # fmt: skip
    return [*said, tell("yardstick.say-small")]


def _nsp(result: Cell, tell: Tell) -> list[str]:
    rows = result["nsp"]
    clear = [row for row in rows if row["differs"]]
    better = [row for row in clear if (row["difference"]["mean"] > 0) != (row["name"] == "pseudo")]
    worse = [row for row in clear if row not in better]
    names = [", ".join(tables.figure(row["name"], tell) for row in some) or tables.NONE for some in (better, worse)]
    if any(row["differs"] is None for row in rows):
        return [tell("yardstick.say-one-seed")]
    return [tell("yardstick.say-nsp", better=names[0], worse=names[1], unclear=len(rows) - len(clear), all=len(rows))]


def _start(result: Cell, tell: Tell) -> list[str]:
    said: list[str] = []
    for row in result["start"]:
        given = {"system": row["system"], "task": row["task"]}
        if row["share"] is not None:
            said.append(tell("yardstick.say-start", share=share(row["share"]), **given))
        else:
            said.append(tell("yardstick.say-not-reached", reached=row["reached"], seeds=len(row["loss"]["values"]),
                             **given))  # fmt: skip
    return said
