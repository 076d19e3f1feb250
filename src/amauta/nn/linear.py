"""torch's linear layer and embedding without first weights of their own: those come from ``nn/init.py`` or a file, and
drawing them twice would cost a large model seconds at every load."""

from torch import nn


class Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Leave the memory as it is."""
