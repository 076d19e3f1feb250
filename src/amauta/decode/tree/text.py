"""A tree in words: what a node is called, where its texts end, and a drawing in lines for the terminal."""

import math

from amauta.base.messages import language as spoken
from amauta.base.messages import subject
from amauta.decode.tree.tree import Node, Tree

MARKS = {" ": "·", "\n": "↵\n", "\t": "⇥\t", "\r": "␍"}  # white space that would not be seen

FINISHES = {  # as the sampler and the search name them
    "stop": "tree.finish-stop", "stop-string": "tree.finish-stop-string", "length": "tree.finish-length",
    "context": "tree.finish-context", "time": "tree.finish-time", "cancelled": "tree.finish-cancelled",
    "failed": "tree.finish-failed",
}  # fmt: skip


class Speech:
    """Messages and numbers in one language, whatever the user's own is."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, /, **fields: object) -> str:
        area, _, name = key.partition(".")
        return subject(area)[name][self.language].format(**fields)

    def number(self, value: float, decimals: int = 3) -> str:
        """1,234.500 in English, 1 234,500 in Spanish (a thin space, as the RAE writes it)."""
        if not math.isfinite(value):
            return "−∞" if value < 0 else "∞"
        text = f"{value:,.{decimals}f}".replace("-", "−")
        return text if self.language == "en" else text.translate({ord(","): "\u202f", ord("."): ","})

    def figure(self, value: float) -> str:
        """With as many decimals as it takes, three at most."""
        whole = float(value).is_integer()
        return self.number(value, 0 if whole else 3)

    def share(self, p: float) -> str:
        """36.5% in English, 36,5 % in Spanish; what is above 0 never reads as 0."""
        mark = "%" if self.language == "en" else "\u00a0%"
        return ("<" + self.number(0.1, 1) if 0 < p < 0.0005 else self.number(100 * p, 1)) + mark

    def state(self, state: str) -> str:
        return self({"open": "tree.state-open", "kept": "tree.state-kept", "dropped": "tree.state-dropped",
                     "finished": "tree.state-finished", "chosen": "tree.state-chosen"}[state])  # fmt: skip

    def finish(self, finish: object) -> str:
        """Why a text ended; a reason that has no word here stays as it is."""
        key = FINISHES.get(str(finish))
        return str(finish) if key is None else self(key)

    def kind(self, kind: str) -> str:
        return self({"prompt": "tree.prompt", "token": "tree.kind-token", "thought": "tree.kind-thought",
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
        parts.append(f"[{speak.state(last.state)}]")
    return "  ".join(parts)
