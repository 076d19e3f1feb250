"""The parts of a model that adapters brought, and the model's own weights by the names that they have without them."""

from collections.abc import Callable, Iterator

from torch import nn

from amauta.adapt.around import Around
from amauta.adapt.prefix import Ahead
from amauta.adapt.tokens import NewRows
from amauta.models.transformer import Transformer

Part = Around | Ahead | NewRows
WITHIN = ("linear", "within")  # under these an Around and a NewRows keep what they stand around


def parts(model: Transformer, name: str | None = None) -> Iterator[tuple[str, Part]]:
    """Everything that adapters, or the one called ``name``, put on the model, with its place; inmost parts last."""
    for path, module in model.named_modules():
        if isinstance(module, Part) and name in (None, module.name):
            yield plain(path), module


def own(part: Part) -> dict[str, nn.Parameter]:
    """The parameters that are the part's, not those of what it stands around."""
    return dict(part.named_parameters(recurse=isinstance(part, Ahead)))


def base_weights(model: Transformer) -> dict[str, nn.Parameter]:
    """The model's own parameters by their names in the plain model."""
    brought = {id(value) for _, part in parts(model) for value in own(part).values()}
    return {plain(name): value for name, value in model.named_parameters() if id(value) not in brought}


def plain(name: str) -> str:
    """The name of a parameter or a module as it is without what stands around it."""
    return ".".join(part for part in name.split(".") if part not in WITHIN)


def replace(model: Transformer, path: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Put what ``make`` gives of the module at ``path`` in its place."""
    parent, _, leaf = path.rpartition(".")
    holder = model.get_submodule(parent)
    setattr(holder, leaf, make(getattr(holder, leaf)))


def unwrap(model: Transformer, name: str) -> None:
    """Take the Arounds and NewRows of the adapter ``name`` off."""
    for module in list(model.modules()):
        for leaf, child in list(module.named_children()):
            while isinstance(child, Around | NewRows) and child.name == name:
                child = child.linear if isinstance(child, Around) else child.within
                setattr(module, leaf, child)
