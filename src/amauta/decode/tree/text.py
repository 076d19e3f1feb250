"""A tree in words: what a node is called, where its texts end, and a drawing in lines for the terminal."""

import math

from amauta.base.messages import language as spoken
from amauta.decode.tree.tree import Node, Tree
from amauta.pages import Speech

MARKS = {" ": "·", "\n": "↵\n", "\t": "⇥\t", "\r": "␍"}  # white space that would not be seen

FINISHES = {  # as the sampler and the search name them
    "stop": "tree.finish-stop", "stop-string": "tree.finish-stop-string", "length": "tree.finish-length",
    "context": "tree.finish-context", "time": "tree.finish-time", "cancelled": "tree.finish-cancelled",
    "failed": "tree.finish-failed",
}  # fmt: skip


def state_word(speak: Speech, state: str) -> str:
    return speak({"open": "tree.state-open", "kept": "tree.state-kept", "dropped": "tree.state-dropped",
                  "finished": "tree.state-finished", "chosen": "tree.state-chosen"}[state])  # fmt: skip


def finish_word(speak: Speech, finish: object) -> str:
    """Why a text ended; a reason that has no word here stays as it is."""
    key = FINISHES.get(str(finish))
    return str(finish) if key is None else speak(key)


def kind_word(speak: Speech, kind: str) -> str:
    return speak({"prompt": "tree.prompt", "token": "tree.kind-token", "thought": "tree.kind-thought",
                  "answer": "tree.kind-answer", "operation": "tree.kind-operation"}[kind])  # fmt: skip


def visible(text: str) -> str:
    """White space by signs; a line still ends where it ended."""
    return "".join(MARKS.get(char, char) for char in text)


def label(node: Node) -> str:
    """What a node is called: its text; for a token without one the tokenizer's name of it, or its number."""
    if node.text:
        return node.text
    return str(node.facts.get("piece") or node.facts.get("operation") or " ".join(map(str, node.ids)) or "∅")


def known(tree: Tree, end: int) -> bool:
    """Whether the log-prob of all that stands on the way is known."""
    return all(tree.nodes[each].logprobs or not tree.nodes[each].ids for each in tree.path(end)[1:])


def ends(tree: Tree) -> list[int]:
    """Where answers end, the chosen first, then by log-prob: what finished, else the leaves that were not dropped."""
    has_children = {parent for node in tree.nodes for parent in node.parents}
    found = [
        number
        for number, node in enumerate(tree.nodes)
        if number and node.state != "dropped" and (number not in has_children or node.state == "finished")
    ]
    if whole := [end for end in found if tree.nodes[end].state in ("finished", "chosen")]:
        found = whole  # a beam that nothing came of, or a thought that nobody went on from, is no answer then
    return sorted(found, key=lambda end: (tree.nodes[end].state != "chosen", -tree.logprob(end), end))


def drawing(tree: Tree, language: str | None = None) -> str:
    """The tree in lines. What follows in one line stays in one; before it the probability of its first token."""
    speak = Speech(language or spoken())
    children = tree.children()
    lines: list[str] = []
    todo = [(0, "", "")]  # node, what stands before its first line, and before the lines below it
    while todo:
        node, first, below = todo.pop()
        run = [node]
        while len(children[run[-1]]) == 1 and _goes_on(tree.nodes[run[-1]], tree.nodes[children[run[-1]][0]]):
            run += children[run[-1]]
        lines.append(first + _line([tree.nodes[each] for each in run], speak))
        rest = children[run[-1]]
        for child in reversed(rest):
            last = child == rest[-1]
            todo.append((child, f"{below}{'└─' if last else '├─'} ", f"{below}{'   ' if last else '│  '}"))
    return "\n".join(lines)


def _goes_on(node: Node, child: Node) -> bool:
    """Whether an only child stands in its parent's line."""
    return node.kind == child.kind == "token" and (child.state != "dropped" or node.state == "dropped")


def _line(run: list[Node], speak: Speech) -> str:
    """A run of nodes: probability, text, figures, and what became of its last."""
    first, last = run[0], run[-1]
    text = "".join(map(label, run))
    text = text.replace("\n", "↵") if first.kind == "token" else " ".join(text.split())
    parts = [speak.share(math.exp(min(0.0, first.logprob)))] if first.kind == "token" and first.logprobs else []
    parts.append(text)
    if last.facts.get("samples", 1) > 1:
        parts.append(f"×{last.facts['samples']}")
    for name, word in (("value", speak("tree.value")), ("visits", speak("tree.visits"))):
        if isinstance(last.facts.get(name), (int, float)):
            parts.append(f"({word} {speak.figure(last.facts[name])})")
    if len(first.parents) > 1:
        parts.append("← " + ", ".join(f"#{each}" for each in first.parents))
    if last.state in ("dropped", "finished", "chosen"):
        parts.append(f"[{state_word(speak, last.state)}]")
    return "  ".join(parts)
