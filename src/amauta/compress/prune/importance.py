"""How much a model needs each of its heads, neurons and layers."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amauta.compress.statistics import calibrated, through
from amauta.models.transformer import Transformer

Loss = Callable[[Tensor], Tensor]  # ids (1, T) -> the loss of the row, a number
Parts = Mapping[str, int]  # linear layers by name, and in how many units of one width the inputs of each are parted
Hook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]


@torch.enable_grad()
def sensitivity(model: Transformer, rows: Sequence[Tensor], parts: Parts, loss: Loss) -> dict[str, Tensor]:
    """E|∂L/∂ξ_u| of each unit u, (units,): what it gives stands times ξ_u = 1, and a row is one example
    (Michel, Levy and Neubig 2019, arXiv 1905.10650, eq. 2, whose units are heads).

    As there, the scores of a layer are divided by their norm, so that layers can be compared.
    """
    found = {name: torch.zeros(units, device=model.device) for name, units in parts.items()}
    gates: dict[str, list[Tensor]] = {}

    def gated(name: str) -> Hook:
        def gate(linear: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = given[0]
            gates[name].append(x.new_ones(parts[name], 1, requires_grad=True))
            return ((x.unflatten(-1, (parts[name], -1)) * gates[name][-1]).flatten(-2),)

        return gate

    was_training = model.training
    model.eval()
    hooks = [model.get_submodule(name).register_forward_pre_hook(gated(name)) for name in parts]
    try:
        for row in rows:
            gates = {name: [] for name in parts}  # a layer that is run several times has one for each
            value = loss(row[None].to(model.device).clone())  # not one of inference mode
            flat = [(name, xi) for name, several in gates.items() for xi in several]
            slopes = torch.autograd.grad(value, [xi for _, xi in flat])
            for name in parts:
                found[name] += sum(g[:, 0] for (of, _), g in zip(flat, slopes, strict=True) if of == name).abs()  # type: ignore[union-attr]
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return {name: F.normalize(scores, dim=0) for name, scores in found.items()}


def size(model: Transformer, rows: Sequence[Tensor], parts: Parts) -> dict[str, Tensor]:
    """‖W_u X_uᵀ‖, (units,): what unit u adds to the states, over all tokens of the rows.

    For a unit of one input this is Wanda's score of a whole column.
    """
    inputs = calibrated(model, rows, products=any(units != _width(model, name) for name, units in parts.items()))
    found = {}
    for name, units in parts.items():
        weight = model.get_parameter(f"{name}.weight").detach().float().unflatten(1, (units, -1))  # (O, units, K)
        products = inputs[name].products
        if units == _width(model, name):
            found[name] = weight[..., 0].norm(dim=0) * inputs[name].norms
            continue
        assert products is not None
        K = weight.shape[2]
        own = torch.stack([products[u * K : (u + 1) * K, u * K : (u + 1) * K] for u in range(units)])  # (units, K, K)
        found[name] = torch.einsum("ouk,ukl,oul->u", weight, own, weight).clamp(min=0).sqrt()
    return found


def _width(model: Transformer, name: str) -> int:
    return model.get_parameter(f"{name}.weight").shape[1]


@torch.no_grad()
def changes(model: Transformer, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """How much each layer of each stack changes the states: 1 - cos(before, after), the mean over tokens, (L,)
    (Men et al. 2024, arXiv 2403.03853, eq. 1)."""
    stacks = {name: stack for name in ("encoder", "decoder") if (stack := getattr(model, name)) is not None}
    sums = {name: torch.zeros(len(stack.blocks), device=model.device) for name, stack in stacks.items()}
    tokens = 0

    def watch(name: str, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(block: nn.Module, given: tuple[Tensor, ...], after: Tensor) -> None:
            sums[name][layer] += (1 - F.cosine_similarity(given[0].float(), after.float(), dim=-1)).sum()

        return add

    was_training = model.training
    model.eval()
    hooks = [
        block.register_forward_hook(watch(name, layer))
        for name, stack in stacks.items()
        for layer, block in enumerate(stack.blocks)
    ]
    try:
        for row in rows:
            through(model, row)
            tokens += row.numel()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return {name: found / max(1, tokens) for name, found in sums.items()}
