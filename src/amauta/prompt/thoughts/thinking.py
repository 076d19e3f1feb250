"""Thoughts about one example, in its tree: what may come next after a state, what a state is worth, how it may end.

A state is a node of the tree; its path of steps stands above it. The searches (``tree``, ``montecarlo``) only ever see
the numbers of nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from amauta.config import to_dict
from amauta.decode.tree.tree import Tree
from amauta.prompt.settings import Prompting
from amauta.prompt.task import Example, Task
from amauta.prompt.template import Prompt
from amauta.prompt.thoughts.requests import Requests
from amauta.prompt.thoughts.settings import Limits
from amauta.prompt.thoughts.steps import HIGHEST, Path, begun, steps_of, value_of, vote_of

Judgement: TypeAlias = tuple[float, tuple[str, ...]]  # the mean worth, and what was said


@dataclass(frozen=True)
class Solution:
    """A whole solution that was sampled after a state: its steps after it, its answer, and its place in the tree."""

    node: int
    steps: Path
    answer: str | None
    tokens: int


class Thinking:
    """``unread`` counts texts in which no step stood, ``unclear`` judgements without a verdict."""

    def __init__(
        self,
        method: str,
        model: Any,
        task: Task,
        example: Example,
        prompting: Prompting,
        limits: Limits,
    ) -> None:
        self.task, self.example, self.settings = task, example, prompting.thoughts
        self.steps = steps_of(task)
        self.tree = Tree(method, example.question, to_dict(limits), task=task.name, model=model.name)
        self.requests = Requests(model, prompting, limits, self.tree)
        self.unread = self.unclear = 0
        self._judged: dict[Prompt, Judgement] = {}

    @property
    def depth(self) -> int:
        """Most steps of a solution."""
        return self.settings.depth or self.steps.depth

    def path(self, node: int) -> Path:
        """The steps that lead to a state."""
        return tuple(self.tree.text(node).splitlines())

    def finished(self, node: int) -> bool:
        """Whether a state is a whole solution."""
        return self.steps.finished(self.example, self.path(node))

    def answer(self, node: int) -> str | None:
        """The answer that a state gives."""
        return self.steps.answer(self.example, self.path(node))

    def spent(self) -> bool:
        """Whether the limits have left something undone."""
        return self.requests.spent

    def sample(self, states: Sequence[int]) -> list[int]:
        """New states, ``branching`` samples of the next step after each of ``states``; the usable ones.

        A sample without a step, and one that repeats its sibling, stands in the tree too, dropped.
        """
        prompts = [self.steps.solve(self.example, self.path(state)) for state in states]
        many = self._next_lines(prompts)
        found: list[int] = []
        for state, made in zip(states, many, strict=False):
            seen: set[str] = set()
            for one in made:
                step = next(iter(self.steps.read(one.text)), None)
                node = self.requests.think(
                    state, f"{one.text.strip() if step is None else step}\n",
                    ids=one.tokens, logprobs=one.logprobs, sampled_logprobs=one.sampled_logprobs,
                    given=self.requests.read(one),
                )  # fmt: skip
                if node is not None and self._usable(node, step, seen):
                    found.append(node)
        return found

    def propose(self, states: Sequence[int]) -> list[int]:
        """New states, the first ``branching`` different next steps that one answer proposes after each of ``states``.

        The answer itself stands in the tree as an operation, with its tokens; the steps below its state name it.
        """
        prompts = [self.steps.propose(self.example, self.path(state)) for state in states]
        longest = self.settings.thought_tokens * self.settings.branching
        found: list[int] = []
        for state, [one] in zip(states, self.requests.ask(prompts, max_tokens=longest, until="answer"), strict=False):
            said = self.tree.add(
                state, one.tokens, one.text, one.logprobs, one.sampled_logprobs,
                kind="operation", state="dropped", cost=0, operation="propose", given=self.requests.read(one),
            )  # fmt: skip
            steps = list(dict.fromkeys(self.steps.read(one.text)))
            self.unread += not steps
            for step in steps[: self.settings.branching]:
                node = self.requests.think(state, f"{step}\n", proposed_in=said)
                if node is not None:
                    found.append(node)
        return found

    def value(self, states: Sequence[int]) -> dict[int, float]:
        """What each state is worth: sure 20, likely 1, impossible .001, unclear 0; the mean of ``judgements`` samples.

        States that the limits left no sample for are missing.
        """
        prompts = [self.steps.value(self.example, self.path(state)) for state in states]
        found: dict[int, float] = {}
        for state, judged in zip(states, self.judge(prompts), strict=True):
            if judged is not None:
                found[state] = judged[0]
                self.tree.set(state, value=judged[0], judgements=judged[1])
        return found

    def judge(self, prompts: Sequence[Prompt]) -> list[Judgement | None]:
        """What ``judgements`` samples tell of each prompt; the same prompt is judged once in a search."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._judged]
        many = self.requests.ask(
            new, samples=self.settings.judgements, max_tokens=self.settings.judgement_tokens, until="answer"
        )
        for prompt, made in zip(new, many, strict=False):
            worths = [value_of(one.text) for one in made]
            self.unclear += worths.count(None)
            mean = sum(worth or 0.0 for worth in worths) / len(worths)
            self._judged[prompt] = mean, tuple(one.text.strip() for one in made)
        return [self._judged.get(prompt) for prompt in prompts]

    def vote(self, states: Sequence[int]) -> dict[int, float]:
        """The share of ``judgements`` votes that each state gets; nothing where the limits left no vote."""
        if len(states) < 2:  # nothing to choose from
            found = dict.fromkeys(states, 1.0)
        else:
            prompt = self.steps.vote(self.example, [self.path(state) for state in states])
            rows = self.requests.ask(
                [prompt], samples=self.settings.judgements, max_tokens=self.settings.judgement_tokens, until="answer"
            )
            votes = [vote_of(one.text, len(states)) for one in (rows[0] if rows else ())]
            self.unclear += votes.count(None)
            found = {state: votes.count(place) / len(votes) for place, state in enumerate(states) if votes}
        for state, value in found.items():
            self.tree.set(state, value=value)
        return found

    def solve(self, state: int, count: int = 1) -> list[Solution]:
        """``count`` whole solutions sampled after a state; fewer where the limits leave no room."""
        path = self.path(state)
        prompt = self.steps.solve(self.example, path)
        found: list[Solution] = []
        rows = self.requests.ask([prompt], samples=count, max_tokens=self.requests.longest, until="solution")
        for one in rows[0] if rows else ():
            steps = self.whole((*path, *self.steps.read(one.text)))[len(path) :]
            answer = self.steps.answer(self.example, (*path, *steps))
            node = self.tree.add(
                state, one.tokens, begun(steps), one.logprobs, one.sampled_logprobs,
                kind="answer", state="finished", cost=0, answer=answer, given=self.requests.read(one),
            )  # fmt: skip
            found.append(Solution(node, steps, answer, len(one.tokens)))
        return found

    def whole(self, path: Path) -> Path:
        """A path up to where it is a whole solution: what a model writes after its answer is no step of it."""
        ends = (n for n in range(len(path) + 1) if self.steps.finished(self.example, path[:n]))
        return path[: next(ends, len(path))]

    def worth(self, solution: Solution) -> float | None:
        """What the model itself says that a whole solution is worth, from 0 to 1; None where the limits forbid it."""
        found = self.value([solution.node]).get(solution.node)
        return None if found is None else found / HIGHEST

    def _next_lines(self, prompts: Sequence[Prompt]) -> list[list[Any]]:
        """``branching`` samples of the line after each prompt.

        A model that puts a blank line between its steps would give nothing else: each such sample goes on after it.
        """
        longest = self.settings.thought_tokens
        many = self.requests.ask(
            prompts, samples=self.settings.branching, max_tokens=longest, until="line", thoughts=True
        )
        blank = [
            (row, place) for row, made in enumerate(many) for place, one in enumerate(made)
            if not one.text.strip() and one.finish == "stop-string"
        ]  # fmt: skip
        asked = [prompts[row].asked for row, _ in blank]
        after = [
            replace(prompts[row], asked=replace(one, answer=f"{one.answer}\n"))
            for (row, _), one in zip(blank, asked, strict=True)
        ]
        for (row, place), made in zip(blank, self.requests.ask(after, max_tokens=longest, until="line"), strict=False):
            many[row][place] = _joined(many[row][place], made[0])
        return many

    def _usable(self, node: int, step: str | None, seen: set[str]) -> bool:
        if step is None:
            self.unread += 1
            self.tree.set(node, "dropped", unread=True)
            return False
        if step in seen:
            self.tree.set(node, "dropped", repeated=True)
            return False
        seen.add(step)
        return True


def _joined(first: Any, then: Any) -> Any:
    """Two Generations, the second of which went on from the first, as one."""
    return replace(
        then, tokens=[*first.tokens, *then.tokens], logprobs=[*first.logprobs, *then.logprobs],
        sampled_logprobs=[*first.sampled_logprobs, *then.sampled_logprobs],
    )  # fmt: skip
