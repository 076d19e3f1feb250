"""Answers that can all be listed: with a few tokens and a short length, what is elsewhere estimated is a sum.

A ``Space`` holds X prompts and the N answers that each of them may get. A distribution over answers is a tensor of
log-probs (X, N); a model whose logits are free at every place is a table (X, S, V), S being the states in which an
answer may stand before its next token. ``TabularModel`` is such a table with the interface of a transformer, so the
steps of training, the scorer and the sampler run on it unchanged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amauta.data.batches import Batch, Listed, Piece, collate
from amauta.losses.divergence import kl
from amauta.models.spec import Spec
from amauta.score import batch_logprobs
from amauta.worlds.world import World


@dataclass(frozen=True)
class Space:
    """All answers of at most ``length`` tokens out of ``vocabulary``. An answer ends with the token ``end`` or, cut
    off, at ``length`` tokens without it. No prompt may begin another prompt, nor an answer to one lead into it."""

    prompts: tuple[tuple[int, ...], ...]  # X, all of one length
    vocabulary: int  # V
    length: int
    end: int

    def __post_init__(self) -> None:
        assert len({len(prompt) for prompt in self.prompts}) == 1 and len(set(self.prompts)) == len(self.prompts)
        assert all(0 <= id < self.vocabulary for id in (self.end, *(id for ids in self.prompts for id in ids)))

    @cached_property
    def states(self) -> tuple[tuple[int, ...], ...]:
        """What an answer may have come to before its next token, the shortest first: S."""
        words = [id for id in range(self.vocabulary) if id != self.end]
        found: list[tuple[int, ...]] = [()]
        for _ in range(self.length - 1):
            found += [(*state, id) for state in found if len(state) == len(found[-1]) for id in words]
        return tuple(found)

    @cached_property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """Every answer, the end token included where there is one: N, the shortest first."""
        last = self.length - 1
        return tuple(
            (*state, id)
            for state in self.states
            for id in range(self.vocabulary)
            if id == self.end or len(state) == last
        )

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each answer, (N,)."""
        return torch.tensor([len(answer) for answer in self.answers])

    @cached_property
    def paths(self) -> tuple[Tensor, Tensor, Tensor]:
        """The state before each token of each answer, the token, and True where there is one: (N, length) each."""
        number = {state: i for i, state in enumerate(self.states)}
        shape = (len(self.answers), self.length)
        at, tokens = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.bool)
        for i, answer in enumerate(self.answers):
            for t, id in enumerate(answer):
                at[i, t], tokens[i, t], mask[i, t] = number[answer[:t]], id, True
        return at, tokens, mask

    # -- between a table and the distribution over answers

    def logprobs(self, table: Tensor) -> Tensor:
        """Log-probs of all answers under logits (X, S, V): (X, N) nats. Differentiable."""
        return self.along(table.log_softmax(-1)).sum(-1)

    def along(self, table: Tensor) -> Tensor:
        """Of values (X, S, V) those that stand along each answer: (X, N, length), 0 after its end."""
        at, tokens, mask = self.paths
        return torch.where(mask, table[:, at, tokens], 0.0)

    def table(self, logprobs: Tensor) -> Tensor:
        """The log-probs of next tokens (X, S, V) that make the answers so likely, (X, N)."""
        at, tokens, mask = self.paths
        passing = torch.zeros(logprobs.shape[0], len(self.states), self.vocabulary, dtype=logprobs.dtype)
        for t in range(self.length):
            here = mask[:, t]
            passing.index_put_(
                (torch.arange(len(passing))[:, None], at[here, t][None], tokens[here, t][None]),
                logprobs[:, here].exp(), accumulate=True,
            )  # fmt: skip
        passing = passing.clamp(min=1e-300 if logprobs.dtype == torch.float64 else 1e-37)
        return (passing / passing.sum(-1, keepdim=True)).log()

    def expected_after(self, logprobs: Tensor, reward: Tensor) -> Tensor:
        """Q: what a distribution (X, N) may expect of rewards (X, N) after each token in each state, (X, S, V)."""
        table, rest = self.table(logprobs), self.length
        quality = torch.zeros_like(table)
        at, tokens, _ = self.paths
        last = self.lengths - 1
        rows = torch.arange(len(self.answers))
        quality[:, at[rows, last], tokens[rows, last]] = reward
        number = {state: i for i, state in enumerate(self.states)}
        for s in reversed(range(len(self.states))):
            for id in range(self.vocabulary):
                if (after := number.get((*self.states[s], id))) is not None and len(self.states[s]) < rest - 1:
                    quality[:, s, id] = (table[:, after].exp() * quality[:, after]).sum(-1)
        return quality

    # -- models, batches, worlds

    def piece(self, prompt: int, answer: int) -> Piece:
        """A prompt and its answer as they are packed for training, with a loss on the answer."""
        before, after = self.prompts[prompt], self.answers[answer]
        return Piece(np.array([*before, *after]), np.arange(1, len(before) + len(after)) >= len(before))

    def model_logprobs(self, model: Any) -> Tensor:
        """Log-probs of all answers under any model with the interface of a transformer, (X, N) f32. Differentiable."""
        pieces = [(self.piece(x, i),) for x in range(len(self.prompts)) for i in range(len(self.answers))]
        batch = packed(pieces, 1).to(model.device)
        return batch_logprobs(model, batch).sum(1).view(len(self.prompts), len(self.answers))

    def world(self, prompt: int, reward: Tensor, gamma: float = 1.0) -> World:
        """Answering as a world: a state is what was written, an action a token, and the reward (N,) comes at the end.

        The last state is the end."""
        count = len(self.states)
        following = torch.full((count + 1, self.vocabulary), count)
        rewards = torch.zeros(following.shape, dtype=torch.float64)
        number = {state: i for i, state in enumerate(self.states)}
        for i, answer in enumerate(self.answers):
            rewards[number[answer[:-1]], answer[-1]] = reward[i]
        for state, i in number.items():
            if state:
                following[number[state[:-1]], state[-1]] = i
        return World(following, rewards, torch.arange(count + 1) == count, torch.tensor([0]), gamma)


def packed(units: Sequence[Sequence[Piece]], a_row: int) -> Batch:
    """One batch of all units, so many of them side by side in a row."""
    listed = Listed(units)
    rows = [list(range(start, min(start + a_row, len(units)))) for start in range(0, len(units), a_row)]
    return collate(listed, rows, max(int(listed.lengths[row].sum()) for row in rows))


# -- what is exact


def log_partition(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """``log Z(x) = log sum_y ref(y|x) e^(r(x,y)/β)``: two (X, N) → (X,). β log Z is the best value that can be had."""
    return (ref + reward / beta).logsumexp(-1)


def optimum(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """``log π*``, of the policy that maximises ``E r - β KL(π || ref)``: ``ref e^(r/β) / Z``, (X, N)
    (Rafailov et al. 2023, arXiv 2305.18290, eq. 4)."""
    return ref + reward / beta - log_partition(ref, reward, beta)[:, None]


def objective(logprobs: Tensor, ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """``E r - β KL(π || ref)`` of each prompt, (X,). Differentiable: its gradient is the exact policy gradient."""
    return (logprobs.exp() * reward).sum(-1) - (beta * kl(logprobs, ref) if beta else 0.0)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Half the sum of differences, in [0, 1]: how much probability stands elsewhere, (X, N), (X, N) → (X,)."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


# -- a table as a model

NOWHERE, ROOT = 0, 1


class Walk(nn.Module):
    """A row of values for each state of each prompt, found by walking the ids of a packed row token by token."""

    steps: Tensor  # (nodes, V): the node that a token leads to

    def __init__(self, space: Space, table: Tensor) -> None:
        """``table`` (X, S, W)."""
        super().__init__()
        self.space = space
        self.table = nn.Parameter(table.detach().clone().float())
        nodes: dict[tuple[int, ...], int] = {(): ROOT}
        for prompt in space.prompts:
            for t in range(1, len(prompt)):
                nodes.setdefault(prompt[:t], len(nodes) + ROOT)
        self.first = len(nodes) + ROOT  # the node of the first prompt whole, with nothing answered
        for prompt in space.prompts:
            for state in space.states:
                nodes[*prompt, *state] = len(nodes) + ROOT
        steps = torch.full((len(nodes) + ROOT, space.vocabulary), NOWHERE)
        for text, node in nodes.items():
            if text:
                steps[nodes[text[:-1]], text[-1]] = node
        self.register_buffer("steps", steps)

    @property
    def device(self) -> torch.device:
        return self.table.device

    def forward(self, ids: Tensor, *, positions: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """(B, T) → (B, T, W): the values after each token, 0 inside a prompt and beyond an answer."""
        begins = torch.zeros_like(ids, dtype=torch.bool) if positions is None else positions == 0
        node, found = torch.full_like(ids[:, 0], ROOT), list[Tensor]()
        for t in range(ids.shape[1]):
            node = self.steps[torch.where(begins[:, t], ROOT, node), ids[:, t]]
            found.append(node)
        width = self.table.shape[-1]
        rows = torch.cat((self.table.new_zeros(self.first, width), self.table.reshape(-1, width)))
        return rows[torch.stack(found, 1)]

    @torch.no_grad()
    def place(self, table: Tensor) -> None:
        """Take these values for those that there are."""
        self.table.copy_(table)

    def compiled(self) -> "Walk":
        return self

    def packed_rows(self) -> dict[Tensor, tuple[int, ...]]:
        return {}


class TabularModel(Walk):
    """A language model whose logits are free in every state: it can be any distribution over the answers, exactly."""

    writes, caches = True, False

    def __init__(self, space: Space, table: Tensor | None = None) -> None:
        """``table`` (X, S, V) are logits; every token alike when left out."""
        shape = (len(space.prompts), len(space.states), space.vocabulary)
        super().__init__(space, torch.zeros(shape) if table is None else table)
        context = len(space.prompts[0]) + space.length
        self.spec = Spec(vocabulary=space.vocabulary, context=context, width=space.vocabulary, layers=1, heads=1,
                         positions="learned")  # fmt: skip
        self.register_buffer("output_table", torch.eye(space.vocabulary))  # hidden states are the logits
        self.output_bias = None

    def output_states(self, hidden: Tensor) -> Tensor:
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


class TabularCritic(Walk):
    """What is expected in every state, as a critic of policy optimisation."""

    def __init__(self, space: Space) -> None:
        super().__init__(space, torch.zeros(len(space.prompts), len(space.states), 1))

    def logits(self, hidden: Tensor, *, output: str | None = None) -> Tensor:
        return hidden[..., 0]


def sample(logprobs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` answers to each prompt, drawn from (X, N): (X, count)."""
    return torch.multinomial(logprobs.exp().double(), count, replacement=True, generator=generator)


def groups_of(answers: int, size: int) -> tuple[Tensor, Tensor]:
    """Every group of ``size`` answers out of N without regard to order, (M, size), and in how many orders each may be
    drawn, (M,) f64: what a group is expected to teach is a sum over these."""
    found = torch.tensor(list(combinations_with_replacement(range(answers), size)))
    counts = torch.stack([(found == answer).sum(1) for answer in range(answers)], 1)  # (M, N)
    ways = math.factorial(size) / torch.tensor([math.prod(map(math.factorial, row)) for row in counts.tolist()])
    return found, ways.double()
