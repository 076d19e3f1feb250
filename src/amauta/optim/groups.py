"""Which parameter is changed how: the optimisers of a model, behind one small object."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amauta.optim.muon import Muon
from amauta.optim.settings import Optim


class Optimizers:
    """AdamW, and Muon when the settings ask for it, stepped together at one factor of their peak rates."""

    def __init__(
        self,
        model: nn.Module,
        settings: Optim,
        *,
        splits: dict[Tensor, tuple[int, ...]] | None = None,
        muon_dtype: torch.dtype = torch.float32,
        own: Sequence[dict[str, Any]] = (),  # AdamW's groups of parameters with a rate or a decay of their own
    ) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        apart = {p for group in own for p in group["params"]}
        matrices = [p for name, p in trained.items() if p.dim() == 2 and "blocks." in name and p not in apart]
        held = apart.union(matrices)
        others = [p for p in trained.values() if p not in held]
        self.names = {p: name for name, p in trained.items()}
        self.parameters = list(trained.values())
        adamw_groups = [{"params": others, "weight_decay": 0.0}]
        self.members: list[torch.optim.Optimizer] = []
        if settings.optimizer == "muon" and matrices:  # none where the blocks are frozen
            self.members.append(Muon(
                matrices, lr=settings.matrix_lr, momentum=settings.momentum, weight_decay=settings.weight_decay,
                splits=splits, dtype=muon_dtype,
            ))  # fmt: skip
        else:
            adamw_groups.append({"params": matrices, "weight_decay": settings.weight_decay})
        self.members.append(torch.optim.AdamW(
            [*adamw_groups, *own], lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True,
        ))  # fmt: skip
        self.peaks = [[group["lr"] for group in member.param_groups] for member in self.members]

    def step(self, factor: float) -> None:
        """Change the weights by their gradients, at ``factor`` of the peak rates, and forget the gradients."""
        for member, peaks in zip(self.members, self.peaks, strict=True):
            for group, peak in zip(member.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            member.step()
            member.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors: ``{"0/blocks.0…/momentum": …}``."""
        return {
            f"{i}/{self.names[parameter]}/{key}": value
            for i, member in enumerate(self.members)
            for parameter, state in member.state.items()
            for key, value in state.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        by_name: dict[str, Any] = {name: parameter for parameter, name in self.names.items()}
        for path, value in tensors.items():
            member, rest = path.split("/", 1)
            name, key = rest.rsplit("/", 1)
            parameter = by_name[name]
            self.members[int(member)].state[parameter][key] = value.clone().to(
                "cpu" if key == "step" else parameter.device
            )
