"""Axial position embeddings (Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451, section 4; Ho et al. 2019,
arXiv 1912.12180): positions lie in a grid of n₁ rows and n₂ columns, and a position is its row's vector beside its
column's, so n₁·n₂ positions cost n₁·D₁ + n₂·D₂ numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AxialPositions(nn.Module):
    """``forward(positions) → (B, T, D₁ + D₂)``; position p stands in row p // n₂ and column p mod n₂."""

    def __init__(self, shape: tuple[int, int], widths: tuple[int, int]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(shape[0], 1, widths[0]))
        self.columns = nn.Parameter(torch.empty(1, shape[1], widths[1]))

    def forward(self, positions: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        n = self.columns.shape[1]
        row = F.embedding(positions // n, self.rows[:, 0])
        column = F.embedding(positions % n, self.columns[0])
        return torch.cat((row, column), dim=-1)
