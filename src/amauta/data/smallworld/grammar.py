"""A probabilistic grammar as a graph of nodes: sample a text, weigh it, parse it, enumerate it, compute its entropy.

A node has options; an option has a weight and a row of parts; a part is a string, a mark (no text: a note such as
"this states fact X") or another node. A derivation is the list of options taken, leftmost first. When every text has
exactly one derivation (``parse`` counts them), the log-probability of a text is the sum over the options taken, and
the entropy of the texts is that of the derivations: H(node) = sum_i p_i (-log p_i + sum of H over the parts of i),
the chain rule for a grammar without recursion (as for a PCFG, Grenander 1976; Chi 1999). Logarithms are natural.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import accumulate
from random import Random
from string import Formatter
from typing import Any, NamedTuple


class Mark(NamedTuple):
    """A part without text: what a derivation states (``what="fact"``), its language or its kind."""

    what: str
    value: str


class Option(NamedTuple):
    """One way to go on: its weight within its node, and its parts from left to right."""

    weight: float
    parts: tuple["str | Mark | Node", ...]


class Node:
    """A choice among options, made when first asked for, so that a grammar costs only what is visited."""

    __slots__ = ("_cumulative", "_logs", "_make", "_options")

    def __init__(self, make: Callable[[], Sequence[Option]]) -> None:
        self._make = make
        self._options: Sequence[Option] | None = None

    @property
    def options(self) -> Sequence[Option]:
        """The options, all of positive weight, at least one."""
        if self._options is None:
            options = tuple(self._make())
            assert options and all(option.weight > 0 for option in options), "a node needs options of positive weight"
            total = math.fsum(option.weight for option in options)
            self._logs = [math.log(option.weight / total) for option in options]
            self._cumulative = list(accumulate(option.weight / total for option in options))[:-1]
            self._options = options
        return self._options

    @property
    def logs(self) -> list[float]:
        """The log-probability of each option."""
        _ = self.options
        return self._logs

    def draw(self, random: Random) -> int:
        """The number of one option, drawn by weight."""
        _ = self.options
        return bisect(self._cumulative, random.random())


class Derivation(NamedTuple):
    """A text, its exact log-probability in nats, the options taken (leftmost first) and the marks passed."""

    text: str
    logprob: float
    choices: tuple[int, ...]
    marks: tuple[Mark, ...]

    def marked(self, what: str) -> list[str]:
        """The values of all marks of one sort, in order, each once."""
        return list(dict.fromkeys(mark.value for mark in self.marks if mark.what == what))


def rule(method: Callable[..., Sequence[Option]]) -> Callable[..., Node]:
    """A method that lists options becomes one that returns their node, the same node for the same arguments.

    The object needs a dictionary ``nodes``.
    """

    @wraps(method)
    def node(self: Any, *arguments: Any) -> Node:
        key = (method.__name__, *arguments)
        if key not in self.nodes:
            self.nodes[key] = Node(lambda: method(self, *arguments))
        return self.nodes[key]

    return node


def even(*rows: Sequence[str | Mark | Node]) -> list[Option]:
    """Options of equal weight, one a row of parts."""
    return [Option(1.0, tuple(row)) for row in rows]


def fill(template: str, **slots: str | Node) -> tuple[str | Mark | Node, ...]:
    """A sentence with {slots} as parts: slots that hold strings are written out, slots that hold nodes stay open."""
    parts: list[str | Mark | Node] = []
    words = ""
    for literal, slot, _, _ in Formatter().parse(template):
        words += literal
        if slot is None:
            continue
        filling = slots[slot]
        if isinstance(filling, str):
            words += filling
        else:
            parts += [words, filling] if words else [filling]
            words = ""
    return (*parts, words) if words else tuple(parts)


def sample(node: Node, random: Random) -> Derivation:
    """A random derivation of ``node``."""
    return _derive(node, lambda here: here.draw(random))


def replay(node: Node, choices: Sequence[int]) -> Derivation:
    """The derivation that takes exactly these options: how one derivation is rendered in another language."""
    given = iter(choices)
    made = _derive(node, lambda here: next(given))
    assert next(given, None) is None, "choices were left over"
    return made


def _derive(node: Node, pick: Callable[[Node], int]) -> Derivation:
    words: list[str] = []
    choices: list[int] = []
    marks: list[Mark] = []
    logs: list[float] = []
    stack: list[str | Mark | Node] = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, Mark):
            marks.append(part)
        else:
            taken = pick(part)
            choices.append(taken)
            logs.append(part.logs[taken])
            stack += reversed(part.options[taken].parts)
    return Derivation("".join(words), math.fsum(logs), tuple(choices), tuple(marks))


def derivations(node: Node) -> Iterator[tuple[str, float]]:
    """Every derivation of a small grammar as (text, log-probability in nats), one after another."""
    waiting: list[tuple[str, float, tuple[str | Mark | Node, ...]]] = [("", 0.0, (node,))]
    while waiting:
        text, logprob, parts = waiting.pop()
        for place, part in enumerate(parts):
            if isinstance(part, str):
                text += part
            elif isinstance(part, Node):
                rest = parts[place + 1 :]
                for option, log in zip(part.options, part.logs, strict=True):
                    waiting.append((text, logprob + log, option.parts + rest))
                break
        else:
            yield text, logprob


def parse(node: Node, text: str) -> tuple[float, int]:
    """(log-probability of ``text`` in nats, number of its derivations), found from the text alone.

    A chart parser: for each node and position, every end that it can reach, with the summed probability and the
    number of ways. (-inf, 0) when the grammar cannot yield the text. Unambiguous means that the number is 1.
    """
    chart: dict[tuple[int, int], dict[int, tuple[float, int]]] = {}

    def ends(part: str | Mark | Node, start: int) -> dict[int, tuple[float, int]]:
        if isinstance(part, Mark):
            return {start: (1.0, 1)}
        if isinstance(part, str):
            return {start + len(part): (1.0, 1)} if text.startswith(part, start) else {}
        if (id(part), start) not in chart:
            found: dict[int, tuple[float, int]] = {}
            for option, log in zip(part.options, part.logs, strict=True):
                for end, (chance, ways) in _row(option.parts, start).items():
                    old = found.get(end, (0.0, 0))
                    found[end] = (old[0] + math.exp(log) * chance, old[1] + ways)
            chart[id(part), start] = found
        return chart[id(part), start]

    def _row(parts: Sequence[str | Mark | Node], start: int) -> dict[int, tuple[float, int]]:
        reached = {start: (1.0, 1)}
        for part in parts:
            further: dict[int, tuple[float, int]] = {}
            for middle, (chance, ways) in reached.items():
                for end, (next_chance, next_ways) in ends(part, middle).items():
                    old = further.get(end, (0.0, 0))
                    further[end] = (old[0] + chance * next_chance, old[1] + ways * next_ways)
            reached = further
            if not reached:
                break
        return reached

    chance, ways = ends(node, 0).get(len(text), (0.0, 0))
    return (math.log(chance) if chance > 0 else -math.inf), ways


class Expectation(NamedTuple):
    """What a grammar yields on average: entropy in nats, UTF-8 bytes, and how many derivations there are."""

    nats: float
    bytes: float
    derivations: int

    @property
    def bits_per_byte(self) -> float:
        """Entropy per byte: what no model of the texts can go below on average (ends of texts included)."""
        return self.nats / math.log(2) / self.bytes


def expectation(node: Node) -> Expectation:
    """Exact expectations over all derivations of ``node``, in closed form by the chain rule (no sampling)."""
    known: dict[int, Expectation] = {}

    def visit(here: Node) -> Expectation:
        if id(here) not in known:
            nats = size = 0.0
            count = 0
            for option, log in zip(here.options, here.logs, strict=True):
                below = [visit(part) for part in option.parts if isinstance(part, Node)]
                own = sum(len(part.encode()) for part in option.parts if isinstance(part, str))
                nats += math.exp(log) * (math.fsum(child.nats for child in below) - log)
                size += math.exp(log) * (math.fsum(child.bytes for child in below) + own)
                count += math.prod(child.derivations for child in below)
            known[id(here)] = Expectation(nats, size, count)
        return known[id(here)]

    return visit(node)
