"""Adapters in the layout of peft, both ways: LoRA and DoRA, IA3, norms, a decoder's prefix and prompt; beside the first
two also whole layers (a new output, norms, embeddings), beside LoRA new tokens.

Its tensors bear the names of the base's modules in transformers, so a family's layout says which rows of which of ours
they change. Where several of our adapters act on one of its modules (q and v of GPT-2's one matrix), or one of ours on
several of its, the product is the same and only its form is another: more rank, or the same A twice.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amauta.adapt.around import Around, innermost
from amauta.adapt.ia3 import IA3
from amauta.adapt.lora import DoRA, LoRA
from amauta.adapt.prefix import Ahead
from amauta.adapt.tokens import NewRows
from amauta.models import exchange
from amauta.models.adapters.parts import base_weights, parts
from amauta.models.exchange.layout import Entry, Layout, to_theirs
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

PREFIX = "base_model.model."
TASKS = {"classifier": "SEQ_CLS", "span": "QUESTION_ANS"}
Files = tuple[dict[str, Any], dict[str, Tensor]]  # adapter_config.json, and the tensors


@dataclass(frozen=True)
class Piece:
    """One of their modules: rows ``start`` to ``stop`` of our layer at ``path``."""

    module: str
    path: str
    start: int
    stop: int


def layout_of(spec: Spec) -> Layout | None:
    """The layout of the family that a model of this spec is saved in; None for one that no other library has."""
    return exchange.family(exchange.written_as(spec)).layout(spec)


def pieces_of(layout: Layout, model: Transformer) -> Iterator[Piece]:
    """Their modules that hold weights, in our order."""
    for entry in layout.entries:
        if entry.ours.endswith(".weight"):
            layer = innermost(model.get_submodule(entry.ours.removesuffix(".weight")))
            height = getattr(layer, "out_features", None) or getattr(layer, "num_embeddings", None)
            yield from _pieces(entry, height or len(layer.weight))  # type: ignore[arg-type]


def _pieces(entry: Entry, height: int) -> Iterator[Piece]:
    at = 0
    for name, rows in zip(entry.theirs, entry.rows or (height,), strict=True):
        yield Piece(name.removesuffix(".weight"), entry.ours.removesuffix(".weight"), at, at + rows)
        at += rows


def written(model: Transformer, name: str) -> Files | None:
    """The adapter as peft keeps it; None where it has no such kind, or not this combination."""
    layout = layout_of(model.spec)
    found = list(parts(model, name))  # of several at one place too
    kinds = {part.kind for _, part in found if not isinstance(part, NewRows)}
    rows = {path: part for path, part in found if isinstance(part, NewRows)}
    held = list(model.adapters[name].held)
    if layout is None:
        return None
    if kinds in ({"prefix"}, {"prompt"}) and model.spec.kind == "decoder" and not held and not rows:
        return _before(model, next(part for _, part in found if isinstance(part, Ahead)))
    norms = model.adapters[name].settings.adapter == ("norms",)
    whole = _whole_modules(layout, model, held)
    if whole is None or (len(kinds) != 1 if not norms else kinds):
        return None
    config: dict[str, Any] = {"task_type": _task(model.spec), "inference_mode": True, "modules_to_save": None}
    if norms and not rows:
        return config | {"peft_type": "LN_TUNING", "target_modules": whole[0]}, _renamed(whole[1])
    saved = {PREFIX + key: value for key, value in whole[1].items()}
    config["modules_to_save"] = whole[0] or None
    around = [(path, part) for path, part in found if isinstance(part, Around)]
    if kinds == {"ia3"} and not rows:
        own, tensors = _ia3(layout, model, around)
    elif kinds <= {"lora", "dora"}:
        own, tensors = _lora(layout, model, around)
        tokens, more = _tokens(layout, rows)
        own, tensors = own | tokens, tensors | more
    else:
        return None
    return config | own, tensors | saved


def _lora(layout: Layout, model: Transformer, around: list[tuple[str, Around]]) -> Files:
    by_path = {path: part for path, part in around if isinstance(part, LoRA)}
    tensors: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    for piece in pieces_of(layout, model):
        part = by_path.get(piece.path)
        slices = _overlaps(part, piece) if part is not None else []
        if part is None or not slices:
            continue
        a = torch.cat([part.a.detach().split(part.rank)[number] for number, _, _ in slices])
        b = part.b.new_zeros(piece.stop - piece.start, len(a))
        for column, (_, top, rows) in enumerate(slices):
            b[top : top + len(rows), column * part.rank : (column + 1) * part.rank] = rows
        at = PREFIX + piece.module
        tensors |= {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b}
        if isinstance(part, DoRA):
            tensors[f"{at}.lora_magnitude_vector"] = _magnitudes(part, piece)
        ranks[piece.module] = len(a)
        alphas[piece.module] = part.alpha * (len(slices) ** 0.5 if part.rslora else len(slices))
    first = next(iter(by_path.values()))
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": _whole_number(alpha), "lora_dropout": first.dropout,
        "use_rslora": first.rslora, "use_dora": isinstance(first, DoRA), "bias": "none",
        "fan_in_fan_out": _turned(layout), "init_lora_weights": True,
        "rank_pattern": {module: r for module, r in ranks.items() if r != rank},
        "alpha_pattern": {module: _whole_number(a) for module, a in alphas.items() if a != alpha},
        "target_modules": _targets(ranks, layout, model),
    }, tensors  # fmt: skip


def _overlaps(part: LoRA, piece: Piece) -> list[tuple[int, int, Tensor]]:
    """The slices of an adapter that change the piece: (number, first row in the piece, rows of B)."""
    found = []
    for number, ((start, stop), b) in enumerate(zip(part.rows, part.b.detach().split(part.heights), strict=True)):
        low, high = max(start, piece.start), min(stop, piece.stop)
        if low < high:
            found.append((number, low - piece.start, b[low - start : high - start]))
    return found


def _magnitudes(part: DoRA, piece: Piece) -> Tensor:
    """m of the piece's rows; of those that are not adapted, the norm that they have."""
    whole = innermost(part).weight.detach().float().norm(dim=1)  # type: ignore[union-attr, operator]
    for (start, stop), m in zip(part.rows, part.m.detach().split(part.heights), strict=True):
        whole[start:stop] = m
    return whole[piece.start : piece.stop]


def _ia3(layout: Layout, model: Transformer, around: list[tuple[str, Around]]) -> Files:
    by_path = {path: part for path, part in around if isinstance(part, IA3)}
    tensors: dict[str, Tensor] = {}
    reading: dict[str, int] = {}
    modules: dict[str, int] = {}
    for piece in pieces_of(layout, model):
        part = by_path.get(piece.path)
        if part is None or not (part.reads or any(a < piece.stop and piece.start < b for a, b in part.rows)):
            continue
        gains = part.gains().detach()
        modules[piece.module] = 0
        if part.reads:
            reading[piece.module] = 0
        at = f"{PREFIX}{piece.module}.ia3_l"
        tensors[at] = gains[None] if part.reads else gains[piece.start : piece.stop, None]
    return {
        "peft_type": "IA3", "target_modules": _targets(modules, layout, model), "fan_in_fan_out": _turned(layout),
        "feedforward_modules": _targets(reading, layout, model), "init_ia3_weights": True,
    }, tensors  # fmt: skip


def _tokens(layout: Layout, rows: Mapping[str, NewRows]) -> Files:
    """New rows of the tables that they stand in."""
    names = {entry.ours: entry.theirs[0].removesuffix(".weight") for entry in layout.entries}
    tensors = {f"{PREFIX}{names[path + '.weight']}.token_adapter.trainable_tokens_delta": part.rows.detach()
               for path, part in rows.items()}  # fmt: skip
    indices = {names[path + ".weight"].rpartition(".")[2]: list(range(part.first, part.first + len(part.rows)))
               for path, part in rows.items()}  # fmt: skip
    return {"trainable_token_indices": indices or None}, tensors


def _before(model: Transformer, part: Ahead) -> Files:
    spec, prefix = model.spec, part.kind == "prefix"
    return {
        "peft_type": "PREFIX_TUNING" if prefix else "PROMPT_TUNING", "task_type": _task(spec), "inference_mode": True,
        "num_virtual_tokens": part.length, "num_layers": spec.layers, "num_transformer_submodules": 1,
        "num_attention_heads": spec.groups if prefix else spec.heads,
        "token_dim": spec.groups * spec.head if prefix else spec.embedded,
        **({"encoder_hidden_size": spec.width, "prefix_projection": False} if prefix else
           {"prompt_tuning_init": "RANDOM"}),
    }, {"prompt_embeddings": part.given().detach()}  # fmt: skip


def _whole_modules(layout: Layout, model: Transformer, held: list[str]) -> tuple[list[str], dict[str, Tensor]] | None:
    """Their modules that ``held`` weights of ours make up, and their tensors; None where one is not whole, or the
    embedding is tied to the output's table, which a copy would untie."""
    weights = base_weights(model)
    if model.spec.tied and "embedding.weight" in held:
        return None
    bare = not model.spec.outputs
    mine = tuple(entry for entry in layout.entries if entry.ours in held)
    if {entry.ours for entry in mine} != set(held):
        return None
    tensors = to_theirs(Layout(mine, layout.prefix), {name: weights[name].detach() for name in held}, bare=bare)
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    everything = {name.removeprefix(layout.prefix) if bare else name for e in layout.entries for name in e.theirs}
    if any(name.rpartition(".")[0] in modules and name not in tensors for name in everything):
        return None
    heads = {name.removesuffix(".weight").removesuffix(".bias")
             for e in mine if e.ours.startswith("outputs.") for name in e.theirs}  # fmt: skip
    return list(dict.fromkeys(_saved(m, layout.prefix) if m in heads else m for m in modules)), tensors


def _saved(module: str, prefix: str) -> str:
    """A head is saved whole: "classifier" for classifier.dense."""
    return module.removeprefix(prefix).split(".")[0]


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the names that norms have in LN_TUNING."""
    split = [(*name.rpartition("."), value) for name, value in tensors.items()]
    return {f"{PREFIX}{module}.ln_tuning_layers.{leaf}": value for module, _, leaf, value in split}


def _targets(modules: Mapping[str, int], layout: Layout, model: Transformer) -> list[str]:
    """The last parts of the names of ``modules`` where these mean no others, else the names in full."""
    short = sorted({module.rpartition(".")[2] for module in modules})
    meant = {piece.module for piece in pieces_of(layout, model) if piece.module.rpartition(".")[2] in short}
    return short if meant == set(modules) else list(modules)


def _turned(layout: Layout) -> bool:
    return any(entry.turned for entry in layout.entries)


def _task(spec: Spec) -> str | None:
    """What the model is for; nothing for an encoder-decoder, since peft 0.21 cannot open such a folder beside
    transformers 5 (it looks for a method that is gone), and without a task it can."""
    named = next((TASKS[output] for output in spec.outputs if output in TASKS), None)
    return named or ("CAUSAL_LM" if spec.kind == "decoder" and "language" in spec.outputs else None)


def _whole_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
