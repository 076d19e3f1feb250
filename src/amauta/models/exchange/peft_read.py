"""Adapters that peft wrote, put on a model of ours (``peft.py`` writes them)."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from amauta.adapt.around import innermost
from amauta.adapt.ia3 import IA3
from amauta.adapt.lora import DoRA, LoRA
from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.models.adapters.attach import attach, put_added, register, train
from amauta.models.adapters.parts import base_weights, replace
from amauta.models.adapters.tokens import put_rows
from amauta.models.exchange.layout import Layout, to_ours
from amauta.models.exchange.options import refuse
from amauta.models.exchange.peft import PREFIX, Piece, layout_of, pieces_of
from amauta.models.transformer import Transformer

TYPES = ("LORA", "IA3", "LN_TUNING", "PREFIX_TUNING", "PROMPT_TUNING")
REFUSED: dict[str, tuple[Any, ...]] = {  # what changes the product in ways that are not computed here
    "bias": ("none", None), "lora_bias": (False, None), "layer_replication": (None,), "target_parameters": (None, []),
    "use_qalora": (False, None), "alora_invocation_tokens": (None,), "use_bdlora": (None, False),
    "kasa_config": (None,), "monteclora_config": (None,), "velora_config": (None,), "arrow_config": (None,),
    "prefix_projection": (False, None), "num_transformer_submodules": (1, None),
}  # fmt: skip
SUFFIXES = {  # endings of names, and what the tensor is
    "lora_A.weight": "a", "lora_B.weight": "b", "lora_magnitude_vector": "m", "lora_magnitude_vector.weight": "m",
    "ia3_l": "l", "token_adapter.trainable_tokens_delta": "rows",
}  # fmt: skip
TABLES = {"embedding.weight": "embedding", "outputs.language.table.weight": "outputs.language.table",
          "outputs.masked.table.weight": "outputs.masked.table"}  # fmt: skip


@dataclass
class Sorted:
    """The tensors of a file by their module: ``own`` those of adapters ({"a": …}), ``whole`` of layers kept whole."""

    own: dict[str, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    whole: dict[str, Tensor] = field(default_factory=dict)


def put(model: Transformer, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, name: str = "default") -> None:
    """Put an adapter of peft's on a model. ModelError: a type or an option that is not computed here, tensors that the
    model has no place for or of another shape, each named."""
    kind = config.get("peft_type")
    if kind not in TYPES:
        raise ModelError("adapters.unknown-type", kind=kind, known=", ".join(TYPES))
    if name in model.adapters:
        raise ModelError("adapters.name-taken", name=name)
    refuse(config, REFUSED)
    if kind in ("PREFIX_TUNING", "PROMPT_TUNING"):
        _put_before(model, kind, tensors, name)
        return
    layout = layout_of(model.spec)
    if layout is None:
        raise ModelError("adapters.no-layout", kind=kind)
    found = _sorted(tensors)
    _drop_copies(found, layout)
    pieces = {spelt: piece for piece in pieces_of(layout, model) for spelt in _spellings(piece.module, layout)}
    lost = sorted(module for module in found.own if module not in pieces)
    if lost:
        raise ModelError("adapters.no-place", names=", ".join(lost[:8]), count=len(lost))
    by_path: dict[str, list[tuple[Piece, dict[str, Tensor], str]]] = defaultdict(list)
    rows: dict[str, Tensor] = {}
    for module, own in found.own.items():
        if "rows" in own:
            rows[pieces[module].path] = own["rows"]
        else:
            by_path[pieces[module].path].append((pieces[module], own, module))
    held = _held(model, layout, found.whole)
    _put_rows(model, config, rows, held, name)
    _shapes(model, by_path)
    register(model, name, _settings(config), held)
    for path, given in by_path.items():
        given = sorted(given, key=lambda one: one[0].start)
        replace(model, path, partial(_ia3 if kind == "IA3" else _lora, given=given, config=config, name=name))
    weights = base_weights(model)
    for key, value in held.items():
        weights[key].data.copy_(value)
    train(model, name)


def _put_before(model: Transformer, kind: str, tensors: Mapping[str, Tensor], name: str) -> None:
    if model.spec.kind != "decoder":
        raise ModelError("adapters.decoders-only", kind=kind, family=model.spec.kind)
    table = tensors["prompt_embeddings"]
    ours = "prefix" if kind == "PREFIX_TUNING" else "prompt"
    attach(model, Adapters(adapter=(ours,), adapter_length=len(table)), seed=0, name=name)
    put_added(model, {f"decoder.ahead.{ours}": table}, name)


def _sorted(tensors: Mapping[str, Tensor]) -> Sorted:
    found = Sorted()
    for name, value in tensors.items():
        if ".original_module." in name or ".token_adapter.base_layer." in name:  # the base's own, kept beside
            continue
        plain = re.sub(r"\.(ln_tuning_layers|modules_to_save)\.", ".", name.removeprefix(PREFIX))
        ending = next((ending for ending in SUFFIXES if plain.endswith("." + ending)), None)
        if ending is None:
            found.whole[plain] = value
        else:
            found.own[plain.removesuffix("." + ending)][SUFFIXES[ending]] = value
    return found


def _drop_copies(found: Sorted, layout: Layout) -> None:
    """Leave out the rows of a tied output table: they are the embedding's, a second time."""
    rows = {module: own["rows"] for module, own in found.own.items() if "rows" in own}
    for module, value in rows.items():
        tied = any(re.fullmatch(pattern, f"{module}.weight") for pattern in layout.ignored)
        if tied and any(torch.equal(value, other) for name, other in rows.items() if name != module):
            del found.own[module]


def _spellings(module: str, layout: Layout) -> set[str]:
    return {module, module.removeprefix(layout.prefix), layout.prefix + module}


def _held(model: Transformer, layout: Layout, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers that are kept whole, as ours. ModelError for one that the model has not, or not of that shape."""
    if not whole:
        return {}
    weights = base_weights(model)
    theirs = {spelt for name in whole for spelt in _spellings(name, layout)}
    mine = tuple(e for e in layout.entries if theirs & set(e.theirs))
    read = to_ours(Layout(mine, layout.prefix, layout.aliases), whole, whole.__getitem__,
                   wanted={name: value.shape for name, value in weights.items()})  # fmt: skip
    if read.missing or read.extra:
        raise ModelError("adapters.no-place", names=", ".join([*read.missing, *read.extra][:8]),
                         count=len(read.missing) + len(read.extra))  # fmt: skip
    for name, value in read.tensors.items():
        grows = name in TABLES and value.shape[1:] == weights[name].shape[1:] and len(value) > len(weights[name])
        if value.shape != weights[name].shape and not grows:
            raise ModelError("adapters.other-shape", name=name, shape=tuple(value.shape),
                             wanted=tuple(weights[name].shape))  # fmt: skip
    return read.tensors


def _put_rows(
    model: Transformer, config: Mapping[str, Any], rows: dict[str, Tensor], held: dict[str, Tensor], name: str
) -> None:
    """New rows of tables: those that were trained alone, or those beyond the base's in tables that were kept whole,
    which are taken out of ``held``."""
    given = config.get("trainable_token_indices")
    indices = next(iter(given.values())) if isinstance(given, Mapping) else given
    weights = base_weights(model)
    grown = {path: held[key] for key, path in TABLES.items() if key in held and len(held[key]) > len(weights[key])}
    if not rows and not grown:
        return
    if rows and grown:
        raise ModelError("adapters.rows-twice")
    first, stop = (min(indices), max(indices) + 1) if rows else (model.spec.vocabulary, len(next(iter(grown.values()))))

    def of(path: str, table: nn.Module) -> Tensor:
        known = table.weight.detach()[first:stop].float()  # type: ignore[union-attr, index]
        made = torch.cat([known, known.new_full((stop - first - len(known), known.shape[1]), torch.nan)])
        if path in rows:
            made[torch.tensor(indices) - first] = rows[path].to(made)
        elif path in grown:
            made = grown[path][first:].to(made)
        if made.isnan().any():
            raise ModelError("adapters.rows-unknown", table=path, first=first, stop=stop)
        return made

    put_rows(model, first, of, name=name)
    for key, path in TABLES.items():
        if path in grown:
            held[key] = held[key][:first]


def _shapes(model: Transformer, by_path: Mapping[str, list[tuple[Piece, dict[str, Tensor], str]]]) -> None:
    """ModelError for a tensor that does not fit its layer."""
    for path, given in by_path.items():
        layer = innermost(model.get_submodule(path))
        for piece, own, module in given:
            height, width = piece.stop - piece.start, int(layer.in_features)  # type: ignore[arg-type]
            wanted = {"a": (None, width), "b": (height, None), "m": (height,)}
            wanted["l"] = (1, width) if "l" in own and own["l"].shape[0] == 1 != height else (height, 1)
            for key, value in own.items():
                fits = [w in (None, n) for w, n in zip(wanted[key], value.shape, strict=False)]
                if len(wanted[key]) != value.dim() or not all(fits):
                    raise ModelError("adapters.other-shape", name=f"{module} ({key})", shape=tuple(value.shape),
                                     wanted=wanted[key])  # fmt: skip


def _lora(linear: nn.Module, *, given: list, config: Mapping[str, Any], name: str) -> nn.Module:
    """One adapter of ours from theirs of some rows. Where these have several ranks or scales, it has the highest rank,
    and the scales are in B."""
    ranks = [len(own["a"]) for _, own, _ in given]
    alphas = [_alpha(config, module) for _, _, module in given]
    rslora, rank = bool(config.get("use_rslora")), max(ranks)
    scales = [alpha / (r**0.5 if rslora else r) for alpha, r in zip(alphas, ranks, strict=True)]
    same = len(set(zip(ranks, alphas, strict=True))) == 1
    alpha = alphas[0] if same else scales[0] * (rank**0.5 if rslora else rank)
    make = DoRA if any("m" in own for _, own, _ in given) else LoRA
    made = make(linear, rank=rank, alpha=alpha, rslora=rslora, dropout=config.get("lora_dropout") or 0.0,
                rows=tuple((piece.start, piece.stop) for piece, _, _ in given), name=name)  # fmt: skip
    with torch.no_grad():
        for a, b, scale, (_, own, _) in zip(made.a.split(rank), made.b.split(made.heights), scales, given, strict=True):
            a.zero_()
            a[: len(own["a"])] = own["a"]
            b[:, : len(own["a"])] = own["b"] * (1.0 if same else scale / made.scale)
        if isinstance(made, DoRA):
            made.m.copy_(torch.cat([own["m"].flatten() for _, own, _ in given]))
    return made


def _alpha(config: Mapping[str, Any], module: str) -> float:
    """What scales the adapter of a module: the first pattern that its name ends with, else that of all."""
    patterns = config.get("alpha_pattern") or {}
    fitting = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return float(next(fitting, config["lora_alpha"]))


def _ia3(linear: nn.Module, *, given: list, config: Mapping[str, Any], name: str) -> nn.Module:
    reads = [own["l"].shape[0] == 1 for _, own, _ in given]
    piece, own, module = given[0]
    if any(reads):
        if len(given) > 1 or piece.stop - piece.start != linear.out_features:
            raise ModelError("adapters.reads-in-part", module=module)
        made = IA3(linear, reads=True, name=name)
    else:
        made = IA3(linear, rows=tuple((piece.start, piece.stop) for piece, _, _ in given), name=name)
    made.l.data.copy_(torch.cat([own["l"].flatten() for _, own, _ in given]))
    return made


def _settings(config: Mapping[str, Any]) -> Adapters:
    """What the settings of such an adapter would be."""
    kind = config["peft_type"]
    if kind == "LORA":
        return Adapters(
            adapter=("dora",) if config.get("use_dora") else ("lora",),
            adapter_rank=config["r"],
            adapter_alpha=float(config["lora_alpha"]),
            adapter_rslora=bool(config.get("use_rslora")),
            adapter_dropout=config.get("lora_dropout") or 0.0,
        )
    return Adapters(adapter=("ia3",) if kind == "IA3" else ("norms",))
