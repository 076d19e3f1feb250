"""A model whose weights were pruned: that its card says so, and which of its weights have to stay at zero."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amauta.hub import Found
from amauta.models.contract.rows import card_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from amauta.models.transformer import Transformer

PRUNED = "pruned"  # of a card: the step that set weights of this model, or of one it comes from, to zero


def linears(model: "Transformer") -> "dict[str, nn.Linear]":
    """The linear layers of the stacks' layers by name, which are what is pruned; a shared one once."""
    from torch import nn

    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and ".blocks." in name}


def pruned_by(found: Found | None) -> str | None:
    """The step that pruned the weights of a model, None where none did."""
    if found is None or not found.path.is_dir():
        return None
    card = card_in(found.path)
    rows: list[Mapping[str, Any]] = card.get("contract", [])
    steps = [str(row["step"]) for row in rows if "sparsity" in row]
    return steps[-1] if steps else card.get(PRUNED)


def masks_of(found: Found | None, model: "Transformer") -> "dict[Tensor, Tensor]":
    """Of a model that was pruned, each trained matrix of its layers with a mask that is False where it is zero; {} of
    any other."""
    if pruned_by(found) is None:
        return {}
    trained = (linear.weight for linear in linears(model).values() if linear.weight.requires_grad)
    return {weight: weight.detach() != 0 for weight in trained}
