"""What samplers and beams do, written down as a tree while they do it.

A recorder is handed every choice. What several samples of one prompt have in common is one way in the tree, with a
count. Nothing is computed twice but the probabilities that are shown.
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from amauta.decode.tree.tree import State, Tree

if TYPE_CHECKING:
    from torch import Tensor

MOST = 10  # alternatives of a step, and tokens of a filter, that are kept
TokenBytes = Callable[[int], bytes]
Piece = Callable[[int], str]


class Choice(Protocol):
    """One token of one row: the logits that the model gave, those after each filter, and what came of it."""

    row: int
    logits: "Tensor"  # (V,)
    stages: Sequence[tuple[str, "Tensor"]]  # (filter, logits (V,) after it)
    id: int
    logprob: float
    sampled_logprob: float


class Beams(Protocol):
    """One step of one prompt's search: the continuations that were looked at, and what became of each.

    ``parents`` counts the running beams; those that are kept are the running beams of the next step, in their order.
    """

    parents: list[int]
    ids: list[int]
    logprobs: list[float]  # under the model
    scores: list[float]
    states: "Sequence[State]"
    groups: list[int]
    logits: "list[Tensor]"  # of each running beam (V,); none: alternatives are not recorded
    stages: "list[list[tuple[str, Tensor]]]"


class Hypothesis(Protocol):
    """A continuation that a search returned."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def score(self) -> float: ...
    @property
    def finish(self) -> str: ...


class Written(Protocol):
    """A whole continuation, as ``LanguageModel.generate`` gives it."""

    tokens: list[int]
    logprobs: list[float]
    sampled_logprobs: list[float]
    finish: str


class Grower:
    """Adds tokens to a tree: the text that each makes certain, and a name where it has none.

    ``token_bytes`` and ``piece`` are the tokenizer's: what a token stands for, and how it is shown to a reader.
    Without them a token's number is shown.
    """

    def __init__(self, tree: Tree, token_bytes: TokenBytes | None = None, piece: Piece | None = None) -> None:
        self.tree = tree
        self.bytes = token_bytes
        self.piece = piece or (_shown(token_bytes) if token_bytes else str)
        self._ways: dict[tuple[int, int], int] = {}  # (parent, id) -> child
        self._held: dict[int, bytes] = {}  # node -> bytes of a character that is not whole

    def grow(self, parent: int, id: int, logprob: float, sampled_logprob: float | None = None, **more: Any) -> int:
        """The new node of token ``id`` below ``parent``; ``more`` as ``Tree.add`` takes it."""
        text, held = whole(self._held.get(parent, b""), self.bytes(id) if self.bytes else b"")
        shown = self.piece(id)
        if shown != text:
            more["piece"] = shown
        drawn = () if sampled_logprob is None else (sampled_logprob,)
        node = self.tree.add(parent, (id,), text, (logprob,), drawn, **more)
        self._held[node] = held
        self._ways[parent, id] = node
        return node

    def node(self, ids: Sequence[int]) -> int:
        """Where a way of tokens from the root ends."""
        node = 0
        for id in ids:
            node = self._ways[node, id]
        return node

    def follow(
        self, parent: int, id: int, logprob: float, sampled_logprob: float, facts: Callable[[], dict[str, Any]] = dict
    ) -> int:
        """One more sample goes this way: the node there is counted, or a new one is made with ``facts``."""
        node = self._ways.get((parent, id))
        if node is None:
            node = self.grow(parent, id, logprob, sampled_logprob, state="kept", samples=1, **facts())
        else:
            self.tree.set(node, samples=self.tree.nodes[node].facts["samples"] + 1)
            self.tree.spend(generated=1)
        return node


class SampleRecorder:
    """The watcher of a sampler whose rows all continue the tree's prompt."""

    def __init__(
        self, tree: Tree, token_bytes: TokenBytes | None = None, piece: Piece | None = None, *, most: int = MOST
    ) -> None:
        self._grower = Grower(tree, token_bytes, piece)
        self._most = most
        self.ends: dict[int, int] = {}  # row -> the last node of its way

    def __call__(self, choice: Choice) -> None:
        tree, row = self._grower.tree, choice.row
        if row not in self.ends:
            tree.spend(read=len(tree.nodes[0].ids), calls=1)
        self.ends[row] = self._grower.follow(
            self.ends.get(row, 0), choice.id, choice.logprob, choice.sampled_logprob,
            lambda: seen(choice.logits, choice.stages, (choice.id,), self._grower.piece, self._most),
        )  # fmt: skip

    def end(self, finishes: Mapping[int, str]) -> None:
        """All rows have ended, each for its reason. A single one is the answer; of several somebody else chooses."""
        for row, finish in finishes.items():
            if row in self.ends:
                self._grower.tree.set(self.ends[row], "finished", finish=finish)
        if len(self.ends) == 1:
            self._grower.tree.choose(*self.ends.values())


def add_samples(
    tree: Tree, samples: Sequence[Written], token_bytes: TokenBytes | None = None, piece: Piece | None = None
) -> list[int]:
    """Continuations of the tree's prompt that are there already: the last node of each, in their order.

    The budget grows by their tokens, not by the reading of the prompt.
    """
    grower = Grower(tree, token_bytes, piece)
    ends: list[int] = []
    for sample in samples:
        node = 0
        for id, logprob, drawn in zip(sample.tokens, sample.logprobs, sample.sampled_logprobs, strict=True):
            node = grower.follow(node, id, logprob, drawn)
        if node:
            tree.set(node, "finished", finish=sample.finish)
        ends.append(node)
    return ends


class BeamRecorder:
    """The watcher of a search: the history of one prompt's beams. The budget counts those that go on or end, not those
    that were only looked at."""

    def __init__(
        self, tree: Tree, token_bytes: TokenBytes | None = None, piece: Piece | None = None, *, most: int = MOST
    ) -> None:
        self._grower = Grower(tree, token_bytes, piece)
        self._most = most
        self._beams = [0]  # the node of each running beam

    def __call__(self, beams: Beams) -> None:
        tree, grower = self._grower.tree, self._grower
        tree.spend(calls=1, read=len(tree.nodes[0].ids) if self._beams == [0] else 0)
        taken: dict[int, list[int]] = {}
        for parent, id in zip(beams.parents, beams.ids, strict=True):
            taken.setdefault(parent, []).append(id)
        views = {
            parent: seen(beams.logits[parent], beams.stages[parent], ids, grower.piece, self._most)
            for parent, ids in taken.items()
            if parent < len(beams.logits)
        }
        running: list[int] = []
        several = len(set(beams.groups)) > 1
        for parent, id, logprob, score, state, group in zip(
            beams.parents, beams.ids, beams.logprobs, beams.scores, beams.states, beams.groups, strict=True
        ):
            node = grower.grow(
                self._beams[parent], id, logprob, state=state, cost=0 if state == "dropped" else 1,
                score=score, **({"group": group} if several else {}), **views.get(parent, {}),
            )  # fmt: skip
            if state == "kept":
                running.append(node)
        self._beams = running

    def end(self, found: Sequence[Hypothesis]) -> None:
        """What the search returned, best first: the best is the answer. A node's score becomes what ranked it."""
        ends = [self._grower.node(one.ids) for one in found]
        for rank, (node, one) in enumerate(zip(ends, found, strict=True), start=1):
            self._grower.tree.set(node, "finished", score=one.score, finish=one.finish, rank=rank)
        if ends:
            self._grower.tree.choose(ends[0])


def seen(
    logits: "Tensor", stages: Sequence[tuple[str, "Tensor"]], taken: Sequence[int], piece: Piece, most: int = MOST
) -> dict[str, Any]:
    """The facts of a step that the page shows, of (V,) logits: alternatives, what each filter removed, entropy (nats).

    The alternatives are those likeliest under the model or after the filters, and those that were ``taken``. The mass
    that a filter removed is that under the distribution which it was given.
    """
    model = logits.double().softmax(-1)  # (V,)
    drawn = stages[-1][1].double().softmax(-1) if stages else model
    best: list[int] = model.maximum(drawn).topk(min(most, len(model))).indices.tolist()
    shown = sorted({*best, *taken}, key=lambda id: (-float(model[id]), id))
    removed: dict[str, Any] = {}
    before = logits
    for name, after in stages:
        gone = (after.isneginf() & ~before.isneginf()).nonzero()[:, 0]
        p = before.double().softmax(-1)[gone]
        order = p.topk(min(most, len(p))).indices
        tokens = [[id, piece(id), _short(one)] for id, one in zip(gone[order].tolist(), p[order].tolist(), strict=True)]
        removed[name] = {"count": len(gone), "mass": _short(float(p.sum())), "tokens": tokens}
        before = after
    return {
        "alternatives": [[id, piece(id), _short(float(model[id])), _short(float(drawn[id]))] for id in shown],
        "removed": removed,
        "entropy": _short(-float(model.xlogy(model).sum())),
    }


def whole(held: bytes, new: bytes) -> tuple[str, bytes]:
    """The characters that are whole after ``held`` and ``new``, and the bytes of one that is not."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.setstate((held, 0))
    text = decoder.decode(new)
    return text, decoder.getstate()[0]


def _shown(token_bytes: TokenBytes) -> Piece:
    return lambda id: token_bytes(id).decode("utf-8", errors="backslashreplace")


def _short(p: float) -> float:
    """Six digits: enough for a bar, and a third of the file."""
    return float(f"{p:.6g}")
