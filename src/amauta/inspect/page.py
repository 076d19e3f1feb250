"""A pair's tokens as one HTML page that asks for nothing from outside: coloured by what is chosen where scripts run,
coloured by reward and with all figures in tables where they do not."""

from pathlib import Path
from typing import Any

from amauta.base.messages import language as spoken
from amauta.decode.tree.text import visible
from amauta.inspect.pair import Pair, Side
from amauta.pages import Speech, asset, harmless, markup, script_hash, template
from amauta.runs import write_atomically

HERE = "amauta.inspect"
FIRST = "reward"  # what tokens are coloured by at first
WORDS = {
    "logprob": "inspect.logprob", "reference": "inspect.reference", "ratio": "inspect.ratio",
    "reward": "inspect.reward", "kl": "inspect.kl", "score": "inspect.score", "selected": "inspect.selected",
    "mask_reward": "inspect.mask-reward", "mask_divergence": "inspect.mask-divergence", "mapo": "inspect.mapo",
}  # fmt: skip
ROLES = {"model": "inspect.role-model", "reference": "inspect.role-reference", "oracle": "inspect.role-oracle",
         "masks": "inspect.role-masks"}  # fmt: skip


def page(pair: Pair, language: str | None = None) -> str:
    """The page in "en" or "es"; in the user's language when left out."""
    speak = Speech(language or spoken())
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    names, begin = list(pair.chosen.figures), min(side.places[0] for side in sides.values())
    scales = {name: max(abs(x) for side in sides.values() for x in side.figures[name]) for name in names}
    data = {
        "language": speak.language, "words": {name: speak(WORDS[name]) for name in names}, "scales": scales,
        "mean": speak("inspect.mean"), "layer": speak("inspect.layer"), "looked": speak("inspect.looked"),
        "largest": speak("inspect.largest"),
        "sides": {name: {"places": side.places, "figures": side.figures, "attention": _rounded(side)}
                  for name, side in sides.items()},
    }  # fmt: skip
    return template(HERE).render(
        language=speak.language, words=_words(speak), where=pair.where, first=FIRST,
        measures=[(name, speak(WORDS[name])) for name in names],
        prompt=[visible(text) for text in pair.chosen.tokens[:begin]],
        sides=[_side(name, side, begin, scales, speak) for name, side in sides.items()],
        figures=[(speak("inspect.margin"), speak.number(pair.margin)), ("β", speak.figure(pair.beta))],
        models=[(speak(ROLES[role]), name) for role, name in pair.names.items()],
        style=markup(asset(HERE, "page.css")), script=markup(asset(HERE, "page.js")), data=markup(harmless(data)),
        script_hash=script_hash(asset(HERE, "page.js")),
    )  # fmt: skip


def save_page(pair: Pair, path: str | Path, language: str | None = None) -> None:
    """Write the page, whole or not at all."""
    write_atomically(Path(path), page(pair, language))


def _side(name: str, side: Side, begin: int, scales: dict[str, float], speak: Speech) -> dict[str, Any]:
    """What the template shows of an answer."""
    number = {place: i for i, place in enumerate(side.places)}
    figures = side.figures
    tokens: list[dict[str, Any]] = []
    for place in range(begin, len(side.tokens)):
        one: dict[str, Any] = {"text": visible(side.tokens[place]), "number": number.get(place)}
        if place in number:
            value = figures[FIRST][number[place]]
            told = ((WORDS[each], values[number[place]]) for each, values in figures.items())
            one["sign"] = "minus" if value < 0 else "plus"
            one["strength"] = f"{abs(value) / (scales[FIRST] or 1):.3f}"
            one["tip"] = " · ".join(f"{speak(word)} {speak.figure(value)}" for word, value in told)
        tokens.append(one)
    rows = [
        (visible(side.tokens[place]), [speak.figure(values[i]) for values in figures.values()])
        for place, i in number.items()
    ]
    return {"name": name, "title": speak({"chosen": "inspect.chosen", "rejected": "inspect.rejected"}[name]),
            "tokens": tokens, "totals": _totals(side, speak), "columns": [speak(WORDS[each]) for each in figures],
            "rows": rows}  # fmt: skip


def _totals(side: Side, speak: Speech) -> list[tuple[str, str]]:
    found = side.totals()
    told = [(speak("inspect.tokens"), speak.number(found["tokens"], 0))]
    told += [(speak(WORDS[name]), speak.number(found[f"{name}_sum"])) for name in ("logprob", "ratio", "reward", "kl")]
    sparsities = {"sparsity_reward": "inspect.sparsity-reward", "sparsity_divergence": "inspect.sparsity-divergence"}
    return told + [(speak(word), speak.share(found[name])) for name, word in sparsities.items() if name in found]


def _rounded(side: Side) -> list[list[list[int]]]:
    """[layer][token]: place, weight in thousandths, place, weight …"""
    return [
        [[x for place, weight in row for x in (place, round(1000 * weight))] for row in layer]
        for layer in side.attention
    ]


def _words(speak: Speech) -> dict[str, str]:
    """What the page itself says."""
    return {
        "title": speak("inspect.title"), "prompt": speak("inspect.prompt"), "colour": speak("inspect.colour"),
        "attention": speak("inspect.attention"), "hint": speak("inspect.hint"), "table": speak("inspect.table"),
        "token": speak("inspect.token"), "below": speak("inspect.below"), "above": speak("inspect.above"),
        "foot": speak("inspect.foot"),
    }  # fmt: skip
