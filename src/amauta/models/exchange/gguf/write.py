"""A model written as GGUF, and read back before it is said to be done.

Architectures llama, qwen2, qwen3 and gpt2. Types f32, f16, bf16, q8_0 and q4_0, bit for bit as the ``gguf`` package
quantises; a layer that has few bits already and is one of these is written as it is. As in llama.cpp's converter,
norms, biases and learned positions stay F32, and a matrix whose rows are not whole blocks becomes F16. With q4_0 the
table that gives the logits is Q8_0: llama.cpp's quantiser gives it more bits too (Q6_K, which nothing in Python
writes).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.exchange import gguf
from amauta.models.exchange.gguf import spec as gguf_spec
from amauta.models.exchange.gguf import tokenizer as gguf_tokenizer
from amauta.models.exchange.gguf.file import ARRAY, CHUNK, DEFAULT_ALIGNMENT, MAGIC, STRING, TensorInfo, block_of, codes
from amauta.models.exchange.gguf.names import Part, interleaved, parts
from amauta.models.exchange.gguf.tokenizer import AnyTokenizer
from amauta.models.exchange.readback import compare, compare_tokenizers
from amauta.models.quantized import few_bits, in_full
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn.codes import RUN
from amauta.nn.quantized import Quantized
from amauta.runs import aside, raise_if_full

WriteType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FILE_TYPES: dict[WriteType, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}  # llama.cpp's llama_ftype


@dataclass(frozen=True)
class Plan:
    """A file that is not there yet: the metadata and the table of tensors, each with its part of ours."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, TensorInfo]
    sources: dict[str, tuple[Tensor, int]]  # ours, and the heads that are turned

    def fill(self, info: TensorInfo, into: Tensor) -> None:
        into.copy_(self.sources[info.name][0])


def write(
    model: Transformer,
    tokenizer: AnyTokenizer | None,
    path: Path,
    *,
    type: WriteType = "q8_0",
    name: str | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write ``model`` and ``tokenizer`` to ``path``, whole or not at all, and compare the file with the model.

    Returns {"file", "type", "bytes", "tokenizer", "kl", "largest_difference", "top1_agreement", "tolerance"}: see
    ``readback.compare``. ``name``: what the file calls the model, its own name when left out; ``tolerance``: in
    place of the type's own.

    Raises ModelError: a model or a tokenizer for which GGUF has no words, with what it is (nothing is written); a
    file that does not compute what the model does. An older file at ``path`` then stays as it was.
    """
    path = Path(path)
    plan = planned(model, tokenizer, path, type=type, name=name or path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = aside(path)
    try:
        _stream(plan, made)
        compare_tokenizers(tokenizer, gguf.load_tokenizer(made), path)
        figures = compare(
            model,
            gguf.load(made, device=model.device, dtype=_dtype(model)),
            tokenizer,
            path,
            type=type,
            tolerance=tolerance,
        )
        os.replace(made, path)
    except BaseException as error:
        made.unlink(missing_ok=True)
        raise_if_full(error, path)
        raise
    return {
        "file": str(path),
        "type": type,
        "bytes": path.stat().st_size,
        "tokenizer": tokenizer is not None,
        **figures,
    }


def planned(model: Transformer, tokenizer: AnyTokenizer | None, path: Path, *, type: WriteType, name: str) -> Plan:
    """What will be written. ModelError for a model that GGUF has no words for."""
    spec = model.spec
    if spec.kind != "decoder" or spec.outputs != ("language",) or spec.reformer is not None:
        raise _without_words(f"kind={spec.kind}, outputs={','.join(spec.outputs) or '-'}, family={spec.family}")
    state = {key: value.detach() for key, value in in_full(model).named_parameters()}
    ready = {f"{key}.weight": blocks(layer) for key, layer in few_bits(model).items()}
    architecture = gguf_spec.architecture_of(spec)
    fields: dict[str, Any] = {
        **gguf_spec.fields_of(spec), "general.type": "model", "general.name": name,
        "general.file_type": FILE_TYPES[type], "general.quantization_version": 2,
        **gguf_tokenizer.fields_of(tokenizer, spec.vocabulary),
    }  # fmt: skip
    sources = {}
    whole: dict[str, Part] = {}  # of layers that have few bits already
    for part in parts(spec, architecture):
        if part.ours in state:
            sources[part.theirs] = part.of(state[part.ours]), part.heads
        if part.ours in ready:
            whole[part.theirs] = part
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        sources[gguf_spec.FREQUENCIES] = gguf_spec.llama3_factors(spec.rope_scaling, spec.head, spec.rope_theta), 0
    tensors: dict[str, TensorInfo] = {}
    at = 0
    for key, (source, _) in list(sources.items()):
        kind = _kind(key, tuple(source.shape), type, tied=spec.tied)
        block, size = block_of(kind)
        if key in whole and (held := ready[whole[key].ours]) is not None and held[0] == kind:
            sources[key] = whole[key].of(held[1]), whole[key].heads
        tensors[key] = TensorInfo(key, tuple(source.shape), kind, at, source.numel() // block * size)
        at += -(-tensors[key].size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    plan = Plan(path, fields, tensors, sources)
    _refuse_what_is_lost(plan, spec)
    return plan


def _refuse_what_is_lost(plan: Plan, spec: Spec) -> None:
    """ModelError names the fields of the spec that a reader of the planned file would not know."""
    lost = gguf_spec.differences(spec, gguf_spec.spec_of(plan))
    if lost:
        raise _without_words(", ".join(lost))


def _without_words(what: str) -> ModelError:
    return ModelError("gguf.cannot-express", what=what, architectures=", ".join(gguf_spec.WRITABLE))


def _kind(name: str, shape: tuple[int, ...], type: WriteType, *, tied: bool) -> str:
    """The type of one tensor, by llama.cpp's rules."""
    plain = len(shape) < 2 or name.endswith("_norm.weight") or name == "position_embd.weight"
    if plain or not name.endswith(".weight"):
        return "F32"
    gives_logits = name == ("token_embd.weight" if tied else "output.weight")
    kind = "Q8_0" if type == "q4_0" and gives_logits else type.upper()
    return "F16" if shape[-1] % block_of(kind)[0] else kind


def _stream(plan: Plan, path: Path) -> None:
    """Write the planned file, a few rows at a time, and put it on the disk."""
    with path.open("xb") as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(plan.tensors), len(plan.fields)))
        for name, value in plan.fields.items():
            file.write(_text(name) + _value(value))
        numbers = codes()
        for info in plan.tensors.values():
            shape = info.shape[::-1]
            file.write(_text(info.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", numbers[info.kind], info.offset))
        for info in plan.tensors.values():
            file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
            for raw in _raw(*plan.sources[info.name], info.kind):
                file.write(raw.tobytes())
        file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
        file.flush()
        os.fsync(file.fileno())


def _raw(source: Tensor, heads: int, kind: str) -> Iterator[np.ndarray]:
    """The stored bytes of a tensor, a few rows at a time."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if heads:
        source = interleaved(source, heads).reshape(source.shape)
    flat = source.reshape(-1, source.shape[-1])
    if source.dtype == torch.uint8:  # blocks as they are stored
        yield flat.contiguous().cpu().numpy()
        return
    for rows in flat.split(max(1, CHUNK // flat.shape[1])):
        yield quantize(rows.float().cpu().numpy(), GGMLQuantizationType[kind])


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """A value with its type before it: bool, 32-bit unsigned or float, text, or a list of 32-bit numbers or texts."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    head = struct.pack("<I", ARRAY)
    if all(isinstance(one, str) for one in value):
        return head + struct.pack("<IQ", STRING, len(value)) + b"".join(map(_text, value))
    code, number = ("i", 5) if all(isinstance(one, int) for one in value) else ("f", 6)
    return head + struct.pack(f"<IQ{len(value)}{code}", number, len(value), *value)


def _dtype(model: Transformer) -> torch.dtype:
    return model.dtype


def blocks(layer: Quantized) -> tuple[str, Tensor] | None:
    """The type and the stored rows (out, bytes) of a layer that is Q8_0 or Q4_0 already; None of any other.

    Both have a scale for every 32 weights: one for more of them is written several times.
    """
    if layer.zeros is not None or layer.kind == "nf4" or layer.in_features % RUN or layer.group % RUN:
        return None
    eight = layer.kind == "int8"
    runs = (layer.codes ^ 128 if eight else layer.codes).view(layer.out_features, layer.in_features // RUN, -1)
    scales = layer.scales.half().repeat_interleave(layer.group // RUN, dim=1)  # (out, in/32)
    stored = torch.cat([scales.contiguous().view(torch.uint8).view(*scales.shape, 2), runs], dim=-1)
    return "Q8_0" if eight else "Q4_0", stored.flatten(1)
