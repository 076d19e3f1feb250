"""The questions of one search to its model: drawn by seeds of their own, counted, and none beyond what may be spent."""

from collections.abc import Sequence
from typing import Any, Literal

from amauta.decode.settings import Sampling
from amauta.decode.tree.tree import Tree
from amauta.prompt.asking import ended, stops
from amauta.prompt.budget import fit
from amauta.prompt.outcome import Meter, Outcome
from amauta.prompt.settings import Prompting
from amauta.prompt.template import Prompt, wants_chat
from amauta.prompt.thoughts.settings import Limits

TEMPERATURE = 0.7  # of thoughts and of judgements, where the user gives none (Yao et al. 2023, section 4)

Until = Literal["line", "answer", "solution"]


class Requests:
    """``spent`` is true from when something was left undone because of the limits; ``dropped`` counts demonstrations
    that had to go so that a prompt fits the context.

    Everything that is generated and read is counted into the tree's budget here, so nodes are added at no cost.
    """

    def __init__(self, model: Any, prompting: Prompting, limits: Limits, tree: Tree) -> None:
        self.model, self.tree, self.limits = model, tree, limits
        self.spent = False
        self.thoughts = self.dropped = 0
        self._chat = wants_chat(model, prompting.layout)
        self._meter = Meter(model)
        self._read: dict[int, tuple[Any, list[int]]] = {}
        self._drawn = prompting.drawn(temperature=TEMPERATURE)
        self._seed = self._drawn.pop("seed", 0)
        self._stops = tuple(self._drawn.pop("stop", ()))
        self.longest: int = self._drawn.pop("max_tokens", Sampling.max_tokens)  # tokens of a whole solution

    def ask(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int = 1,
        max_tokens: int,
        until: Until,
        thoughts: bool = False,
    ) -> list[list[Any]]:
        """``samples`` Generations of each prompt; fewer, and of fewer prompts, once the limits leave no room for more.

        ``until`` the line ends, an answer of one paragraph, or a solution of several; in a chat the model ends the last
        two itself. ``thoughts``: each will be a thought of the tree. No two requests of a search have the same seed.
        """
        if not prompts:
            return []
        fitted = [fit(self.model, prompt, max_tokens, chat=self._chat) for prompt in prompts]
        self.dropped += sum(one.dropped for one in fitted)
        ids = [one.ids for one in fitted]
        requests = [row for row in ids for _ in range(samples)]
        room = self._room(max_tokens, thoughts)
        if room is not None and room < len(requests):
            self.spent, requests = True, requests[:room]
        made = self._meter.generate(
            requests, **self._drawn, max_tokens=max_tokens, stop=(*self._stops, *self._ends(prompts[0], until)),
            seed=self._seed + self._meter.calls,
        )  # fmt: skip
        self.tree.spend(
            generated=sum(len(one.tokens) for one in made), read=sum(one.prompt_tokens for one in made), calls=len(made)
        )
        self._read |= {id(one): (one, row) for one, row in zip(made, requests, strict=True)}
        return [made[i : i + samples] for i in range(0, len(made), samples)]

    def read(self, one: Any) -> list[int] | None:
        """The ids that the model read before it wrote ``one``, which a replay of the tree reads again; None for what
        was joined of two answers."""
        return self._read.get(id(one), (None, None))[1]

    def think(self, parent: int, text: str, **given: Any) -> int | None:
        """A thought below ``parent``, and its number; None when no more thoughts may be had. ``given``: of Tree.add."""
        most = self.limits.most_thoughts
        if most is not None and self.thoughts >= most:
            self.spent = True
            return None
        self.thoughts += 1
        return self.tree.add(parent, given.pop("ids", ()), text, kind="thought", cost=0, **given)

    def outcome(self, answer: str | None, text: str, **facts: Any) -> Outcome:
        """What was answered, and all that was spent on it."""
        return self._meter.outcome(
            answer, text, self.tree,
            parsed=answer is not None, thoughts=self.thoughts, spent=self.spent, dropped=self.dropped, **facts,
        )  # fmt: skip

    def _ends(self, prompt: Prompt, until: Until) -> tuple[str, ...]:
        if until == "line":
            return ("\n",)
        if until == "answer" or self._chat:
            return stops(prompt.template, chat=self._chat)
        return ended(prompt)

    def _room(self, longest: int, thoughts: bool) -> int | None:
        """Requests of ``longest`` tokens that may still be sent; None for any number."""
        rooms: list[int] = []
        if self.limits.most_calls is not None:
            rooms.append(self.limits.most_calls - self._meter.calls)
        if self.limits.most_tokens is not None:
            rooms.append((self.limits.most_tokens - self._meter.generated) // longest)
        if thoughts and self.limits.most_thoughts is not None:
            rooms.append(self.limits.most_thoughts - self.thoughts)
        return max(0, min(rooms)) if rooms else None
