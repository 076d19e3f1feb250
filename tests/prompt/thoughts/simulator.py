"""A search space without a model: each state has ``branching`` new ones of known worth; what was asked is counted."""

from collections.abc import Callable, Sequence

from amauta.decode.tree.tree import Tree


class Space:
    """``worth(path)`` is the value of the state reached by those choices; ``most`` states may be made."""

    def __init__(self, branching: int, worth: Callable[[tuple[int, ...]], float], most: int | None = None) -> None:
        self.branching, self.worth, self.most = branching, worth, most
        self.tree = Tree("simulated", "", {})
        self.paths: dict[int, tuple[int, ...]] = {0: ()}
        self.made, self.judged = 0, 0
        self.expanded: list[tuple[int, ...]] = []

    def expand(self, states: Sequence[int]) -> list[int]:
        found: list[int] = []
        for state in states:
            self.expanded.append(self.paths[state])
            for choice in range(self.branching):
                if self.spent():
                    return found
                node = self.tree.add(state, (), str(choice), kind="thought")
                self.paths[node] = (*self.paths[state], choice)
                self.made += 1
                found.append(node)
        return found

    def evaluate(self, states: Sequence[int]) -> dict[int, float]:
        self.judged += len(states)
        return {state: self.worth(self.paths[state]) for state in states}

    def spent(self) -> bool:
        return self.most is not None and self.made >= self.most

    def state(self, path: tuple[int, ...]) -> str:
        return next(self.tree.nodes[node].state for node, each in self.paths.items() if each == path)
