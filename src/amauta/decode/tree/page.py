"""A tree as one HTML page that asks for nothing from outside: drawn where scripts run, readable where they do not."""

import json
import math
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any, get_args

from amauta.base.messages import language as spoken
from amauta.decode.tree.text import FINISHES, ends, finish_word, kind_word, known, label, state_word, visible
from amauta.decode.tree.tree import Node, State, Tree
from amauta.pages import Speech, asset, harmless, markup, script_hash, template
from amauta.runs import write_atomically

HERE = "amauta.decode.tree"
MANY = 150  # nodes; the outline of more is folded at first
ANSWERS = 24  # that are shown whole; the outline has them all
STATES: tuple[State, ...] = get_args(State)


def page(tree: Tree, language: str | None = None) -> str:
    """The page in "en" or "es"; in the user's language when left out."""
    speak = Speech(language or spoken())
    data = {"words": _drawing_words(speak), "language": speak.language, **tree.record()}
    whole = ends(tree)
    counts = Counter(node.state for node in tree.nodes[1:])
    return template(HERE).render(
        language=speak.language, words=_words(speak), method=tree.method, prompt=tree.prompt,
        figures=_figures(tree, speak), settings=_settings(tree, speak), special=_special(tree),
        facts=[(name, _value(value)) for name, value in tree.facts.items()],
        states=[(state, state_word(speak, state), counts[state]) for state in STATES if counts[state]],
        has_dropped=counts["dropped"] > 0,
        answers=[_answer(tree, end, speak) for end in whole[:ANSWERS]],
        more_answers=speak("tree.more-answers", count=len(whole) - ANSWERS) if len(whole) > ANSWERS else "",
        outline=markup(_outline(tree, speak)), many=len(tree.nodes) > MANY,
        style=markup(asset(HERE, "page.css")), script=markup(asset(HERE, "page.js")),
        script_hash=script_hash(asset(HERE, "page.js")),
        data=markup(harmless(data)),
    )  # fmt: skip


def save_page(tree: Tree, path: str | Path, language: str | None = None) -> None:
    """Write the page, whole or not at all."""
    write_atomically(Path(path), page(tree, language))


def _figures(tree: Tree, speak: Speech) -> list[tuple[str, str]]:
    found = [
        (speak("tree.nodes"), speak.number(len(tree.nodes) - 1, 0)),
        (speak("tree.depth"), speak.number(max(tree.depths()), 0)),
        (speak("tree.generated"), speak.number(tree.budget["generated"], 0)),
        (speak("tree.read"), speak.number(tree.budget["read"], 0)),
        (speak("tree.calls"), speak.number(tree.budget["calls"], 0)),
    ]
    answers = [end for end in ends(tree) if tree.nodes[end].state == "chosen" and known(tree, end)]
    if answers:
        found.append((speak("tree.answer-logprob"), speak.number(tree.logprob(answers[0]))))
    return found


def _settings(tree: Tree, speak: Speech) -> list[tuple[str, str, str, bool]]:
    """Name, value, source, and whether somebody set it."""
    sources = tree.sources
    words = {"default": speak("tree.source-default"), "argument": speak("tree.source-argument")}
    return [
        (name, _value(value), words.get(sources.get(name, ""), sources.get(name, "")), _given(tree, name))
        for name, value in tree.settings.items()
    ]


def _special(tree: Tree) -> str:
    """The settings that are not default, in one line."""
    return ", ".join(f"{name} {_value(value)}" for name, value in tree.settings.items() if _given(tree, name))


def _given(tree: Tree, name: str) -> bool:
    return tree.sources.get(name, "default") != "default"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _answer(tree: Tree, end: int, speak: Speech) -> dict[str, Any]:
    node = tree.nodes[end]
    notes = []
    if known(tree, end) and any(tree.nodes[each].logprobs for each in tree.path(end)):
        notes.append(f"{speak('tree.logprob')} {speak.number(tree.logprob(end))}")
    names = {"score": speak("tree.score"), "value": speak("tree.value"), "samples": speak("tree.samples")}
    for name, word in names.items():
        if isinstance(value := node.facts.get(name), (int, float)) and (name != "samples" or value > 1):
            notes.append(f"{word} {speak.figure(value)}")
    if finish := node.facts.get("finish"):
        notes.append(finish_word(speak, finish))
    pieces = [_piece(tree.nodes[each], each, speak, link=True) for each in tree.path(end)[1:]]
    return {"state": node.state, "word": state_word(speak, node.state), "note": " · ".join(notes),
            "html": markup("".join(pieces))}  # fmt: skip


def _outline(tree: Tree, speak: Speech) -> str:
    """Every node: what follows in one line stays in one line, and a list opens where ways part. Without recursion:
    a way may be longer than Python's stack."""
    children = tree.children()
    made: list[str] = []
    todo: list[int | str] = ["</ul>", 0]
    made.append("<ul>")
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            made.append(each)
            continue
        run = [each]
        while len(children[run[-1]]) == 1:
            run.append(children[run[-1]][0])
        line = "".join(_piece(tree.nodes[number], number, speak) for number in run)
        below = children[run[-1]]
        if not below:
            made.append(f'<li><div class="run">{line}</div></li>')
            continue
        made.append(f'<li><details open><summary><div class="run">{line}</div></summary><ul>')
        todo.append("</ul></details></li>")
        todo += below[::-1]
    return "".join(made)


def _piece(node: Node, number: int, speak: Speech, *, link: bool = False) -> str:
    """A node within text. Its ground is the warmer the less likely it was."""
    tip = [kind_word(speak, node.kind), state_word(speak, node.state)]
    shade = ""
    if node.logprobs:
        p = math.exp(min(0.0, node.logprob))
        tip.append(f"{speak('tree.logprob')} {speak.number(node.logprob)} (p {speak.share(p)})")
        shade = f' style="--s:{min(1.0, -node.logprob / 6 / len(node.logprobs)):.2f}"'
    others = (
        f' <small class="from">← {", ".join(f"#{each}" for each in node.parents)}</small>'
        if len(node.parents) > 1
        else ""
    )
    text = escape(visible(label(node)) if node.kind == "token" else label(node))
    where = f'href="#n{number}"' if link else f'id="n{number}"'
    figure = (
        "" if link or not node.logprobs or node.kind == "token" else f"<small>{speak.number(node.logprob, 2)}</small>"
    )
    tag = "a" if link else "span"
    return (
        f'<{tag} {where} class="piece {node.kind} {node.state}"{shade} data-n="{number}" '
        f'title="{escape(" · ".join(tip))}">{text}{figure}{others}</{tag}>'
    )


def _words(speak: Speech) -> dict[str, str]:
    """What the page itself says."""
    return {
        "title": speak("tree.title"), "prompt": speak("tree.prompt"), "settings": speak("tree.settings"),
        "tree": speak("tree.tree"), "hide": speak("tree.hide"), "fold": speak("tree.fold"),
        "unfold": speak("tree.unfold"), "hint": speak("tree.hint"), "answers": speak("tree.answers"),
        "outline": speak("tree.outline"), "outline_note": speak("tree.outline-note"), "foot": speak("tree.foot"),
    }  # fmt: skip


def _drawing_words(speak: Speech) -> dict[str, Any]:
    """What the script says."""
    return {
        "alternatives": speak("tree.alternatives"), "underModel": speak("tree.under-model"),
        "afterFilters": speak("tree.after-filters"), "removed": speak("tree.removed"), "nothing": speak("tree.nothing"),
        "logprob": speak("tree.logprob"), "path": speak("tree.path"), "drawn": speak("tree.drawn"),
        "entropy": speak("tree.entropy"), "state": speak("tree.state"), "samples": speak("tree.samples"),
        "score": speak("tree.score"), "value": speak("tree.value"), "visits": speak("tree.visits"),
        "prior": speak("tree.prior"), "step": speak("tree.step"), "finish": speak("tree.finish"),
        "operation": speak("tree.kind-operation"), "parents": speak("tree.parents"), "given": speak("tree.given"),
        "children": speak("tree.children"), "mass": speak("tree.mass"), "tokens": speak("tree.tokens"),
        "more": speak("tree.more"), "soFar": speak("tree.so-far"),
        "states": {state: state_word(speak, state) for state in STATES},
        "finishes": {finish: finish_word(speak, finish) for finish in FINISHES},
        "kinds": {kind: kind_word(speak, kind) for kind in ("prompt", "token", "thought", "answer", "operation")},
    }  # fmt: skip
