"""Putting adapters on a model and taking them off: what is added, what is trained, what is switched on."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from amauta.adapt.around import Around
from amauta.adapt.bottleneck import Bottleneck
from amauta.adapt.ia3 import IA3
from amauta.adapt.lora import DoRA, LoRA
from amauta.adapt.prefix import Ahead
from amauta.adapt.settings import AROUND, BEFORE, CHOSEN, KINDS, Adapters, Kind
from amauta.adapt.tokens import NewRows, rows_of
from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean
from amauta.models.adapters.chosen import chosen
from amauta.models.adapters.merging import unmerge
from amauta.models.adapters.parts import Part, base_weights, own, parts, replace, unwrap
from amauta.models.adapters.places import places, targeted
from amauta.models.adapters.tokens import fit_biases
from amauta.models.ahead import put_ahead, take_ahead
from amauta.models.transformer import Transformer

IA3_ROLES = ("k", "v", "down")  # of the paper; "down" by what it reads
Wrap = Callable[[nn.Module], nn.Module]


@dataclass
class Attached:
    """One adapter of a model. ``held`` are the model's own weights that it trains, by their names in the plain model,
    with the values that are not in the model now: the base's while it is on, the adapter's while it is off."""

    settings: Adapters
    held: dict[str, Tensor] = field(default_factory=dict)
    on: bool = True


def attach(
    model: Transformer, settings: Adapters, *, seed: int, name: str = "default", also: tuple[str, ...] = ()
) -> dict[str, int | float]:
    """Freeze the model and put a new adapter on it, which changes nothing yet. Returns how many numbers are "trained",
    "parameters" in all, and the "share" of the former.

    New tokens come before (``add_tokens``). ``also``: beginnings of names of weights that are trained in any case and
    saved with the adapter: a new output's. Drawn from ``seed``, in the order of ``named_modules``.

    ConfigError: a target that fits nothing, a kind that the model has nothing of; both with what there is.
    ModelError: a name that is taken, weights that another adapter which is on trains as well.
    """
    if name in model.adapters:
        raise ModelError("adapters.name-taken", name=name)
    generator = torch.Generator().manual_seed(seed)
    asked = [kind for kind in KINDS if kind in settings.adapter]
    names = chosen(model, [kind for kind in asked if kind in CHOSEN], also)
    around = [each for kind in AROUND if kind in asked for each in wraps(model, kind, settings, name, generator)]
    try:
        for kind in asked:
            if kind in BEFORE:
                put_ahead(model, kind, settings, name=name, generator=generator)
        register(model, name, settings, names)
    except ModelError:
        take_ahead(model, name)
        raise
    for path, wrap in around:
        replace(model, path, wrap)
    train(model, name)
    return figures(model)


def wraps(
    model: Transformer, kind: Kind, settings: Adapters, name: str, generator: torch.Generator
) -> Iterator[tuple[str, Wrap]]:
    """The places of the layers that a kind stands around, and how to put it there."""
    if kind in ("houlsby", "pfeiffer"):
        width = settings.adapter_width or max(1, model.spec.width // settings.adapter_reduction)
        make = partial(Bottleneck, width=width, kind=kind, name=name, generator=generator)
        roles = ("o", "down") if kind == "houlsby" else ("down",)
        for place in places(model):
            if place.role in roles and ".cross." not in place.path:
                yield place.path, make
    elif kind == "ia3":
        for path, rows in targeted(model, settings.adapter_targets, everything=IA3_ROLES).items():
            reads = path.endswith(".down")
            yield path, partial(IA3, reads=reads, rows=None if reads else rows, name=name)
    else:
        knobs = {"rank": settings.adapter_rank, "alpha": settings.alpha, "rslora": settings.adapter_rslora,
                 "dropout": settings.adapter_dropout, "name": name, "generator": generator}  # fmt: skip
        for path, rows in targeted(model, settings.adapter_targets).items():
            yield path, partial(LoRA if kind == "lora" else DoRA, rows=rows, **knobs)


def register(model: Transformer, name: str, settings: Adapters, names: Iterable[str] = ()) -> None:
    """Note an adapter whose parts are there, and which of the model's own weights it trains."""
    weights = base_weights(model)
    names = list(names)
    _alone(name, names, {other: one for other, one in model.adapters.items() if one.on})
    model.adapters[name] = Attached(settings, {each: weights[each].detach().clone() for each in names})


def train(model: Transformer, name: str = "default") -> None:
    """Let only the weights of the adapter ``name`` change."""
    model.requires_grad_(False)
    weights = base_weights(model)
    for value in [weights[each] for each in model.adapters[name].held]:
        value.requires_grad_(True)
    for _, part in parts(model, name):
        for value in own(part).values():
            value.requires_grad_(True)


def figures(model: Transformer) -> dict[str, int | float]:
    """How many numbers are trained, all that there are, and the share of the former."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    return {"trained": trained, "parameters": everything, "share": trained / everything}


def attached(model: Transformer) -> bool:
    """Whether the model has adapters, merged or not."""
    return bool(model.adapters)


def added(model: Transformer, name: str = "default") -> dict[str, Tensor]:
    """All that an adapter added or changed, by names that do not depend on what else is attached: what is saved."""
    given = {_key(path, part): part.given() for path, part in parts(model, name) if isinstance(part, Ahead)}
    return _tensors(model, name) | given


def put_added(model: Transformer, tensors: Mapping[str, Tensor], name: str = "default") -> None:
    """Give an attached adapter the values that ``added`` gave. ModelError where names or shapes are others."""
    there = _tensors(model, name)
    missing, extra = sorted(there.keys() - tensors.keys()), sorted(tensors.keys() - there.keys())
    if missing or extra:
        raise ModelError("adapters.other-tensors", missing=_some(missing), extra=_some(extra))
    for key, value in tensors.items():
        if there[key].shape != value.shape:
            raise ModelError("adapters.other-shape", name=key, shape=tuple(value.shape), wanted=tuple(there[key].shape))
    unmerge(model)
    for key, value in tensors.items():
        there[key].data.copy_(value)


def _tensors(model: Transformer, name: str) -> dict[str, Tensor]:
    """An adapter's tensors themselves; of what stands ahead of a text, its table."""
    found: dict[str, Tensor] = {}
    for path, part in parts(model, name):
        mine = {"": part.table} if isinstance(part, Ahead) else own(part)
        found |= {_key(path, part, key): value for key, value in mine.items()}
    one = model.adapters[name]
    return found | (_live(model, one.held) if one.on else one.held)


def _key(path: str, part: Part, key: str = "") -> str:
    if isinstance(part, Ahead):
        return f"{path.rpartition('.')[0]}.{part.kind}"
    return f"{path}.{part.kind if isinstance(part, Around) else 'new'}.{key}"


def switch(model: Transformer, which: Iterable[str] | Mapping[str, bool | Tensor]) -> None:
    """Switch adapters on, by their names, and all others off: () leaves the base; what was merged is taken out of the
    weights first. A mapping gives each name True, False
    or (B,) of 0 and 1, one for each row of the batches that follow.

    ModelError: a name that is not attached; rows for an adapter that trains the model's own weights or has new tokens;
    two such adapters of the same weights.
    """
    wanted: dict[str, bool | Tensor] = dict(which) if isinstance(which, Mapping) else dict.fromkeys(which, True)
    for name in wanted:
        if name not in model.adapters:
            raise ModelError("adapters.not-attached", name=name, hint=did_you_mean(name, model.adapters))
    state = {name: wanted.get(name, False) for name in model.adapters}
    on = [name for name in state if state[name] is not False]
    for name in on:
        whole = model.adapters[name].held or any(isinstance(part, NewRows) for _, part in parts(model, name))
        if isinstance(state[name], Tensor) and whole:
            raise ModelError("adapters.whole-batches", name=name)
        _alone(name, model.adapters[name].held, {other: model.adapters[other] for other in on})
    unmerge(model)
    for name in sorted(state, key=on.count):  # off first, so that the base's own weights are back
        _swap(model, model.adapters[name], name in on)
    for _, part in parts(model):
        part.on = state[part.name]  # type: ignore[assignment]


def detach(model: Transformer, name: str = "default") -> None:
    """Take an adapter off: the model is again what it was without it, and nothing of it is trained."""
    unmerge(model)
    _swap(model, model.adapters[name], False)
    for _, part in list(parts(model, name)):
        if isinstance(part, NewRows):
            model.spec = dataclasses.replace(model.spec, vocabulary=rows_of(part.within))
    take_ahead(model, name)
    unwrap(model, name)
    fit_biases(model)
    del model.adapters[name]
    model.requires_grad_(False)


def _swap(model: Transformer, one: Attached, on: bool) -> None:
    """Change places of the values in the model and those held beside."""
    if one.on != on:
        weights = base_weights(model)
        for each, value in one.held.items():
            live = weights[each].data
            one.held[each] = live.clone()
            live.copy_(value)
        one.on = on


def _live(model: Transformer, names: Iterable[str]) -> dict[str, Tensor]:
    weights = base_weights(model)
    return {each: weights[each] for each in names}


def _alone(name: str, weights: Iterable[str], beside: Mapping[str, Attached]) -> None:
    """ModelError where one of those beside the adapter ``name`` trains one of its ``weights`` of the model too."""
    for other, one in beside.items():
        both = sorted(set(weights) & one.held.keys())
        if other != name and both:
            raise ModelError("adapters.same-weights", name=name, other=other, weights=", ".join(both[:4]))


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" … ({len(names)})" if len(names) > 8 else "") or "-"
