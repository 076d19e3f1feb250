"""What a model is and what it will cost, before anything of it is loaded: the result of ``amauta models show``.

A named size needs no torch here.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from amauta.base.errors import ModelError
from amauta.base.names import nearest
from amauta.models import count, memory
from amauta.models.contract.rows import card_in
from amauta.models.sizes import NAMED, named
from amauta.models.spec import Spec

CACHE_BITS = 16


def spec_called(name: str, vocabulary: int | None = None) -> tuple[Spec, str]:
    """The spec that ``name`` stands for and where it was found: a named size, else what ``hub.find_model`` finds.

    Of a folder config.json is read, of a file its header; no weights. ``vocabulary`` replaces the model's own.
    Raises ModelError: nothing has this name, or a size needs a vocabulary, or an option is not computed here.
    """
    spec, where, _ = _called(name, vocabulary)
    return spec, where


def _called(name: str, vocabulary: int | None) -> tuple[Spec, str, Path | None]:
    """As ``spec_called``, and the folder or file where its weights are."""
    if name in NAMED:
        return named(name, **({} if vocabulary is None else {"vocabulary": vocabulary})), "size", None
    from amauta.hub import find_model

    try:
        found = find_model(name)
    except ModelError as error:
        if error.key == "hub.nothing-there" and (near := nearest(name, NAMED)):
            raise ModelError("card.nothing", reason=error, near=near) from None
        raise
    if found.kind == "llama2c":
        from amauta.models.exchange import llama2c

        spec = llama2c.read_spec(found.path)
    elif found.kind == "gguf":
        from amauta.models.exchange import gguf

        spec = gguf.read_spec(found.path)
    elif found.kind == "adapter":
        from amauta.models.exchange.opening import spec_of

        spec = spec_of(found)
    else:
        from amauta.models.exchange import read_config, read_spec, sentence

        config = read_config(sentence.encoder_folder(found.path))
        spec = sentence.overlay(found.path, read_spec(config))
    return spec if vocabulary is None else replace(spec, vocabulary=vocabulary), found.source, found.path


def card(
    name: str, *, length: int | None = None, source: int | None = None, rows: int = 1, vocabulary: int | None = None
) -> dict[str, Any]:
    """What ``name`` is, its parameters by part, FLOPs of a token and bytes of memory.

    ``length``: tokens of a sequence, the longest the model takes when left out; ``source``: the encoder's, of an
    encoder-decoder (``length`` when left out); ``rows``: sequences at a time, for the cache and the activations.
    Raises ModelError: as ``spec_called``; a length beyond the model's positions.
    """
    spec, where, folder = _called(name, vocabulary)
    T = spec.context if length is None else length
    S = T if source is None else source
    for tokens in (T, S):
        if spec.limit is not None and tokens > spec.limit:
            raise ModelError("card.too-long", length=tokens, limit=spec.limit)
    lengths = {"length": T} | ({"source": S} if spec.kind == "encoder-decoder" else {})
    return {
        "name": name,
        "found": where,
        "kind": spec.kind,
        "parameters": count.parameters(spec),
        "parts": count.parts(spec),
        **_build(spec),
        "flops_per_token": lengths | _flops(spec, T, S),
        "memory": {
            "weights": {kind: memory.weights(spec, bits) for kind, bits in memory.BITS.items()},
            "cache": lengths | {"rows": rows} | _cache(spec, T, S, rows),
            "training": {optimizer: _states(spec, optimizer) for optimizer in memory.OPTIMIZERS},
            "activations": lengths | {"rows": rows} | _activations(spec, T, S, rows),
        },
        **({"contract": held["contract"]} if folder and (held := card_in(folder)).get("contract") else {}),
    }


def _build(spec: Spec) -> dict[str, Any]:
    """Layers, widths, heads and manners."""
    facts = {
        **{"layers" if spec.kind != "encoder-decoder" else f"{name}_layers": n
           for name, n in count.stacks(spec).items()},
        "width": spec.width, "heads": spec.heads, "kv_heads": spec.groups, "head_width": spec.head,
        "feedforward": spec.inner, "gated": spec.gated, "activation": spec.activation, "positions": spec.positions,
        "context": spec.limit, "norm": spec.norm, "norm_place": spec.norm_place, "vocabulary": spec.vocabulary,
        "tied": spec.tied, "outputs": list(spec.outputs),
    }  # fmt: skip
    optional = {
        "embedding_width": spec.embedding_width, "distinct_layers": spec.distinct_layers, "window": spec.window,
        "full_every": spec.full_every, "segments": spec.segments or None,
        "shared_stacks": spec.shared_stacks or None, "pooler": None if spec.pooler == "none" else spec.pooler,
    }  # fmt: skip
    return facts | {name: value for name, value in optional.items() if value is not None}


def _flops(spec: Spec, length: int, source: int) -> dict[str, Any]:
    """Of one token in each stack, and of all stacks together."""
    forward = count.forward_flops(spec, length, source)
    return {
        "forward": sum(forward.values()),
        "training": count.training_flops(spec, length, source),
        "stacks": {name: {"forward": n, "training": count.TRAINING * n} for name, n in forward.items()},
    }


def _cache(spec: Spec, length: int, source: int, rows: int) -> dict[str, int]:
    """Bytes of keys and values in 16 bits."""
    found = {
        "bits": CACHE_BITS,
        "per_token": memory.cache(spec, 1, source=0),
        "bytes": memory.cache(spec, length, rows=rows, source=source),
    }
    if spec.kind == "encoder-decoder":
        found["per_source_token"] = memory.cache(spec, 0, source=1)
    if spec.window is not None:
        found["bytes_within_windows"] = memory.cache(spec, length, rows=rows, source=source, windows=True)
    return found


def _states(spec: Spec, optimizer: memory.Optimizer) -> dict[str, dict[str, int]]:
    """Bytes of what training keeps, by precision, item by item."""
    states = {precision: memory.states(spec, precision, optimizer) for precision in memory.PRECISIONS}
    return {precision: asdict(found) | {"total": found.total} for precision, found in states.items()}


def _activations(spec: Spec, length: int, source: int, rows: int) -> dict[str, int]:
    if spec.reformer is not None:
        return {}
    return {kept: memory.activations(spec, length, rows=rows, source=source, kept=kept) for kept in memory.KEPT}
