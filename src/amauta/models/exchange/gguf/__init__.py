"""Models in GGUF files: the spec, the weights and (``tokenizer.py``) the tokenizer, each by itself.

Architectures llama, qwen2, qwen3, gpt2 and gemma3; types F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and
Q6_K. A quantised tensor is turned into the model's own type a few rows at a time, straight into its place.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models.exchange.gguf.file import GgufFile
from amauta.models.exchange.gguf.names import Part, parts
from amauta.models.exchange.gguf.spec import FREQUENCIES, Reader, spec_of
from amauta.models.exchange.gguf.tokenizer import load_tokenizer
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

__all__ = ["SUFFIX", "load", "load_tokenizer", "read_spec"]
SUFFIX = ".gguf"


def read_spec(path: Path) -> Spec:
    """The spec of the model at ``path``; no weights are read. ModelError as ``load``."""
    return spec_of(GgufFile(path))


def load(path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """The model at ``path``, in evaluation mode, its weights in ``dtype``.

    Raises ModelError: no GGUF, cut off or damaged (with the offset), an architecture, an entry or a type of numbers
    that we do not compute, tensors that are missing, left over, or of another shape than the metadata say.
    """
    file = GgufFile(path)
    spec = spec_of(file)
    listed = list(parts(spec, Reader(file).architecture))
    model = Transformer(spec)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    _check(file, listed, shapes)
    tensors = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
    for part in listed:
        _fill(file, part, part.of(tensors[part.ours]))
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def _fill(file: GgufFile, part: Part, into: Tensor) -> None:
    info = file.tensors[part.theirs]
    if not part.heads:
        file.fill(info, into)
        return
    theirs = torch.empty(into.shape, dtype=into.dtype)
    file.fill(info, theirs)
    pairs = theirs.view(part.heads, into.shape[0] // part.heads // 2, 2, *into.shape[1:])  # (H, K/2, 2, …)
    into.copy_(pairs.transpose(1, 2).reshape(into.shape))


def _check(file: GgufFile, listed: list[Part], shapes: dict[str, torch.Size]) -> None:
    """ModelError for tensors that are missing, left over or of another shape."""
    names = [part.theirs for part in listed]
    missing = [name for name in names if name not in file.tensors]
    if missing:
        raise ModelError("gguf.tensors-missing", path=file.path, names=_some(missing))
    extra = sorted(file.tensors.keys() - {*names, FREQUENCIES})
    if extra:
        raise ModelError("gguf.tensors-extra", path=file.path, names=_some(extra))
    for part in listed:
        seen, expected = file.tensors[part.theirs].shape, _shape(part, shapes[part.ours])
        if seen != expected:
            raise ModelError("gguf.tensor-shape", path=file.path, name=part.theirs, seen=seen, expected=expected)
    assert sum(math.prod(_shape(part, shapes[part.ours])) for part in listed) == sum(map(math.prod, shapes.values()))


def _shape(part: Part, whole: torch.Size) -> tuple[int, ...]:
    return tuple(whole) if part.rows is None else (part.rows, *whole[1:])


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
