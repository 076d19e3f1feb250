"""Training an adapter in place of the model: what every training command does alike."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from amauta.adapt.settings import BEFORE, Adapters
from amauta.base.errors import ModelError
from amauta.base.seeds import derive
from amauta.models.adapters import add_tokens, attach, attached, switch
from amauta.models.quantized import few_bits
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.added import with_tokens
from amauta.tokenize.either import AnyTokenizer


def adapted(
    model: Transformer,
    tokenizer: AnyTokenizer,
    settings: Adapters,
    seed: int,
    *,
    also: tuple[str, ...] = (),
    special: tuple[str, ...] = (),
) -> AnyTokenizer:
    """Put the adapters on a model, where any are asked for; the tokenizer, with new tokens where there are some.

    ``also``: beginnings of names of weights that did not exist before. ``special``: tokens that the method needs.
    ModelError where layers are of few bits, which do not learn, and nothing is put on them.
    """
    if not settings.any:
        if small := few_bits(model):
            raise ModelError("train.few-bits", layers=len(small))
        return tokenizer
    if settings.new_tokens or special:
        tokenizer = add_tokens(model, tokenizer, settings.new_tokens, special=special)
    attach(model, settings, seed=derive(seed, "adapter"), also=also)
    return tokenizer


def unadapted(model: Transformer, name: str) -> Transformer:
    """The model itself; ModelError where it was opened with an adapter that could not be merged."""
    if attached(model):
        raise ModelError("train.an-adapter", name=name)
    return model


def grown(tokenizer: AnyTokenizer, settings: Adapters) -> AnyTokenizer:
    """The tokenizer with the new tokens of the settings, as ``adapted`` gives it."""
    return with_tokens(tokenizer, settings.new_tokens, special=False)[0] if settings.new_tokens else tokenizer


def left(spec: Spec, settings: Adapters) -> int:
    """The tokens of the context that a text may have beside what stands ahead of it."""
    ahead = settings.adapter_length if set(settings.adapter) & set(BEFORE) and spec.limit is not None else 0
    return spec.context - ahead


class Without:
    """A model with its adapters switched off, as a reference: its weights are not held twice.

    Called, it gives what the base gives, without dropout; afterwards the model is as it was before. Whatever else is
    asked of it is the model's own.
    """

    def __init__(self, model: Transformer, called: Any = None) -> None:
        self.model, self.called = model, called or model

    def __call__(self, *given: Any, **named: Any) -> Any:
        with without(self.model):
            return self.called(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def output_table(self) -> Tensor:
        """As the base has it; a copy where an adapter trains the model's own table."""
        with without(self.model):
            table = self.model.output_table.detach()
            return table.clone() if any(one.held for one in self.model.adapters.values()) else table

    def output_states(self, hidden: Tensor) -> Tensor:
        with without(self.model):
            return self.model.output_states(hidden)

    def compiled(self) -> "Without":
        """The same, with its ``forward`` compiled."""
        return Without(self.model, self.model.compiled())


def start_of(model: Transformer) -> Any:
    """What the model is before it learns, for as long as it does: without its adapters, or a copy."""
    if attached(model):
        return Without(model)
    return copy.deepcopy(model).eval().requires_grad_(False)


@contextmanager
def without(model: Transformer) -> Iterator[None]:
    """The model with its adapters switched off, in evaluation mode."""
    on, training = {name: one.on for name, one in model.adapters.items()}, model.training
    switch(model, ())
    model.eval()
    try:
        yield
    finally:
        switch(model, on)
        model.train(training)
