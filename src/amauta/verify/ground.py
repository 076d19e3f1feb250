"""What every method is checked on: two prompts with seven answers each, a reference, rewards, and pairs.

Rewards are ``log`` of whole strengths, so Bradley-Terry's chances are fractions, and every pair stands in the data
exactly as often as its chance says: nothing about the population is sampled.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from amauta.base.seeds import derive
from amauta.data.batches import Piece
from amauta.verify.settings import Oracle
from amauta.worlds.enumerable import Space, optimum

SPACE = Space(prompts=((0,), (1,)), vocabulary=3, length=2, end=2)
STRENGTHS = (
    (3, 1, 2, 6, 4, 5, 7),
    (2, 4, 6, 7, 1, 3, 5),
)  # of each prompt's answers; the best ends by itself


@dataclass(frozen=True)
class Ground:
    """Distributions over answers are (X, N) log-probs, f64."""

    settings: Oracle
    space: Space = SPACE

    @cached_property
    def reward(self) -> Tensor:
        return torch.tensor(STRENGTHS, dtype=torch.float64).log()

    @cached_property
    def ref_table(self) -> Tensor:
        """The reference, (X, S, V) log-probs of next tokens: no answer is likely, none is rare."""
        return (0.6 * self._noise("reference")).log_softmax(-1)

    @cached_property
    def ref(self) -> Tensor:
        return self.space.logprobs(self.ref_table)

    @cached_property
    def point(self) -> Tensor:
        """A policy near the reference, (X, S, V), at which gradients are measured."""
        return (self.ref_table + 0.5 * self._noise("point")).log_softmax(-1)

    @cached_property
    def best(self) -> Tensor:
        """The optimum of ``E r - β KL``: what DPO and reinforcement learning must both come to."""
        return optimum(self.ref, self.reward, self.settings.beta)

    @cached_property
    def pairs(self) -> Tensor:
        """Prompt, chosen and rejected answer of every pair of the data, (P, 3)."""
        found: list[tuple[int, int, int]] = []
        for x, strengths in enumerate(STRENGTHS):
            for i, a in enumerate(strengths):
                for j, b in enumerate(strengths):
                    found += [(x, i, j)] * (a // math.gcd(a, b) if i != j else 0)
        return torch.tensor(found)

    @cached_property
    def shares(self) -> Tensor:
        """The share of the data in which answer i was chosen over j, (X, N, N); they sum to 1."""
        found = torch.zeros(*self.reward.shape, self.reward.shape[1], dtype=torch.float64)
        x, i, j = self.pairs.T
        ones = torch.full(x.shape, 1 / len(x), dtype=torch.float64)
        return found.index_put((x, i, j), ones, accumulate=True)

    @cached_property
    def units(self) -> list[tuple[Piece, Piece]]:
        """The pairs as they are packed for training."""
        return [(self.space.piece(x, i), self.space.piece(x, j)) for x, i, j in self.pairs.tolist()]

    def of_pairs(self, values: Tensor) -> Tensor:
        """Of values of answers (X, N) those of both answers of each pair, (P, 2) f32."""
        x, i, j = self.pairs.T
        return torch.stack((values[x, i], values[x, j]), 1).float()

    def _noise(self, purpose: str) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.settings.seed, purpose))
        shape = (len(self.space.prompts), len(self.space.states), self.space.vocabulary)
        return torch.randn(shape, generator=generator, dtype=torch.float64)
