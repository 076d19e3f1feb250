"""One token for each row of a batch, and what a request comes to token by token.

Each row gets in a batch what it gets alone: its settings, its constraint and its random numbers are its own.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.base.seeds import derive
from amauta.decode.constrain.constraint import Constraint, constrained
from amauta.decode.feed import check_ids, context_of
from amauta.decode.filters.filters import apply_filters
from amauta.decode.settings import Sampling, prompt_room
from amauta.decode.stop import TextStream

# stop: the model ended; stop-string: a stop text came; length: max_tokens; context: the model's context is full;
# time: its seconds are over; cancelled: whoever listened to the stream went away; failed: see its error
Finish = Literal["stop", "stop-string", "length", "context", "time", "cancelled", "failed"]


@dataclass(frozen=True)
class Step:
    """One token of one row. ``text`` is what became certain with it ("" without a tokenizer)."""

    row: int
    id: int
    logprob: float  # nats, under the model
    sampled_logprob: float  # nats, under the filtered distribution; 0 for a greedy choice
    text: str
    finish: Finish | None  # set on a row's last step
    error: ModelError | None = None  # of a row that failed; then there is no token


@dataclass(frozen=True)
class Choice:
    """How one token was chosen, for those who watch."""

    row: int
    logits: Tensor  # (V,), the model's
    stages: tuple[tuple[str, Tensor], ...]  # the logits (V,) after the constraint and after each filter that ran
    id: int
    logprob: float
    sampled_logprob: float


@dataclass
class Generated:
    """The continuation of one prompt; ``ids`` includes the stop token and tokens of a stop text."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: Finish = "length"
    error: ModelError | None = None
    dropped: int = 0  # tokens cut from the prompt
    seconds: float = 0.0  # from the call to this row's last token, prefill included

    def add(self, step: Step) -> None:
        """One more step of this row."""
        self.text += step.text
        if step.finish is not None:
            self.finish, self.error = step.finish, step.error
        if step.error is None:
            self.ids.append(step.id)
            self.logprobs.append(step.logprob)
            self.sampled_logprobs.append(step.sampled_logprob)


class Row:
    """What one request has come to: its ids, its own random numbers, its text."""

    def __init__(
        self,
        number: int,
        prompt: list[int],
        settings: Sampling,
        token_bytes: Callable[[int], bytes] | None = None,
        stop_ids: Collection[int] = (),
        constraint: Constraint | None = None,
        limit: int | None = None,
    ) -> None:
        """``limit``: the most ids that can be read (the context); ``stop_ids``: the model's, besides the settings'."""
        if settings.stop and token_bytes is None:
            raise ValueError("stop texts need token_bytes")
        self.number, self.ids, self.prompt_length = number, list(prompt), len(prompt)
        self.settings = settings.resolved(stop_ids=stop_ids)
        self.left, self.limit, self.constraint = settings.max_tokens, limit, constraint
        self.random = torch.Generator().manual_seed(derive(settings.seed, "sample"))
        self.text = TextStream(token_bytes, settings.stop) if token_bytes else None
        self.deadline: float | None = None
        self.priority = self.dropped = 0

    def take(self, id: int, logprob: float, sampled_logprob: float) -> Step:
        """The row goes on with this token."""
        self.ids.append(id)
        self.left -= 1
        ended = id in self.settings.stop_ids
        text = self.text.push(id) if self.text and not ended else ""
        if self.constraint is not None:
            self.constraint.take(id)
        finish: Finish | None = None
        if ended or (self.constraint is not None and self.constraint.finished):
            finish = "stop"
        elif self.text and self.text.stopped:
            finish = "stop-string"
        elif self.left == 0:
            finish = "length"
        elif self.limit and len(self.ids) > self.limit:  # this token has no place to be read from
            finish = "context"
        elif self.deadline is not None and time.perf_counter() > self.deadline:
            finish = "time"
        if finish and self.text:
            text += self.text.close()
        return Step(self.number, id, logprob, sampled_logprob, text, finish)

    def fail(self, error: ModelError) -> Step:
        """The row ends without another token."""
        return Step(self.number, -1, 0.0, 0.0, self.text.close() if self.text else "", "failed", error)


def choose(
    logits: Tensor, rows: Sequence[Row], watch: Callable[[Choice], object] | None = None
) -> list[tuple[int, float, float]]:
    """One token a row from (B, V) f32 logits: (id, log-prob under the model, log-prob under what was drawn from).

    Drawing inverts the cumulative distribution at one uniform number a row, in f64: exact to 2^-53, and each row's
    numbers come from its own generator, so neither the batch nor the device changes what a seed gives. ModelError, and
    no number drawn, where some row's logits are not finite or nothing may follow.
    """
    check_finite(logits)
    settings = [row.settings for row in rows]
    stages: list[tuple[str, Tensor]] | None = None if watch is None else []
    filtered, faults = constrained(logits, [row.constraint for row in rows])
    for fault in faults.values():
        raise fault
    if stages is not None and filtered is not logits:
        stages.append(("constraint", filtered))
    filtered = apply_filters(
        filtered, [row.ids for row in rows], settings, prompt_lengths=[row.prompt_length for row in rows], trace=stages
    )
    greedy = torch.tensor([one.temperature == 0 for one in settings], device=logits.device)
    ids = filtered.argmax(-1)
    drawing = not all(one.temperature == 0 for one in settings)
    if drawing:
        uniform = torch.stack([torch.rand((), generator=row.random, dtype=torch.float64) for row in rows])
        ids = torch.where(greedy, ids, invert(filtered, uniform))
    at = ids.unsqueeze(-1)  # (B, 1)
    under_model = (logits.gather(-1, at) - logits.logsumexp(-1, keepdim=True))[:, 0]
    sampled = torch.zeros_like(under_model)  # a greedy choice is certain
    if drawing:
        sampled = (filtered.gather(-1, at) - filtered.logsumexp(-1, keepdim=True))[:, 0].masked_fill(greedy, 0.0)
    found = list(zip(ids.tolist(), under_model.tolist(), sampled.tolist(), strict=True))
    if watch is not None and stages is not None:
        for i, (row, one) in enumerate(zip(rows, found, strict=True)):
            watch(Choice(row.number, logits[i], tuple((name, after[i]) for name, after in stages), *one))
    return found


def advance(logits: Tensor, rows: Sequence[Row], watch: Callable[[Choice], object] | None = None) -> list[Step]:
    """A token for each row from (B, V) logits; where the choice fails for some row, that one alone fails."""
    try:
        chosen = choose(logits, rows, watch)
    except ModelError as error:
        if len(rows) == 1:
            return [rows[0].fail(error)]
        return [step for i, row in enumerate(rows) for step in advance(logits[i : i + 1], [row], watch)]
    return [row.take(*one) for row, one in zip(rows, chosen, strict=True)]


def invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative softmax of (B, V) passes ``uniform`` (B,) in [0, 1): (B,)."""
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no f64
    mass = logits.to(exact).softmax(-1).cumsum(-1)  # (B, V)
    total = mass[:, -1:]
    found = torch.searchsorted(mass, uniform.to(mass).unsqueeze(-1) * total, right=True)
    last = torch.searchsorted(mass, total.contiguous())  # the last token that has mass: rounding stays within
    return torch.minimum(found, last)[:, 0]


def fit(
    model: Any, prompts: Sequence[Sequence[int]], settings: Sequence[Sampling]
) -> tuple[list[list[int]], list[int]]:
    """The prompts, and how many tokens were cut from each.

    Where ``truncate`` is "left" and prompt and answer exceed the context, the first token (the begin token) and the
    newest ones stay. Raises ModelError for an id that the model does not know, an empty prompt, or a prompt beyond the
    context when nothing may be cut.
    """
    check_ids(model, prompts)
    context = context_of(model)
    fitted, dropped = [], []
    for number, (prompt, one) in enumerate(zip(prompts, settings, strict=True), start=1):
        if not prompt:
            raise ModelError("decode.empty-prompt", number=number, count=len(prompts))
        room = prompt_room(one, context) if context and one.truncate == "left" else context
        over = max(0, len(prompt) - room) if room else 0
        if over and one.truncate == "error":
            raise ModelError(
                "decode.prompt-too-long", number=number, count=len(prompts), length=len(prompt), context=context
            )
        fitted.append([prompt[0], *prompt[over + 1 :]] if over else list(prompt))
        dropped.append(over)
    return fitted, dropped


def check_finite(logits: Tensor) -> None:
    """NaN would be chosen silently, or kill the process on an accelerator."""
    bad = ~logits.amax(-1).isfinite()  # (B,)
    if bool(bad.any()):
        raise ModelError("decode.not-finite", number=int(bad.nonzero()[0, 0]) + 1, count=len(logits))
