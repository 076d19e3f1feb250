"""Tree of thoughts (Yao et al. 2023, arXiv 2305.10601): make several next steps, judge the states, go on from the best.

``breadth_first`` (their algorithm 1) and ``depth_first`` (algorithm 2) know nothing of a model: a state is the number
of a node, ``expand`` makes new ones after some states and ``evaluate`` tells what they are worth. Differences from the
paper: a state that is a whole solution takes none of the ``breadth`` places and is kept aside; of siblings that say the
same only the first is judged; the answer is read from the best state's steps instead of being generated once more;
depth-first search stops at the first ``solutions`` whole solutions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from amauta.decode.tree.tree import Tree
from amauta.prompt.outcome import Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.thoughts.thinking import Thinking

Expand: TypeAlias = Callable[[Sequence[int]], list[int]]
Evaluate: TypeAlias = Callable[[Sequence[int]], dict[int, float]]
Told: TypeAlias = Callable[[int], bool]


def tree_of_thoughts(model: Any, task: Task, example: Example, prompting: Prompting) -> Outcome:
    """The answer of the best state; ``facts["value"]`` is what it was judged to be worth."""
    settings = prompting.thoughts
    thinking = Thinking("tot", model, task, example, prompting, settings)
    expand = thinking.sample if settings.generate == "sample" else thinking.propose
    evaluate = thinking.value if settings.evaluate == "value" else thinking.vote
    search: Any = partial(breadth_first, breadth=settings.breadth)
    if settings.search == "dfs":
        search = partial(
            depth_first, threshold=settings.threshold, visits=settings.visits, solutions=settings.solutions
        )
    found = search(
        thinking.tree, expand, evaluate, thinking.finished, depth=thinking.depth, spent=thinking.spent
    )  # fmt: skip
    best = found[0] if found else 0
    thinking.tree.choose(best)
    return thinking.requests.outcome(
        thinking.answer(best), thinking.tree.text(best),
        value=thinking.tree.nodes[best].facts.get("value"), unread=thinking.unread, unclear=thinking.unclear,
    )  # fmt: skip


def breadth_first(
    tree: Tree,
    expand: Expand,
    evaluate: Evaluate,
    finished: Told,
    *,
    breadth: int,
    depth: int,
    spent: Callable[[], bool],
) -> list[int]:
    """The states that the search ended with, the best first: whole solutions, then those of the last depth.

    At each of ``depth`` levels all kept states are expanded, all new ones judged, and the best ``breadth`` kept; of
    equal ones the earlier. With k new states each and nothing finished early, k + (depth - 1) breadth k are made (k at
    least ``breadth``).
    """
    values: dict[int, float] = {}
    kept, done = [0], list[int]()
    for _ in range(depth):
        made = expand(kept)
        values |= evaluate(made)
        ranked = sorted((node for node in made if node in values), key=lambda node: -values[node])
        if not ranked:
            break
        ended = [node for node in ranked if finished(node)]
        going = [node for node in ranked if node not in ended]
        kept, done = going[:breadth], done + ended
        for node in made:
            tree.set(node, "finished" if node in ended else "kept" if node in kept else "dropped")
        if not kept or spent():
            break
    return sorted(done, key=lambda node: -values[node]) + [node for node in kept if node]


def depth_first(
    tree: Tree,
    expand: Expand,
    evaluate: Evaluate,
    finished: Told,
    *,
    depth: int,
    threshold: float,
    visits: int,
    solutions: int,
    spent: Callable[[], bool],
) -> list[int]:
    """The states that were not given up, the best first: whole solutions that were visited, then the deepest.

    The best of a state's new states is visited first, and all below it before the next best; those worth ``threshold``
    or less never are. Ends at ``solutions`` whole solutions or at ``visits`` states visited, the root included.
    """
    values: dict[int, float] = {}
    levels, done, visited = {0: 0}, list[int](), 0
    todo = [0]
    while todo and visited < visits and len(done) < solutions and not spent():
        node = todo.pop()
        visited += 1
        tree.set(node, "kept", step=visited)
        if finished(node):
            tree.set(node, "finished")
            done.append(node)
            continue
        if levels[node] == depth:
            continue
        made = expand([node])
        found = evaluate(made)
        going = [each for each in made if found.get(each, 0.0) > threshold]
        for each in made:
            levels[each] = levels[node] + 1
            if each not in going:
                tree.set(each, "dropped")
        values |= {each: found[each] for each in going}
        todo += sorted(going, key=lambda each: -found[each])[::-1]  # the best on top; of equal ones the earlier
    rest = [node for node in values if node not in done]
    rank = {node: (-levels[node], -values[node]) for node in values}
    return sorted(done, key=lambda node: -values[node]) + sorted(rest, key=rank.__getitem__)
