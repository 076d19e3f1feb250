"""What one prompt asks of a search, the paths that continue it, and what comes back."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amauta.base.errors import ModelError
from amauta.decode.sample import Finish
from amauta.decode.settings import Sampling
from amauta.decode.stop import TextStream
from amauta.decode.tree.recording import whole

if TYPE_CHECKING:
    from amauta.decode.constrain.constraint import Constraint


@dataclass(frozen=True)
class Hypothesis:
    """One continuation that was found; ``ids`` includes the stop token and the tokens of a stop text."""

    ids: list[int]
    logprobs: list[float]  # nats, under the model itself
    score: float  # what the search ranks by
    finish: Finish
    text: str = ""
    dropped: int = 0  # tokens cut from the prompt
    error: ModelError | None = None  # of a prompt that failed on its way: then this is all that there is of it


@dataclass(eq=False)
class Path:
    """A continuation that may still grow."""

    history: list[int]  # the prompt and what follows it
    logprobs: list[float] = field(default_factory=list)  # of what follows, under the model itself
    score: float = 0.0  # the sum that the search compares
    row: int = 0  # of the model's feed: where the history was read
    tail: tuple[str, bytes] = ("", b"")  # the end of its text, and the bytes of a character that is not whole
    constraint: "Constraint | None" = None
    noise: float = 0.0  # of stochastic beams: the perturbed log-prob


class Request:
    """One prompt, its settings (resolved: all stop ids are in them), and when a continuation of it has ended."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        settings: Sampling,
        *,
        token_bytes: Callable[[int], bytes] | None,
        context: int | None,
        count: int = 1,
        dropped: int = 0,
        constraint: "Constraint | None" = None,
    ) -> None:
        if settings.stop and token_bytes is None:
            raise ValueError("stop texts need token_bytes")
        TextStream(token_bytes or bytes, settings.stop)  # an empty stop text is refused here
        self.number, self.count, self.settings, self.dropped = number, count, settings, dropped
        self.stop_ids, self.token_bytes = frozenset(settings.stop_ids), token_bytes
        self.prompt = list(prompt)
        self.root = Path(self.prompt, row=number, constraint=constraint)
        room = None if context is None else context - len(prompt) + 1  # the last token is not read
        self.limit = settings.max_tokens if room is None else min(settings.max_tokens, room)
        self._longest = max(map(len, settings.stop), default=1) - 1

    def follow(self, path: Path, id: int, score: float, logprob: float) -> tuple[Path, Finish | None]:
        """``path`` with one more token, and why it ends there, if it does. The reasons are those of ``sample``."""
        tail, stopped = path.tail, False
        if self.settings.stop and self.token_bytes:
            new, held = whole(path.tail[1], self.token_bytes(id))
            text = path.tail[0] + new
            stopped = any(stop in text for stop in self.settings.stop)
            tail = (text[-self._longest :] if self._longest else "", held)
        constraint = path.constraint
        if constraint is not None and id not in self.stop_ids:
            constraint = constraint.copy()
            constraint.take(id)
        logprobs = [*path.logprobs, logprob]
        finish: Finish | None = None
        if id in self.stop_ids or (constraint is not None and constraint.finished):
            finish = "stop"
        elif stopped:
            finish = "stop-string"
        elif len(logprobs) == self.limit:
            finish = "length" if self.limit == self.settings.max_tokens else "context"
        return Path([*path.history, id], logprobs, score, path.row, tail, constraint), finish

    def hypothesis(self, path: Path, score: float, finish: Finish) -> Hypothesis:
        """``path`` as it is returned, with its text."""
        ids = path.history[len(self.prompt) :]
        text = ""
        if self.token_bytes is not None:
            shown = TextStream(self.token_bytes, self.settings.stop)
            for id in ids[:-1] if ids[-1] in self.stop_ids else ids:
                shown.push(id)
            shown.close()
            text = shown.text
        return Hypothesis(ids, path.logprobs, score, finish, text, self.dropped)

    def failed(self, error: ModelError) -> list[Hypothesis]:
        """What is returned of a prompt that failed."""
        return [Hypothesis([], [], -math.inf, "failed", dropped=self.dropped, error=error)]
