"""Which weights a run may change."""

from typing import TYPE_CHECKING, Literal

from amauta.adapt.settings import EMBEDDINGS, HELD

if TYPE_CHECKING:
    from amauta.models.transformer import Transformer

Adapt = Literal["all", "embeddings"]  # what can be asked of a model that gets no new output
TrainOnly = Literal["all", "embeddings", "output"]


def freeze(model: "Transformer", only: TrainOnly, new: tuple[str, ...] = ()) -> int:
    """Let only some weights change; how many numbers those are.

    "embeddings": the tables of tokens, the output's own one included, and of positions (Artetxe et al. 2020, arXiv
    1910.11856, section 2, adapt a model to another language so, with a new vocabulary; here it keeps its own).
    "output": nothing that was pretrained. ``new`` are the beginnings of names that are trained in any case: an output
    that did not exist before has to be.
    """
    kept = {"all": ("",), "embeddings": EMBEDDINGS, "output": ()}[only]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith((*kept, *new)) and name not in HELD)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
