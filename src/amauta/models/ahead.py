"""What stands ahead of the texts in a stack: keys and values of every layer, made from an adapter's trained vectors
(``adapt/prefix.py``), or in a stack that reads both ways a prompt's own rows.

Every text begins behind it, those packed in one row and those in a cache too: places are counted from its end, slots of
a cache are not, so it never enters one. A window reaches it as if it were text. Of several adapters each row of a batch
may see its own.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amauta.adapt.around import Around
from amauta.adapt.prefix import Ahead, AheadKind, Detour, Layers, prefix_layers, prefix_table
from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.nn.cache import Cache

if TYPE_CHECKING:
    from amauta.models.stack import Stack
    from amauta.models.transformer import Transformer


@dataclass
class Before:
    """What all adapters of a stack put before its texts, one adapter after another."""

    layers: Layers  # (1 or B, P, G, K) each
    places: Tensor  # (P,), counted within each adapter
    seen: Tensor | None  # (B, P), by which rows; None: by all

    def widened(self, mask: Tensor | None, places: Tensor, window: int | None) -> Tensor | None:
        """The mask of the texts (.., S) with P more columns in front; None where nothing is hidden.

        ``places`` (B, T) are those of the texts, counted with what stands before them.
        """
        front = None if self.seen is None else self.seen[:, None, None, :]
        if window is not None:
            near = (places[:, :, None] - self.places < window)[:, None]  # (B, 1, T, P)
            front = near if front is None else front & near
        if front is None and mask is None:
            return None
        some = mask if front is None else front
        assert some is not None
        front = some.new_ones(1, 1, 1, len(self.places)) if front is None else front
        mask = some.new_ones(1, 1, 1, places.shape[1]) if mask is None else mask
        lead = torch.broadcast_shapes(front.shape[:-1], mask.shape[:-1])
        return torch.cat([front.expand(*lead, -1), mask.expand(*lead, -1)], dim=-1)


class Recorder(Cache):
    """A cache of one reading, that gives back what was written with its gradient."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def write(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        self.layers[layer] = (keys, values)

    def read(self, layer: int, span: int) -> tuple[Tensor, Tensor]:
        return self.layers[layer]


def seen_ahead(stack: "Stack") -> list[Ahead]:
    """What stands ahead of the texts now: all that some row sees."""
    return [one for one in stack.ahead or () if one.on is not False]  # type: ignore[misc]  # ModuleList hides the type


def shift_of(stack: "Stack") -> int | Tensor:
    """By how much the places of the texts are moved: a number, or (B, 1) where rows differ."""
    found: int | Tensor = 0
    for one in seen_ahead(stack):
        found = found + (one.length if one.on is True else one.length * one.on.long()[:, None])  # type: ignore[union-attr]
    return found


def before_of(stack: "Stack", x: Tensor) -> Before | None:
    """The keys and values before the texts x (B, T, D); None where there are none."""
    shown = [one for one in seen_ahead(stack) if stack.causal or one.kind != "prompt"]
    if not shown:
        return None
    made = [_layers(stack, one, x) for one in shown]
    rows = max(len(layers[0][0]) for layers in made)
    together = [
        tuple(torch.cat([part.expand(rows, -1, -1, -1) for part in parts], dim=1) for parts in zip(*each, strict=True))
        for each in zip(*made, strict=True)
    ]
    seen = None
    if not all(one.on is True for one in shown):
        seen = torch.cat([_rows_of(one, x)[:, None].expand(-1, one.length) for one in shown], dim=1)
    places = torch.cat([torch.arange(one.length, device=x.device) for one in shown])
    return Before(together, places, seen)  # type: ignore[arg-type]  # two of a pair


def _rows_of(one: Ahead, x: Tensor) -> Tensor:
    """Which rows of x see it, (B,) bool."""
    return x.new_ones(len(x), dtype=torch.bool) if one.on is True else one.on.to(x.device).bool()  # type: ignore[union-attr]


def _layers(stack: "Stack", one: Ahead, x: Tensor) -> Layers:
    """The keys and values of one adapter, for rows like those of x."""
    if one.kind == "prefix":
        return prefix_layers(one.given(), stack.layers, stack.spec.groups)
    if one.kind == "prefix-layer":
        rows = _needed_rows(stack)
        return keys_values(stack, one.given().to(x.dtype)[:, None].expand(-1, rows, -1, -1))
    state = _state(stack, x)
    if state is not None and one.kept is not None and _same(one.kept[0], state):
        return one.kept[1]
    made = _written(stack, one, x)
    one.kept = None if state is None else (state, made)
    return made


def keys_values(stack: "Stack", streams: Tensor) -> Layers:
    """What each layer makes of its own stream (L, B, P, D), at places 0..P-1."""
    places = torch.arange(streams.shape[2], device=streams.device)[None]
    turns = {w: stack.rotary(places, w) for w in (False, True)}
    found: Layers = []
    for layer, block in stack.each():
        read = block.attention_input(streams[layer])
        found.append(block.attention.project(read, turns[stack.spec.windowed(layer)])[1:])
    return found


def _written(stack: "Stack", one: Ahead, x: Tensor) -> Layers:
    """What the stack computes of a prompt, as of the first tokens of a text."""
    places = torch.arange(one.length, device=x.device)[None].expand(_needed_rows(stack), -1)
    read = stack.placed(one.given().to(x.dtype).expand(len(places), -1, -1), places, None)
    recorder = Recorder()
    stack.through(read, positions=places, places=places, cache=recorder)
    return [recorder.layers[layer] for layer in range(stack.layers)]


def _needed_rows(stack: "Stack") -> int:
    """1, or as many rows as the batch has where layers do not do the same in each."""
    around = (part.on for part in stack.modules() if isinstance(part, Around))
    return next((len(on) for on in around if isinstance(on, Tensor)), 1)


def _state(stack: "Stack", x: Tensor) -> list[object] | None:
    """What a prompt's keys and values depend on; None where they are not kept: a step learns, or may be compiled."""
    if torch.is_grad_enabled() or stack.training or torch.compiler.is_compiling() or _needed_rows(stack) > 1:
        return None
    held = [*stack.parameters(), *stack.buffers()]
    if any(tensor.is_inference() for tensor in held):
        return None
    on = [part.on for part in stack.modules() if isinstance(part, Around)]
    return [x.dtype, *on, *held, *(tensor._version for tensor in held)]


def _same(kept: object, state: list[object]) -> bool:
    assert isinstance(kept, list)
    return len(kept) == len(state) and all(
        one is other if isinstance(one, Tensor) or isinstance(other, Tensor) else one == other
        for one, other in zip(kept, state, strict=True)
    )


@dataclass
class Input:
    """What a stack reads: embedded rows, their places, and who is real and of which document."""

    x: Tensor  # (B, T, D)
    places: Tensor  # (B, T)
    real: Tensor | None  # (B, T)
    documents: Tensor | None  # (B, T)


def with_prompts(stack: "Stack", given: Input) -> Input:
    """The rows of prompts before those of the texts, where a stack reads both ways: each document has its own copy."""
    for one in seen_ahead(stack):
        if stack.causal or one.kind != "prompt":
            continue
        B = len(given.x)
        numbers = torch.zeros(1, device=given.x.device) if given.documents is None else given.documents.unique()
        own = torch.arange(one.length, device=given.x.device)
        rows = stack.placed(one.given().to(given.x.dtype)[None], own[None], None).repeat(B, len(numbers), 1)
        documents, real = given.documents, given.real
        if documents is not None:
            documents = torch.cat([numbers.repeat_interleave(one.length).expand(B, -1), documents], dim=1)
        if real is not None or one.on is not True:
            real = given.x.new_ones(given.places.shape, dtype=torch.bool) if real is None else real
            front = _rows_of(one, given.x)[:, None].expand(-1, rows.shape[1])
            real = torch.cat([front, real], dim=1)
        places = torch.cat([own.repeat(len(numbers)).expand(B, -1), given.places], dim=1)
        given = Input(torch.cat([rows, given.x], dim=1), places, real, documents)
    return given


def encoded_mask(stack: "Stack", encoded: Tensor, mask: Tensor | None) -> Tensor | None:
    """Which of an encoder's states (B, S, D) a decoder may look at: with those of prompts, of which ``mask`` (B, S') of
    the texts does not know."""
    prompts = [one for one in seen_ahead(stack) if one.kind == "prompt"]
    if not prompts or (mask is None and all(one.on is True for one in prompts)):
        return mask
    for one in prompts:
        front = _rows_of(one, encoded)[:, None].expand(-1, one.length)
        rest = encoded.shape[1] - sum(other.length for other in prompts)
        mask = encoded.new_ones(len(encoded), rest, dtype=torch.bool) if mask is None else mask
        mask = torch.cat([front, mask], dim=1)
    return mask


def put_ahead(
    model: "Transformer", kind: AheadKind, settings: Adapters, *, name: str, generator: torch.Generator
) -> None:
    """Put trained vectors ahead of the texts of each stack (a prompt: of the one that reads first).

    They begin as what the model computes of words drawn from its vocabulary. The model's context is then shorter by
    them. ModelError: a Reformer, a length that leaves no context, two of these kinds in one adapter.
    """
    length, hidden = settings.adapter_length, settings.adapter_hidden
    stacks = [stack for stack in (model.encoder, model.decoder) if stack is not None]
    if model.spec.reformer is not None:
        raise ModelError("prefix.no-reformer", kind=kind)
    if any(one.name == name for stack in stacks for one in stack.ahead or ()):
        raise ModelError("prefix.two", kind=kind, name=name)
    if model.spec.limit is not None and length >= stacks[0].spec.context:
        raise ModelError("prefix.no-context", length=length, context=stacks[0].spec.context)
    for stack, first in _begun(model, kind, stacks, length, generator):
        detour = None
        if hidden is not None and kind == "prefix":
            detour = Detour(length, model.spec.width, hidden, first.shape[1], generator).to(first)
        stack.ahead = nn.ModuleList([*(stack.ahead or ()), Ahead(kind, first, name=name, detour=detour)])
    _fit_context(model)


def take_ahead(model: "Transformer", name: str) -> None:
    """Take away what the adapter ``name`` put ahead of texts, if anything."""
    for stack in (model.encoder, model.decoder):
        if stack is not None and getattr(stack, "ahead", None):
            kept = [one for one in stack.ahead if one.name != name]
            stack.ahead = nn.ModuleList(kept) if kept else None
    _fit_context(model)


def _fit_context(model: "Transformer") -> None:
    """The spec's context is what is left for texts beside the longest of what stands ahead."""
    stacks = [stack for stack in (model.encoder, model.decoder) if stack is not None and hasattr(stack, "ahead")]
    longest = max((one.length for stack in stacks for one in stack.ahead or ()), default=0)
    if stacks and model.spec.limit is not None:
        model.spec = replace(model.spec, context=stacks[0].spec.context - longest)


@torch.no_grad()
def _begun(
    model: "Transformer", kind: AheadKind, stacks: list["Stack"], length: int, generator: torch.Generator
) -> list[tuple["Stack", Tensor]]:
    """The first vectors of each stack that gets some; without memory where the model has none."""
    stacks = stacks[:1] if kind == "prompt" else stacks
    if model.device.type == "meta":
        return [(stack, torch.empty(_shape(stack, kind, length), device="meta")) for stack in stacks]
    ids = torch.randint(model.spec.vocabulary, (1, length), generator=generator).to(model.device)
    if kind == "prompt":
        return [(stacks[0], model.embedding(ids)[0] * model.spec.embedding_scale)]
    training = model.training
    model.eval()
    _, seen = model(ids, decoder_ids=ids if len(stacks) == 2 else None, capture=("hidden",))
    model.train(training)
    found: list[tuple[Stack, Tensor]] = []
    for stack in stacks:
        capture = seen["decoder" if stack.causal else "encoder"]
        streams = torch.stack(capture.hidden[: stack.layers])  # (L, 1, P, D)
        found.append((stack, streams[:, 0] if kind == "prefix-layer" else prefix_table(keys_values(stack, streams))))
    return found


def _shape(stack: "Stack", kind: AheadKind, length: int) -> tuple[int, ...]:
    """Of the vectors of one stack."""
    spec, layers = stack.spec, stack.layers
    return {
        "prompt": (length, spec.embedded),
        "prefix": (length, 2 * layers * spec.groups * spec.head),
        "prefix-layer": (layers, length, spec.width),
    }[kind]
