"""One tree for every way of decoding: greedy, beams, samples, votes, trees and graphs of thoughts, Monte Carlo search.

Node 0 is the prompt; every other node holds what was written next, one token or a whole thought, with its log-probs
under the model (nats). A node may have several parents (graph of thoughts: what merges thoughts); the first is the one
that its text goes on from. Parents come before their children, so there are no circles. Without torch.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from amauta.base.errors import DataError
from amauta.runs import write_atomically

Kind = Literal["prompt", "token", "thought", "answer", "operation"]
# open: nobody went on from here yet; kept: the search went on from here; dropped: it gave this up; finished: a whole
# answer; chosen: the answer that was given, and the way to it
State = Literal["open", "kept", "dropped", "finished", "chosen"]
FORMAT, VERSION = "amauta.tree", 1


@dataclass
class Budget:
    """What a search cost: tokens written, tokens read (prompts), and calls of the model."""

    generated: int = 0
    read: int = 0
    calls: int = 0


@dataclass
class Node:
    """What stands at one place of the tree.

    ``logprobs``: of each of ``ids`` under the model, given all before it; empty where they are not known.
    ``sampled_logprobs``: under the distribution that it was drawn from (after the filters).
    Facts that the page and the replay know, all optional: ``alternatives`` [[id, text, p under the model, p after the
    filters]], likeliest first; ``removed`` {filter: {"mass", "count", "tokens": [[id, text, p]]}}; ``entropy`` in
    nats; ``score``, ``value``, ``visits``, ``prior``; ``samples``: how many of several came through here; ``step``, the
    search's; ``operation``: what made this node; ``given``: the ids (or text, or messages) that the model read before
    this node where those are not the path's; None where nobody noted them.
    """

    parents: tuple[int, ...]  # the first is the one that this text goes on from; none: the root
    ids: list[int]
    text: str
    logprobs: list[float]
    sampled_logprobs: list[float]
    kind: Kind = "token"
    state: State = "open"
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def logprob(self) -> float:
        """The sum of this node's own log-probs."""
        return math.fsum(self.logprobs)


class Tree:
    """``settings``: those that held, plain values; ``sources``: where each came from (argument, default …).

    ``ids``: those of the prompt. ``facts``: anything else that is true of the whole (the model's name, the ``source``
    ids that an encoder read …).
    """

    def __init__(
        self,
        method: str,
        prompt: str,
        settings: Mapping[str, Any],
        *,
        sources: Mapping[str, str] | None = None,
        ids: Sequence[int] = (),
        **facts: Any,
    ) -> None:
        self.method = method
        self.settings: dict[str, Any] = plain(settings)
        self.sources = dict(sources or {})
        self.facts: dict[str, Any] = plain(facts)
        self.nodes = [Node((), [int(id) for id in ids], prompt, [], [], "prompt", "kept")]
        self._budget = Budget()

    @property
    def prompt(self) -> str:
        return self.nodes[0].text

    @property
    def budget(self) -> dict[str, int]:
        """``generated``, ``read`` and ``calls``."""
        return asdict(self._budget)

    def add(
        self,
        parent: int,
        ids: Sequence[int],
        text: str,
        logprobs: Sequence[float] = (),
        sampled_logprobs: Sequence[float] = (),
        *,
        kind: Kind = "token",
        state: State = "open",
        parents: Sequence[int] = (),
        cost: int | None = None,
        **facts: Any,
    ) -> int:
        """A new node below ``parent``, and its number. ``parents``: the others that it was made from.

        The budget grows by ``cost`` generated tokens, ``len(ids)`` unless given (0: this was only considered, or was
        counted before). Log-probs are one for each of ``ids``, or none.
        """
        node = Node(
            tuple(dict.fromkeys((parent, *parents))),
            [int(id) for id in ids], text, [float(one) for one in logprobs], [float(one) for one in sampled_logprobs],
            kind, state, plain(facts),
        )  # fmt: skip
        if fault := _fault(node, len(self.nodes)):
            raise ValueError(f"node {len(self.nodes)}: {fault}")
        self.nodes.append(node)
        self.spend(generated=len(node.ids) if cost is None else cost)
        return len(self.nodes) - 1

    def set(self, number: int, state: State | None = None, **facts: Any) -> None:
        """Another state, more facts, or other ones."""
        if state is not None and state not in get_args(State):
            raise ValueError(f"state {state!r}")
        node = self.nodes[number]
        node.state = state or node.state
        node.facts |= plain(facts)

    def choose(self, number: int) -> None:
        """This is the answer: the node and all on the way to it are chosen."""
        for each in self.path(number)[1:]:
            self.set(each, "chosen")

    def spend(self, generated: int = 0, read: int = 0, calls: int = 0) -> None:
        """Costs that no node carries: prompts read, calls, tokens of evaluations. ``add`` counts its own tokens."""
        if min(generated, read, calls) < 0:
            raise ValueError("a cost below 0")
        self._budget.generated += generated
        self._budget.read += read
        self._budget.calls += calls

    def path(self, number: int) -> list[int]:
        """The nodes from the root to this one, by first parents."""
        found = [number]
        while parents := self.nodes[found[-1]].parents:
            found.append(parents[0])
        return found[::-1]

    def logprob(self, number: int) -> float:
        """The sum of the log-probs along the path, in nats."""
        return math.fsum(one for each in self.path(number) for one in self.nodes[each].logprobs)

    def text(self, number: int) -> str:
        """What was written along the path, without the prompt."""
        return "".join(self.nodes[each].text for each in self.path(number)[1:])

    def children(self) -> list[list[int]]:
        """For each node those whose first parent it is."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            if node.parents:
                found[node.parents[0]].append(number)
        return found

    def ancestors(self, number: int) -> frozenset[int]:
        """All that this node was made from, over every parent; their number is a thought's volume."""
        found: set[int] = set()
        todo = [*self.nodes[number].parents]
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += self.nodes[each].parents
        return frozenset(found)

    def depths(self) -> list[int]:
        """The longest way from the root to each node, over every parent (a thought's latency)."""
        found: list[int] = []
        for node in self.nodes:
            found.append(1 + max(found[each] for each in node.parents) if node.parents else 0)
        return found

    def record(self) -> dict[str, Any]:
        """Plain values; ``Tree.read`` makes an equal tree of them. A log-prob of minus infinity is null."""
        return {
            "format": FORMAT, "version": VERSION, "method": self.method, "settings": plain(self.settings),
            "sources": dict(self.sources), "facts": plain(self.facts), "budget": self.budget,
            "nodes": [_noted(node) for node in self.nodes],
        }  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all."""
        text = json.dumps(self.record(), ensure_ascii=False, allow_nan=False)
        write_atomically(Path(path), text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tree that ``save`` wrote. DataError: no such file, no JSON, no tree, a damaged one (which node, why)."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError("tree.no-file", file=path) from None
        except (OSError, ValueError) as error:  # a folder, no UTF-8, no JSON
            raise DataError("tree.not-json", file=path, reason=error) from None
        return cls.read(record, file=path)

    @classmethod
    def read(cls, record: Any, *, file: object = "-") -> Self:
        """The tree of a record. DataError when it is none, or damaged; ``file`` is named there."""
        if not isinstance(record, Mapping) or record.get("format") != FORMAT:
            raise DataError("tree.not-a-tree", file=file)
        if record.get("version") != VERSION:
            raise DataError("tree.other-version", file=file, version=record.get("version"), known=VERSION)
        where = "nodes"
        try:
            tree = cls(_typed(record, "method", str), "", _typed(record, "settings", dict),
                       sources=_typed(record, "sources", dict))  # fmt: skip
            tree.facts = plain(_typed(record, "facts", dict))
            tree._budget = _budget(_typed(record, "budget", dict))
            tree.nodes.clear()
            for number, noted in enumerate(_typed(record, "nodes", list)):
                where = f"node {number}"
                tree.nodes.append(_node(noted, number))
            if not tree.nodes:
                raise ValueError("there is no root")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DataError("tree.damaged", file=file, where=where, reason=reason) from None
        return tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.record() == other.record()

    __hash__ = None  # type: ignore[assignment]


def plain(value: Any) -> Any:
    """``value`` as JSON would give it back: tuples are lists, keys strings; a float that is no number is None.

    TypeError for what JSON cannot hold.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no plain value")


def _fault(node: Node, number: int) -> str | None:
    """Why this cannot be node ``number``, or None."""
    if any(not 0 <= parent < number for parent in node.parents) or (not node.parents and number):
        return f"parents {list(node.parents)} do not stand before it"
    if node.kind not in get_args(Kind):
        return f"kind {node.kind!r}"
    if node.state not in get_args(State):
        return f"state {node.state!r}"
    if any(id < 0 for id in node.ids):
        return f"token id {min(node.ids)}"
    for name, given in (("logprobs", node.logprobs), ("sampled_logprobs", node.sampled_logprobs)):
        if given and len(given) != len(node.ids):
            return f"{len(given)} {name} of {len(node.ids)} tokens"
        if any(math.isnan(one) or one > 1e-4 for one in given):  # f32 rounding may pass 0 a little
            return f"{name} {given}"
    return None


def _noted(node: Node) -> dict[str, Any]:
    return {
        "parents": list(node.parents), "kind": node.kind, "state": node.state, "text": node.text, "ids": list(node.ids),
        "logprobs": [None if one == -math.inf else one for one in node.logprobs],
        "sampled_logprobs": [None if one == -math.inf else one for one in node.sampled_logprobs],
        "facts": plain(node.facts),
    }  # fmt: skip


def _node(noted: Any, number: int) -> Node:
    if not isinstance(noted, Mapping):
        raise TypeError("no object")
    lists = {name: _typed(noted, name, list) for name in ("parents", "ids", "logprobs", "sampled_logprobs")}
    if any(type(each) is not int for name in ("parents", "ids") for each in lists[name]):
        raise TypeError("a parent or a token id is no whole number")
    floats = {
        name: [-math.inf if one is None else float(one) for one in lists[name]]
        for name in ("logprobs", "sampled_logprobs")
    }
    node = Node(
        tuple(lists["parents"]), lists["ids"], _typed(noted, "text", str), **floats,
        kind=_typed(noted, "kind", str), state=_typed(noted, "state", str), facts=plain(_typed(noted, "facts", dict)),
    )  # fmt: skip
    if fault := _fault(node, number):
        raise ValueError(fault)
    return node


def _typed(record: Mapping[str, Any], name: str, kind: type) -> Any:
    value = record[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}"[:80])
    return value


def _budget(noted: Mapping[str, Any]) -> Budget:
    budget = Budget(**noted)
    if any(type(each) is not int or each < 0 for each in asdict(budget).values()):
        raise ValueError(f"budget {dict(noted)}")
    return budget
