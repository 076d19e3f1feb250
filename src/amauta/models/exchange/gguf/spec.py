"""GGUF's metadata of a model against our spec, both ways (ggml's docs/gguf.md; llama.cpp, src/models/*.cpp).

What the metadata leave open the tensors decide: an output table of its own, biases, the factors of Llama 3's rotary
frequencies. An entry that changes what is computed and is not computed here is an error that names it.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean
from amauta.models.exchange.gguf.file import Contents
from amauta.models.sizes import GPT2
from amauta.models.spec import RopeScaling, Spec

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2", "gemma3")
FAMILIES = {"gemma3": "gemma3_text"}  # as config.json calls them, where that differs
WRITABLE = ("llama", "qwen2", "qwen3", "gpt2")
FREQUENCIES = "rope_freqs.weight"  # what Llama 3's rotary frequencies are divided by, (K/2,)

# Entries that are read; any other below the architecture's name must be zero, false or absent.
_READ = {
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.sliding_window",
    "attention.sliding_window_pattern", "rope.dimension_count", "rope.freq_base", "rope.freq_base_swa",
    "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
}  # fmt: skip
# Entries that describe the model and change nothing for one within its context; a causal mask is what we compute.
_CARRIES_NOTHING = {"rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout",
                    "attention.causal"}  # fmt: skip
# Fields without a part in a language model's logits.
_NOT_COMPUTED = {"family", "dropout", "embedding_dropout", "attention_dropout", "init_std", "pooling", "labels",
                 "label_names", "classifier_bias", "relative_buckets", "relative_distance"}  # fmt: skip


class Reader:
    """The metadata of one file, asked entry by entry; ModelError names what is missing or of the wrong type."""

    def __init__(self, file: Contents) -> None:
        self.file = file
        self.architecture = self._plain("general.architecture", str)
        if self.architecture not in ARCHITECTURES:
            hint = did_you_mean(self.architecture, ARCHITECTURES)
            raise ModelError(
                "gguf.architecture",
                path=file.path, seen=self.architecture, allowed=", ".join(ARCHITECTURES), hint=hint,
            )  # fmt: skip

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above 0; a list of equal ones (a figure for each layer) is one."""
        found = self._value(name, default)
        if isinstance(found, list) and found and len(set(found)) == 1:
            found = found[0]
        if isinstance(found, list) and all(isinstance(one, int) for one in found):
            self.refuse(name, "the same for every layer")
        if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 1 << 31:
            raise ModelError("gguf.bad-value", path=self.file.path, name=self.key(name), value=found)
        return found

    def real(self, name: str, default: float | None = None) -> float:
        """A finite number above 0, as the shortest decimal that is the stored 32-bit one: 1e-05, not 9.99999974e-06."""
        found = self._value(name, default)
        if not isinstance(found, float | int) or isinstance(found, bool) or not 0 < found < math.inf:
            raise ModelError("gguf.bad-value", path=self.file.path, name=self.key(name), value=found)
        return float(str(np.float32(found)))

    def get(self, name: str) -> Any:
        return self.file.fields.get(self.key(name))

    def key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def refuse(self, name: str, allowed: object) -> None:
        raise ModelError(
            "gguf.unsupported", path=self.file.path, name=self.key(name), value=self.get(name), allowed=allowed
        )

    def refuse_unknown(self) -> None:
        """ModelError for an entry that is not read and asks for something (experts, soft caps, other scalings)."""
        for key, value in self.file.fields.items():
            name = key.removeprefix(self.architecture + ".")
            if name != key and name not in _READ and name not in _CARRIES_NOTHING and value:
                self.refuse(name, "0")
        for key, allowed in (("general.type", ("model",)), ("split.count", (0, 1))):
            value = self.file.fields.get(key, allowed[0])
            if value not in allowed:
                shown = ", ".join(map(str, allowed))
                raise ModelError("gguf.unsupported", path=self.file.path, name=key, value=value, allowed=shown)

    def _value(self, name: str, default: object) -> Any:
        found = self.get(name)
        if found is None and default is None:
            raise ModelError("gguf.no-entry", path=self.file.path, name=self.key(name))
        return default if found is None else found

    def _plain(self, key: str, kind: type) -> Any:
        found = self.file.fields.get(key)
        if not isinstance(found, kind):
            raise ModelError("gguf.no-entry", path=self.file.path, name=key)
        return found


def spec_of(file: Contents) -> Spec:
    """The spec of the model in ``file``. ModelError for what we do not compute."""
    read = Reader(file)
    read.refuse_unknown()
    table = file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise ModelError("gguf.tensors-missing", path=file.path, names="token_embd.weight")
    known = read.count("vocab_size", table.shape[0])
    if known != table.shape[0]:
        raise ModelError("gguf.vocabulary", path=file.path, rows=table.shape[0], seen=known)
    width, heads = read.count("embedding_length"), read.count("attention.head_count")
    fields: dict[str, Any] = {
        "vocabulary": table.shape[0],
        "context": read.count("context_length"),
        "width": width,
        "layers": read.count("block_count"),
        "heads": heads,
        "kv_heads": read.count("attention.head_count_kv", heads),
        "head_width": read.count("attention.key_length", 0 if width % heads else width // heads),
        "feedforward": read.count("feed_forward_length"),
        "tied": "output.weight" not in file.tensors,
        "family": FAMILIES.get(read.architecture, read.architecture),
    }
    if read.count("attention.value_length", fields["head_width"]) != fields["head_width"]:
        read.refuse("attention.value_length", fields["head_width"])
    if read.architecture == "gpt2":
        eps = read.real("attention.layer_norm_epsilon")
        return Spec(**fields | GPT2 | {"norm_eps": eps, "tied": fields["tied"]})
    return Spec(**fields | _rotary(read, fields) | _manner(read, fields))


def _manner(read: Reader, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Norms, biases and windows of the rotary architectures."""
    names = read.file.tensors
    found: dict[str, Any] = {"norm_eps": read.real("attention.layer_norm_rms_epsilon")}
    if read.architecture == "llama":
        found["bias"] = "blk.0.ffn_down.bias" in names
        qkv = "blk.0.attn_q.bias" in names
        return found | ({} if qkv == found["bias"] else {"qkv_bias": qkv})
    if read.architecture == "qwen2":
        return found | {"qkv_bias": True}
    if read.architecture == "qwen3":
        return found | {"qk_norm": True}
    found |= {"qk_norm": True, "norm_place": "both", "activation": "gelu_tanh"}
    found["embedding_scale"] = fields["width"] ** 0.5
    if fields["layers"] == 62:  # of the 27B alone, as llama.cpp has it: D/H is not K there
        found["attention_scale"] = (fields["width"] / fields["heads"]) ** -0.5
    if read.get("attention.sliding_window"):
        pattern = read.get("attention.sliding_window_pattern") or 6
        if not isinstance(pattern, int):
            read.refuse("attention.sliding_window_pattern", 6)
        found |= {"window": read.count("attention.sliding_window"), "full_every": pattern,
                  "local_theta": read.real("rope.freq_base_swa", 10_000.0)}  # fmt: skip
    return found


def _rotary(read: Reader, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary base and scaling."""
    turned = read.get("rope.dimension_count")
    if turned is not None and turned != fields["head_width"]:
        read.refuse("rope.dimension_count", fields["head_width"])
    kind = read.get("rope.scaling.type") or "linear"
    factor = read.get("rope.scaling.factor") or read.get("rope.scale_linear") or 1.0
    scaling = None
    if kind not in ("none", "linear"):
        read.refuse("rope.scaling.type", "none, linear")
    if kind == "linear" and factor != 1.0:
        scaling = RopeScaling("linear", float(factor))
    theta = read.real("rope.freq_base", 10_000.0)
    frequencies = read.file.tensors.get(FREQUENCIES)
    if frequencies is not None:
        if frequencies.shape != (fields["head_width"] // 2,) or read.architecture != "llama" or scaling is not None:
            raise ModelError("gguf.frequencies", path=read.file.path, name=FREQUENCIES)
        factors = torch.empty(frequencies.shape)
        read.file.fill(frequencies, factors)
        scaling = _scaling_of(factors, theta)
        if scaling is None:
            raise ModelError("gguf.frequencies", path=read.file.path, name=FREQUENCIES)
    return {"rope_theta": theta, "rope_scaling": scaling}


def llama3_factors(scaling: RopeScaling, head: int, theta: float) -> Tensor:
    """What each of the K/2 rotary frequencies is divided by (Llama Team 2024, arXiv 2407.21783, section 3.4.3)."""
    steps = torch.arange(0, head, 2, dtype=torch.float64)
    turns = scaling.original * theta ** (-steps / head) / (2 * math.pi)  # within ``original`` tokens
    smooth = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)  # 0: divided whole, 1: left alone
    return (1 / ((1 - smooth) / scaling.factor + smooth)).float()


def _scaling_of(factors: Tensor, theta: float) -> RopeScaling | None:
    """The scaling that gives ``factors``, of those that models have: low 1, high 4, any factor, 1k to 128k tokens."""
    factor = float(str(np.float32(factors.max())))
    for original in (8192, *(1 << bits for bits in range(10, 18))):
        found = RopeScaling("llama3", factor, original=original)
        if torch.allclose(llama3_factors(found, 2 * len(factors), theta), factors, rtol=1e-5, atol=0):
            return found
    return None


def architecture_of(spec: Spec) -> str:
    """The architecture of GGUF that a spec would be written as."""
    if spec.positions != "rotary":
        return "gpt2"
    if spec.qk_norm:
        return "qwen3"
    return "qwen2" if spec.biased_qkv and not spec.bias else "llama"


def fields_of(spec: Spec) -> dict[str, int | float | str]:
    """The metadata of a model, without those of its tokenizer; ints are 32-bit and unsigned, floats 32-bit."""
    name = architecture_of(spec)
    found: dict[str, int | float | str] = {
        "context_length": spec.context,
        "embedding_length": spec.width,
        "block_count": spec.layers,
        "feed_forward_length": spec.inner,
        "attention.head_count": spec.heads,
        "vocab_size": spec.vocabulary,
    }
    if name == "gpt2":
        found["attention.layer_norm_epsilon"] = spec.norm_eps
    else:
        found |= {
            "attention.head_count_kv": spec.groups,
            "attention.layer_norm_rms_epsilon": spec.norm_eps,
            "rope.freq_base": spec.rope_theta,
            "rope.dimension_count": spec.head,
        }
        if spec.head * spec.heads != spec.width:
            found |= {"attention.key_length": spec.head, "attention.value_length": spec.head}
        if spec.rope_scaling is not None and spec.rope_scaling.kind == "linear":
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": spec.rope_scaling.factor}
    return {"general.architecture": name, **{f"{name}.{key}": value for key, value in found.items()}}


def differences(spec: Spec, other: Spec) -> list[str]:
    """The fields in which two specs compute something else, as "name=value" of the first."""
    found = []
    for field in fields(Spec):
        mine, theirs = _settled(spec, field.name), _settled(other, field.name)
        if field.name not in _NOT_COMPUTED and mine != theirs:
            found.append(f"{field.name}={mine}")
    return found


def _settled(spec: Spec, name: str) -> Any:
    """A field's value, or what follows when it is left out; floats to the precision of the file."""
    follows = {"kv_heads": spec.groups, "head_width": spec.head, "feedforward": spec.inner, "qkv_bias": spec.biased_qkv,
               "attention_scale": spec.scale}  # fmt: skip
    value = follows.get(name, getattr(spec, name))
    if name in ("rope_theta", "rope_scaling", "local_theta") and spec.positions != "rotary":
        return None
    return float(np.float32(value)) if isinstance(value, float) else value
