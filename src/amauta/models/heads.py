"""What is computed from hidden states: logits over the vocabulary, a sequence's class, a number for each token."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.base.errors import ModelError
from amauta.base.names import one_of
from amauta.models.spec import Pooling, Spec
from amauta.nn.feedforward import ACTIVATIONS
from amauta.nn.linear import Linear
from amauta.nn.norms import norm

POOLED = ("classifier", "pair")
TABLED = ("language", "masked")


class Table(nn.Module):
    """Hidden states to logits over the vocabulary: ``states(hidden) · tableᵀ + bias``.

    ``masked`` has a layer before the table, dense, activation and norm (Devlin et al. 2019, arXiv 1810.04805), and a
    bias. A tied table is the embedding's own.
    """

    def __init__(self, spec: Spec, *, masked: bool) -> None:
        super().__init__()
        width = spec.states
        self.activation = ACTIVATIONS[spec.activation]
        self.scale = spec.output_scale
        self.dense = Linear(width, spec.embedded) if masked else None
        self.norm = norm(spec.norm, spec.embedded, spec.norm_eps) if masked else None
        self.table = None if spec.tied else Linear(spec.embedded if masked else width, spec.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(spec.vocabulary)) if masked or spec.output_bias else None

    def states(self, hidden: Tensor) -> Tensor:
        """What is multiplied by the table."""
        if self.dense is not None and self.norm is not None:
            return self.norm(self.activation(self.dense(hidden)))
        return hidden if self.scale == 1.0 else hidden * self.scale


class Detector(nn.Module):
    """One number a token: was it replaced? (Clark et al. 2020, arXiv 2003.10555)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[spec.activation]
        self.dense = Linear(spec.states, spec.width)
        self.out = Linear(spec.width, 1)

    def forward(self, hidden: Tensor) -> Tensor:  # (B, T, D) -> (B, T)
        return self.out(self.activation(self.dense(hidden))).squeeze(-1)


class Outputs(nn.Module):
    """The outputs that the spec names, and what they share: the pooler."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        D = spec.states
        self.pooler = Linear(D, spec.width) if spec.pooler != "none" else None
        for name in spec.outputs:
            self.add_module(name, _made(spec, name))
        sentence = spec.sentence
        self.sentence = Linear(D, sentence.dense) if sentence is not None and sentence.dense else None

    def table(self) -> Table:
        """The first output over the vocabulary; ModelError where there is none."""
        for name in self.spec.outputs:
            if name in TABLED:
                return getattr(self, name)
        raise ModelError("model.no-table", outputs=", ".join(self.spec.outputs) or "-")

    def named(self, name: str | None) -> str:
        """The output called ``name``, or the model's own; ModelError where it has none, or not that one."""
        if not self.spec.outputs:
            raise ModelError("model.no-output")
        if name is not None and name not in self.spec.outputs:
            raise ModelError("model.other-output", name=name, hint=one_of(name, self.spec.outputs))
        return name or self.spec.outputs[0]

    def pooled(self, hidden: Tensor, real: Tensor | None) -> Tensor:  # (B, T, D) -> (B, D)
        """The state that stands for each sequence, through the pooler where there is one."""
        x = pool(hidden, real, self.spec.pooling)
        if self.pooler is None:
            return x
        x = F.dropout(x, self.spec.pooler_dropout, self.training)
        return {"tanh": torch.tanh, "gelu": F.gelu, "relu": F.relu}[self.spec.pooler](self.pooler(x))

    def classified(self, pooled: Tensor) -> Tensor:  # (B, D) -> (B, labels)
        """What the classifier says of the pooled states; it drops some of them in training."""
        layer: nn.Module = self.classifier  # type: ignore[assignment]  # nn.Module hides the type
        return layer(F.dropout(pooled, self.spec.classifier_dropout, self.training))

    def embedded(self, hidden: Tensor, real: Tensor | None) -> Tensor:  # (B, T, D) -> (B, D')
        """One vector a sequence: the sentence encoder's, or the mean of the states for a model that is none."""
        sentence = self.spec.sentence
        if sentence is None:
            return pool(hidden, real, "mean")
        x = pool(hidden, real, sentence.pooling)
        if self.sentence is not None:
            x = self.sentence(x)
            x = x.tanh() if sentence.dense_activation == "tanh" else x
        return F.normalize(x, dim=-1) if sentence.normalize else x


def _made(spec: Spec, name: str) -> nn.Module:
    if name in TABLED:
        return Table(spec, masked=name == "masked")
    if name == "detector":
        return Detector(spec)
    width = {"classifier": spec.labels, "pair": 2, "span": 2, "value": 1}[name]
    pooled = name in POOLED and spec.pooler != "none"
    return Linear(spec.width if pooled else spec.states, width, bias=name != "classifier" or spec.classifier_bias)


def pool(hidden: Tensor, real: Tensor | None, how: Pooling) -> Tensor:
    """One state a sequence: (B, T, D) -> (B, D). ``real`` (B, T) is False on padding, which takes no part.

    ``first`` and ``last`` are the first and last real token's; ``mean_sqrt`` divides the sum by √(number of tokens);
    ``weighted_mean`` gives the n-th token the weight n (Muennighoff 2022, arXiv 2202.08904).
    """
    if real is None:
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    if how in ("first", "last"):
        steps = torch.arange(real.shape[1], device=real.device)
        at = torch.where(real, steps, real.shape[1]).amin(1) if how == "first" else torch.where(real, steps, 0).amax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), at]
    if how == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(1)
    weights = (real.cumsum(1) * real if how == "weighted_mean" else real).type_as(hidden)  # (B, T)
    count = weights.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    total = (hidden * weights[..., None]).sum(1)
    return total / (count.sqrt() if how == "mean_sqrt" else count)
