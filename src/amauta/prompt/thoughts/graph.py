"""Graph of thoughts (Besta et al. 2023, arXiv 2308.09687): a plan of operations whose thoughts may be merged.

The operations make a DAG, and so do the thoughts. Thoughts that answer the same part of the question compete; a merged
one answers the parts of all that it was made from. A thought's volume is the number of thoughts that could have
influenced it, the question included; its latency the longest way from the question to it (section 6: a chain of n
thoughts has n of both). Differences from the paper: a question is split by the task's program, not by the model;
improving keeps what it began with, so nothing gets worse; the plan is fixed before it runs.
"""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from amauta.prompt.outcome import Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Prompt
from amauta.prompt.thoughts.plan import Operation, Parted, parted_of
from amauta.prompt.thoughts.steps import lines_of
from amauta.prompt.thoughts.thinking import Thinking

Key: TypeAlias = tuple[int, ...]  # the parts of the question that a thought answers


class Graph:
    """A plan at work on one example. ``keys``: what each thought answers; the root stands for the whole question."""

    def __init__(self, thinking: Thinking, parted: Parted) -> None:
        self.thinking, self.parted, self.tree = thinking, parted, thinking.tree
        self.parts = [thinking.example.question]
        self.keys: dict[int, Key] = {0: (0,)}

    def run(self, plan: Sequence[Operation]) -> list[list[int]]:
        """The thoughts that each operation gave. ValueError for an operation that comes before what it works on."""
        given: list[list[int]] = []
        for place, operation in enumerate(plan):
            before = operation.after if operation.after is not None else (place - 1,) if place else ()
            if any(not 0 <= each < place for each in before):
                raise ValueError(f"operation {place} works on {before}")
            taken = list(dict.fromkeys(node for each in before for node in given[each])) if before else [0]
            given.append(WORK[operation.kind](self, taken, operation))
        return given

    def best(self, given: Sequence[Sequence[int]]) -> int | None:
        """The best answer of the whole question out of the last operation that gave one."""
        for nodes in reversed(given):
            whole = [node for node in nodes if node and self.keys[node] == self.keys[0] and self._answered(node)]
            if whole:
                return max(whole, key=self.score)
        return None

    def score(self, node: int) -> float:
        """What a thought was judged to be worth; the lowest for one that was not."""
        found = self.tree.nodes[node].facts.get("score")
        return -math.inf if found is None else found

    def question(self, key: Key) -> str:
        """What thoughts of this key are answers to."""
        return self.parts[key[0]] if len(key) == 1 else self.parted.joined([self.parts[part] for part in key])

    def groups(self, nodes: Sequence[int]) -> list[tuple[Key, list[int]]]:
        """Thoughts by the parts that they answer, in the order of the question."""
        ordered = sorted(nodes, key=self.keys.__getitem__)
        return [(key, list(group)) for key, group in groupby(ordered, key=self.keys.__getitem__)]

    def make(self, sources: Sequence[Sequence[int]], prompts: Sequence[Prompt], operation: Operation) -> list[int]:
        """``count`` new thoughts for each prompt, each made from the thoughts of its source; those with an answer."""
        requests = self.thinking.requests
        many = requests.ask(
            prompts, samples=operation.count, max_tokens=requests.longest, until="solution", thoughts=True
        )
        found: list[int] = []
        for source, made in zip(sources, many, strict=False):
            for each in source:
                self.tree.set(each, "kept")
            key = tuple(sorted({part for node in source for part in self.keys[node]}))
            for one in made:
                text = self.parted.read(one.text)
                node = requests.think(
                    source[0], one.text if text is None else text, parents=source[1:], operation=operation.kind,
                    ids=one.tokens, logprobs=one.logprobs, sampled_logprobs=one.sampled_logprobs,
                    given=requests.read(one),
                )  # fmt: skip
                assert node is not None  # no more were asked for than there was room for
                self.keys[node] = key
                if text is None:
                    self.thinking.unread += 1
                    self.tree.set(node, "dropped", unread=True)
                else:
                    found.append(node)
        return found

    def _answered(self, node: int) -> bool:
        return self.tree.nodes[node].facts.get("operation") != "split"


def graph_of_thoughts(model: Any, task: Task, example: Example, prompting: Prompting) -> Outcome:
    """The answer of the best thought about the whole question; ``facts``: its score, volume and latency."""
    thinking = Thinking("got", model, task, example, prompting, prompting.thoughts)
    graph, tree = Graph(thinking, parted_of(task)), thinking.tree
    best = graph.best(graph.run(graph.parted.plan(prompting.thoughts)))
    facts: dict[str, Any] = {"unread": thinking.unread, "unclear": thinking.unclear}
    if best is None:
        return thinking.requests.outcome(None, "", **facts)
    made_from = tree.ancestors(best)
    for node in (best, *(made_from - {0})):
        tree.set(node, "chosen")
    facts |= {"score": tree.nodes[best].facts.get("score"), "volume": len(made_from), "latency": tree.depths()[best]}
    text = tree.nodes[best].text
    return thinking.requests.outcome(task.extract(text), text, **facts)


def _split(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    graph.parts = graph.parted.split(graph.parts[0], operation.count)
    graph.keys[0] = tuple(range(len(graph.parts)))
    found: list[int] = []
    for place, part in enumerate(graph.parts):
        node = graph.tree.add(0, (), part, kind="operation", operation="split")
        graph.keys[node] = (place,)
        found.append(node)
    return found


def _generate(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    prompts = [graph.parted.solve(graph.question(graph.keys[node])) for node in taken]
    return graph.make([[node] for node in taken], prompts, operation)


def _aggregate(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    groups = graph.groups(taken)
    together = operation.together or max(1, len(groups))
    passed: list[int] = []
    sources: list[list[int]] = []
    for start in range(0, len(groups), together):
        chunk = groups[start : start + together]
        nodes = [node for _, group in chunk for node in group]
        if len(chunk) == 1 and operation.together:  # an odd one out: there is nothing to merge it with
            passed += nodes
        else:
            sources.append(nodes)
    prompts: list[Prompt] = []
    for source in sources:
        key = tuple(sorted({part for node in source for part in graph.keys[node]}))
        prompts.append(graph.parted.merge(graph.question(key), [graph.tree.nodes[node].text for node in source]))
    return graph.make(sources, prompts, operation) + passed


def _improve(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    prompts = [graph.parted.improve(graph.question(graph.keys[node]), graph.tree.nodes[node].text) for node in taken]
    return [*taken, *graph.make([[node] for node in taken], prompts, operation)]


def _score(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    texts = [graph.tree.nodes[node].text for node in taken]
    if graph.parted.score is not None:
        for node, text in zip(taken, texts, strict=True):
            graph.tree.set(node, score=graph.parted.score(graph.question(graph.keys[node]), text))
    else:
        thinking = graph.thinking
        prompts = [thinking.steps.value(thinking.example, tuple(lines_of(text))) for text in texts]
        for node, judged in zip(taken, thinking.judge(prompts), strict=True):
            if judged is not None:
                graph.tree.set(node, score=judged[0], judgements=judged[1])
    return list(taken)


def _keep_best(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    found: list[int] = []
    for _, group in graph.groups(taken):
        ranked = sorted(group, key=lambda node: -graph.score(node))  # of equal ones the earlier
        found += ranked[: operation.count]
        for node in ranked[operation.count :]:
            graph.tree.set(node, "dropped")
    return found


def _validate(graph: Graph, taken: Sequence[int], operation: Operation) -> list[int]:
    valid = [
        node for node in taken if graph.parted.valid(graph.question(graph.keys[node]), graph.tree.nodes[node].text)
    ]
    for node in set(taken) - set(valid):
        graph.tree.set(node, "dropped", invalid=True)
    return valid


WORK: dict[str, Callable[[Graph, Sequence[int], Operation], list[int]]] = {
    "split": _split, "generate": _generate, "aggregate": _aggregate, "improve": _improve, "score": _score,
    "keep-best": _keep_best, "validate": _validate,
}  # fmt: skip
