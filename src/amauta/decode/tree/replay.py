"""A recorded tree, computed again: by the model that is said to have written it, or by a second run."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amauta.decode.feed import check_ids
from amauta.decode.tree.tree import Node, Tree


@dataclass(frozen=True)
class Replayed:
    """Log-probs computed again, one list a node (empty where the record has none), and how far off the record is.

    ``token``: the largest difference of a token's log-prob, at ``node`` (None: nothing differs at all). ``path``: the
    largest difference of a path's. ``tokens`` were compared; ``skipped`` nodes hold no log-probs, or nothing says what
    the model had read before them.
    """

    logprobs: list[list[float]]
    token: float
    node: int | None
    path: float
    tokens: int
    skipped: int


@torch.inference_mode()
def replay(tree: Tree, model: Any, *, encode: Callable[[Any], Sequence[int]] | None = None) -> Replayed:
    """Every log-prob of the tree again, each sequence read whole and without a cache.

    ``model``: what a feed takes (a network, an n-gram). ``encode``: the ids of a prompt that the tree holds as text
    (the fact ``given`` of a thought, a root without ids). Raises ModelError for an id that the model does not know.
    """
    contexts = _contexts(tree, encode)
    wanted = {  # node -> all that is read before its last token, its own tokens but that one included
        number: (*context, *node.ids[:-1])
        for number, (node, context) in enumerate(zip(tree.nodes, contexts, strict=True))
        if node.logprobs and context
    }
    check_ids(model, [(*row, tree.nodes[number].ids[-1]) for number, row in wanted.items()])
    found: list[list[float]] = [[] for _ in tree.nodes]
    source = tree.facts.get("source")
    training = getattr(model, "training", False)
    if training:
        model.eval()
    try:
        for row, numbers in _rows(wanted):
            for number, logprobs in _read(
                model, row, [(n, tree.nodes[n], len(contexts[n] or ())) for n in numbers], source
            ):
                found[number] = logprobs
    finally:
        if training:
            model.train()
    skipped = sum(1 for number in range(1, len(tree.nodes)) if number not in wanted)
    return _compared(tree, found, skipped)


def _compared(tree: Tree, found: list[list[float]], skipped: int) -> Replayed:
    off = [
        max((apart(one, other) for one, other in zip(node.logprobs, again, strict=True)), default=0.0) if again else 0.0
        for node, again in zip(tree.nodes, found, strict=True)
    ]
    sums: list[tuple[float, float]] = []  # of each path: recorded, computed again
    for node, again in zip(tree.nodes, found, strict=True):
        before = sums[node.parents[0]] if node.parents else (0.0, 0.0)
        own = math.fsum(again) if again else node.logprob
        sums.append((before[0] + node.logprob, before[1] + own))
    worst = max(range(len(off)), key=off.__getitem__)
    return Replayed(
        found, off[worst], worst if off[worst] else None, max(apart(*both) for both in sums),
        sum(map(len, found)), skipped,
    )  # fmt: skip


def apart(one: float, other: float) -> float:
    """The distance of two log-probs; 0 between two of minus infinity."""
    return 0.0 if one == other else abs(one - other)


def _contexts(tree: Tree, encode: Callable[[Any], Sequence[int]] | None) -> list[list[int] | None]:
    """The ids that the model had read before each node; None where the tree does not say."""
    before: list[list[int] | None] = []
    after: list[list[int] | None] = []  # and with the node's own
    for node in tree.nodes:
        own: Sequence[int] | None = node.ids
        known: Sequence[int] | None = None
        if not node.parents:
            known = ()
            own = own or (encode(node.text) if encode is not None and node.text else None)
        elif "given" not in node.facts:
            known = after[node.parents[0]]
        elif isinstance(given := node.facts["given"], list) and all(isinstance(id, int) for id in given):
            known = given
        elif given is not None and encode is not None:
            known = encode(given)
        before.append(None if known is None else [*known])
        after.append(None if known is None or own is None else [*known, *own])
    return before


def _rows(wanted: dict[int, tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """The longest of the wanted rows, each with the nodes whose rows begin it: the model reads no beginning twice.

    In falling order a row comes after those that go on from it, so the one before it tells whether it begins any.
    """
    row: tuple[int, ...] = ()
    numbers: list[int] = []
    for number in sorted(wanted, key=lambda number: wanted[number], reverse=True):
        if row[: len(wanted[number])] != wanted[number]:
            if numbers:
                yield row, numbers
            row, numbers = wanted[number], []
        numbers.append(number)
    if numbers:
        yield row, numbers


def _read(
    model: Any, row: Sequence[int], nodes: Sequence[tuple[int, Node, int]], source: Sequence[int] | None
) -> Iterator[tuple[int, list[float]]]:
    """The log-probs of nodes whose tokens follow places of one row; each node with the length of what stands before."""
    places = sorted({start + at - 1 for _, node, start in nodes for at in range(len(node.ids))})
    logprobs = _next(model, row, places, source)  # (places, V)
    at = {place: index for index, place in enumerate(places)}
    for number, node, start in nodes:
        yield number, [float(logprobs[at[start + i - 1], id]) for i, id in enumerate(node.ids)]


def _next(model: Any, row: Sequence[int], places: Sequence[int], source: Sequence[int] | None) -> Tensor:
    """Log-probs of what follows each of the ``places`` of a row, (places, V) f32."""
    if not isinstance(model, torch.nn.Module):
        return torch.stack([torch.as_tensor(model.next_logprobs(list(row[: place + 1]))).float() for place in places])
    network: Any = model  # whose logits and whose call are not a plain Module's
    device = next(network.parameters()).device
    ids = torch.tensor([list(row)], device=device)
    if source is None:
        hidden = network(ids)  # (1, T, D)
    else:
        hidden = network(torch.tensor([list(source)], device=device), decoder_ids=ids)
    return network.logits(hidden[0, places]).float().log_softmax(-1).cpu()


def answers(tree: Tree) -> Counter[tuple[int, ...]]:
    """The tokens of each answer of a tree of tokens, and how often it came: of several samples all, of a search the
    chosen one."""
    found: Counter[tuple[int, ...]] = Counter()
    children = tree.children()
    for number, node in enumerate(tree.nodes):
        onward = sum(tree.nodes[child].facts.get("samples", 0) for child in children[number])
        if node.facts.get("samples", 0) > onward:
            found[tuple(_tokens(tree, number))] += node.facts["samples"] - onward
    if not found:
        chosen = [number for number, node in enumerate(tree.nodes) if node.state == "chosen" and node.ids]
        found.update(tuple(_tokens(tree, number)) for number in chosen[-1:])
    return found


def _tokens(tree: Tree, number: int) -> list[int]:
    return [id for each in tree.path(number)[1:] for id in tree.nodes[each].ids]
