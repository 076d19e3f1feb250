"""What the linear layers of a model read on given rows of tokens: the products and norms of their inputs.

One layer's statistics exist at a time. ``each_layer`` runs a model layer by layer: it holds the states of all rows
between two layers, gives out the statistics of one, and computes what the layer gives only when it is asked for the
next. So a caller may change the layer in between, and the next one reads what the changed one gives, as GPTQ and
SparseGPT want it (Frantar et al. 2022, arXiv 2210.17323, section 4; 2023, arXiv 2301.00774).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from amauta.models.stack import Stack
from amauta.models.transformer import Transformer


@dataclass
class Inputs:
    """Sums over the n tokens that a linear layer read, in f32; j is one of its I inputs, X (n, I) all that it read."""

    count: int
    squares: Tensor  # (I,): sum of x_j²
    absolute: Tensor  # (I,): sum of |x_j|
    largest: Tensor  # (I,): max of |x_j|
    products: Tensor | None = None  # (I, I): Xᵀ X, where it was asked for

    @classmethod
    def none(cls, width: int, device: torch.device, *, products: bool) -> "Inputs":
        """Nothing read yet."""
        squares, absolute, largest = (torch.zeros(width, device=device) for _ in range(3))
        return cls(0, squares, absolute, largest, torch.zeros(width, width, device=device) if products else None)

    def add(self, x: Tensor) -> None:
        """Count in what was read, (..., I)."""
        x = x.detach().reshape(-1, x.shape[-1]).float()
        size = x.abs()
        self.count += len(x)
        self.squares += x.square().sum(0)
        self.absolute += size.sum(0)
        self.largest = torch.maximum(self.largest, size.amax(0))
        if self.products is not None:
            self.products.addmm_(x.T, x)

    @property
    def norms(self) -> Tensor:
        """(I,): ‖X_j‖₂ over all tokens."""
        return self.squares.sqrt()

    @property
    def means(self) -> Tensor:
        """(I,): the mean of |x_j|."""
        return self.absolute / max(1, self.count)

    def hessian(self) -> Tensor:
        """(I, I): 2 Xᵀ X / n, the second derivative of the layer's squared error by a row of its weights."""
        assert self.products is not None
        return self.products * (2.0 / max(1, self.count))


@dataclass
class Layer:
    """One layer of a stack and what its linear layers read; names as in the model's state."""

    name: str  # "decoder.blocks.3"
    linears: dict[str, nn.Linear]
    inputs: dict[str, Inputs] = field(default_factory=dict[str, Inputs])


def calibrated(model: Transformer, rows: Sequence[Tensor], *, products: bool = False) -> dict[str, Inputs]:
    """The statistics of every linear module of the layers by its name, of a model that is not changed meanwhile."""
    found: dict[str, Inputs] = {}
    for layer in each_layer(model, rows, products=products, changing=False):
        found |= layer.inputs
    return found


@torch.no_grad()
def each_layer(
    model: Transformer, rows: Sequence[Tensor], *, products: bool = False, changing: bool = True
) -> Iterator[Layer]:
    """The layers in order, each with the statistics of all ``rows`` of token ids, (T,) or (B, T) each.

    The states of all rows are held, n·D numbers, and the statistics of one layer. What the caller does to the weights
    of a layer before it asks for the next one is seen by those that follow; ``changing=False`` is for one who does
    nothing to them, and saves half of the work. A decoder reads the same tokens as its encoder, one place later, and
    comes after it. Layers that share one set of weights come once, with the sums of them all. A Reformer, and an
    encoder that is its decoder too, come as one layer: all their statistics exist at a time.
    """
    was_training = model.training
    model.eval()
    try:
        stacks = [name for name in ("encoder", "decoder") if getattr(model, name) is not None]
        if model.spec.shared_stacks or not all(isinstance(getattr(model, name), Stack) for name in stacks):
            yield _whole(model, rows, products)
            return
        for name in stacks:
            yield from _one_stack(model, name, rows, products, changing)
    finally:
        model.train(was_training)


def _one_stack(
    model: Transformer, name: str, rows: Sequence[Tensor], products: bool, changing: bool
) -> Iterator[Layer]:
    stack: Stack = getattr(model, name)
    states, calls = _dry_run(model, stack, name, rows)
    repeats = stack.layers // len(stack.blocks)
    for nth, block in enumerate(stack.blocks):
        layer = _layer(model, f"{name}.blocks.{nth}")
        turns = range(nth * repeats, (nth + 1) * repeats)
        with _watched(layer, products):
            given = [_through(block, x, [call[turn] for turn in turns]) for x, call in zip(states, calls, strict=True)]
        yield layer
        if changing:
            torch.clear_autocast_cache()  # casts of the weights that they were
            given.clear()
            for x, call in zip(states, calls, strict=True):
                given.append(_through(block, x, [call[turn] for turn in turns]))
        states = given


def _whole(model: Transformer, rows: Sequence[Tensor], products: bool) -> Layer:
    """All linear layers of the stacks as one layer."""
    layer = _layer(model, "")
    with _watched(layer, products):
        for row in rows:
            through(model, row)
    return layer


def through(model: Transformer, row: Tensor) -> Tensor:
    """The states of a row of ids, (T,) or (B, T), as they are read here: (B, T, D)."""
    ids = _two_dimensional(row, model.device)
    return model(ids, **({"decoder_ids": _shifted(model, ids)} if model.spec.kind == "encoder-decoder" else {}))


Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a block is given beside its states


class _Recorder(nn.Module):
    """Stands where a block does, keeps what it is given, and hands the states on as they are."""

    def __init__(self, states: list[Tensor], calls: list[Call]) -> None:
        super().__init__()
        self.states, self.calls = states, calls

    def forward(self, x: Tensor, *given: Any, **named: Any) -> Tensor:
        self.states.append(x)
        self.calls.append((given, named))
        return x


def _dry_run(
    model: Transformer, stack: Stack, name: str, rows: Sequence[Tensor]
) -> tuple[list[Tensor], list[list[Call]]]:
    """For each row the states before the first layer, and what each layer is given beside its states (masks, tables).

    No layer of the stack is computed.
    """
    states: list[Tensor] = []
    calls: list[list[Call]] = []
    blocks = stack.blocks
    for row in rows:
        ids = _two_dimensional(row, model.device)
        encoded = model.encode(ids) if name == "decoder" and model.encoder is not None else None
        seen: list[Tensor] = []
        given: list[Call] = []
        recorder = _Recorder(seen, given)
        stack.blocks = nn.ModuleList(recorder for _ in blocks)
        try:
            if name == "encoder":
                model.encode(ids)
            else:
                model.decode(ids if encoded is None else _shifted(model, ids), encoded=encoded)
        finally:
            stack.blocks = blocks
        states.append(seen[0])
        calls.append(_once(given, calls[-1]) if calls else given)
    return states, calls


def _once(given: list[Call], before: list[Call]) -> list[Call]:
    """The same with tensors that equal those of the row before held once: masks of rows of one length."""

    def same(new: Any, old: Any) -> Any:
        if isinstance(new, tuple) and isinstance(old, tuple) and len(new) == len(old):
            return tuple(map(same, new, old))
        both = isinstance(new, Tensor) and isinstance(old, Tensor)
        return old if both and new.shape == old.shape and torch.equal(new, old) else new

    return [
        (same(args, old), {name: same(value, former.get(name)) for name, value in named.items()})
        for (args, named), (old, former) in zip(given, before, strict=True)
    ]


def _through(block: nn.Module, x: Tensor, calls: Sequence[Call]) -> Tensor:
    for given, named in calls:
        x = block(x, *given, **named)
    return x


def _layer(model: Transformer, name: str) -> Layer:
    """The linear modules within the layer called ``name``, or all layers' for ""; a shared one stands there once."""
    within = (f"{name}.",) if name else ("encoder.blocks.", "decoder.blocks.")
    found = {full: one for full, one in model.named_modules() if isinstance(one, nn.Linear) and full.startswith(within)}
    return Layer(name, found)


@contextmanager
def _watched(layer: Layer, products: bool) -> Iterator[None]:
    """Count in what the layer's linears read meanwhile."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(linear: nn.Module, given: tuple[Tensor, ...]) -> None:
            layer.inputs[name].add(given[0])

        return add

    for name, linear in layer.linears.items():
        layer.inputs[name] = Inputs.none(linear.in_features, linear.weight.device, products=products)
    hooks = [linear.register_forward_pre_hook(watch(name)) for name, linear in layer.linears.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _two_dimensional(row: Tensor, device: torch.device) -> Tensor:
    return (row if row.dim() == 2 else row[None]).to(device)


def _shifted(model: Transformer, ids: Tensor) -> Tensor:
    """The same tokens one place later, behind the one that a decoder starts from."""
    return torch.cat((torch.full_like(ids[:, :1], model.spec.decoder_start or 0), ids[:, :-1]), dim=1)
