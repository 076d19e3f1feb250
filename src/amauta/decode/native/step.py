"""Decoding on a processor without torch's cost for every small operation: a whole step is one call of ``step.cpp``.

``native_step(model)`` gives the step of a model that it can compute, None for any other (``why_not`` says why). The
weights are not copied: the library reads torch's memory. Results are f32. They need not equal torch's bit for bit: of a
bf16 model, what enters a matrix product is rounded to bf16, but what comes out of it is not; what enters a product with
weights of 8 or 4 bits is rounded to 16 bits (``few_bits.h``).

A model is compared with its own ``forward`` the first time: where somebody changed an equation, the change holds, and
torch computes.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from amauta.adapt.around import Around
from amauta.adapt.tokens import NewRows
from amauta.decode.native.build import library
from amauta.models.stack import Stack
from amauta.models.transformer import Transformer
from amauta.nn.block import Block
from amauta.nn.cache import Cache
from amauta.nn.codes import RUN
from amauta.nn.quantized import Quantized

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")  # in the order of step.cpp
KINDS = (None, "int8", "int4", "nf4")  # of weights, in the order of few_bits.h; None: as the model's numbers
TYPES = {torch.float32: 0, torch.bfloat16: 1}
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of logits, relative: below what another equation does
ROUNDED = 0.02  # of logits with weights of 8 or 4 bits, whose input is rounded
AGREES = "_native_agrees"  # where a model remembers

_Pointer, _Whole, _Real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Norm(ctypes.Structure):
    _fields_ = [("gain", _Pointer), ("bias", _Pointer)]


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("numbers", "scales", "zeros")),
        *((name, _Whole) for name in ("kind", "group", "wide")),
    ]  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        *((name, _Pointer) for name in ("qkv_bias", "out_bias", "up_bias", "down_bias")),
        *((name, _Norm) for name in ("before_attention", "after_attention", "before_feedforward", "after_feedforward",
                                     "queries", "keys")),
        ("window", _Whole), ("turn", _Whole),
    ]  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)), ("table", _Matrix), ("table_bias", _Pointer), ("last", _Norm),
        *((name, _Whole) for name in ("depth", "width", "heads", "groups", "head", "inner", "vocabulary",
                                      "half_weights", "layer_norm", "activation", "gated", "rotary")),
        ("eps", _Real), ("scale", _Real),
    ]  # fmt: skip


class _Tokens(ctypes.Structure):
    _fields_ = [
        ("count", _Whole), ("rows", _Pointer), ("positions", _Pointer), ("x", _Pointer), ("cosines", _Pointer),
        ("sines", _Pointer), ("keys", _Pointer), ("values", _Pointer), ("cache_rows", _Whole), ("slots", _Whole),
        ("wanted", _Pointer), ("wanted_count", _Whole), ("logits", _Pointer),
    ]  # fmt: skip


def why_not(model: Any) -> str | None:
    """What of the model ``step.cpp`` cannot compute; None when it can."""
    if not isinstance(model, Transformer) or not isinstance(model.decoder, Stack) or not model.writes:
        return "not a decoder"
    spec = model.spec
    parts = list(model.modules())
    few = [part for part in parts if isinstance(part, Quantized)]
    kinds = {weight.dtype for weight in model.parameters()}
    for true, reason in (
        (model.device.type != "cpu", f"on {model.device.type}"),
        (model.encoder is not None, "an encoder-decoder"),
        (spec.positions == "relative", "relative positions"),
        (spec.norm_place == "post", "norms after the residual"),
        (bool(model.decoder.ahead), "something ahead of the text"),
        (any(isinstance(part, NewRows) for part in parts), "rows of new tokens"),
        (
            any(isinstance(part, Around) and part.on is not False and not part.merged for part in parts),
            "adapters that are not merged",
        ),
        (spec.activation not in ACTIVATIONS, f"activation {spec.activation}"),
        (model.cache_dtype is not None, f"a cache of {model.cache_dtype}"),
        (kinds != {model.dtype} or not kinds <= set(TYPES), "weights of " + ", ".join(sorted(map(str, kinds)))),
        (any(part.in_features % RUN or part.group % RUN or part.inputs for part in few), "weights of few bits"),
        (any(type(part).__module__.split(".")[0] not in ("amauta", "torch") for part in parts), "a layer of another's"),
        (any(not weight.is_contiguous() for weight in model.parameters()), "weights in another order"),
        (
            any(vars(part)["_forward_hooks"] or vars(part)["_forward_pre_hooks"] for part in parts),
            "hooks on its layers",
        ),
    ):
        if true:
            return reason
    if library() is None:
        return "no C++ compiler"
    return None if _agrees(model) else "another result than its own forward"


def native_step(model: Any) -> "NativeStep | None":
    """A step of ``model`` by ``step.cpp``, None where that cannot be (``why_not``)."""
    return None if why_not(model) else NativeStep(model)


@torch.inference_mode()
def _agrees(model: Transformer) -> bool:
    """Whether the step gives what the model gives, on a few tokens; found out once a model."""
    if "logits" in vars(model) or "decode" in vars(model) or "forward" in vars(model):
        return False
    if not hasattr(model, AGREES):
        training = model.training
        model.eval()
        size = min(5, model.spec.context)
        ids = torch.linspace(0, model.spec.vocabulary - 1, size).long()
        wanted = model.logits(model(ids[None]))[0].float()
        step = NativeStep(model)
        found = step(model.new_cache(1, size), ids.tolist(), [0] * size, range(size), range(size))
        # a bf16 model's first token may be 20 % off in torch, so the one in the middle speaks for all
        error = ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).median()
        setattr(model, AGREES, bool(error <= (ROUNDED if step.few_bits else TOLERANCE[model.dtype])))
        model.train(training)
    return getattr(model, AGREES)


class NativeStep:
    """Call it with tokens, each for one row of a cache at one position; it writes the cache and gives logits."""

    def __init__(self, model: Transformer) -> None:
        found = library()
        assert found is not None and isinstance(model.decoder, Stack)
        self.model, self._call = model, found.amauta_step
        self.few_bits = any(isinstance(part, Quantized) for part in model.modules())
        self._kept: list[Any] = []  # what the structs point to
        stack, spec = model.decoder, model.spec
        layers = (_Layer * stack.layers)(*(self._layer(block, layer) for layer, block in stack.each()))
        self._kept.append(layers)
        self._tables = [(stack.cos, stack.sin)] if spec.positions == "rotary" else []
        if spec.positions == "rotary" and spec.local_theta is not None:
            self._tables.append((stack.local_cos, stack.local_sin))
        self._model = _Model(
            layers=layers, table=self._matrix(_table(model)), table_bias=self._real(model.output_bias),
            last=self._norm(stack.norm), depth=stack.layers, width=spec.width, heads=spec.heads, groups=spec.groups,
            head=spec.head, inner=spec.inner, vocabulary=spec.vocabulary,
            half_weights=TYPES[model.dtype], layer_norm=spec.norm == "layer",
            activation=ACTIVATIONS.index(spec.activation), gated=spec.gated, rotary=bool(self._tables),
            eps=spec.norm_eps, scale=spec.scale,
        )  # fmt: skip

    @torch.inference_mode()
    def __call__(
        self, cache: Cache, ids: Sequence[int], rows: Sequence[int], positions: Sequence[int], wanted: Sequence[int]
    ) -> Tensor:
        """Read token ``ids[i]`` at ``positions[i]`` of row ``rows[i]`` of the cache, for each of N tokens.

        Tokens of one row may come together, in the order of their positions. ``wanted``: numbers of those tokens whose
        logits are given, (wanted, V) in f32.
        """
        model = self.model
        places = torch.tensor([list(ids), list(rows), list(positions), [*wanted, *[0] * (len(ids) - len(wanted))]])
        assert model.decoder is not None and len(wanted) <= len(ids)
        at = places[2]
        x = model.embed(model.decoder, places[0][None], at[None], None)[0].float().contiguous()  # (N, D)
        cosines, sines = (
            torch.stack([table[kind][at] for table in self._tables]).float() if self._tables else torch.empty(0)
            for kind in (0, 1)
        )  # (tables, N, K/2)
        logits = torch.empty(len(wanted), self._model.vocabulary)
        tokens = _Tokens(
            count=len(ids), rows=places[1].data_ptr(), positions=at.data_ptr(), x=x.data_ptr(),
            cosines=cosines.data_ptr(), sines=sines.data_ptr(), keys=cache.keys.data_ptr(),
            values=cache.values.data_ptr(), cache_rows=cache.keys.shape[1], slots=cache.slots,
            wanted=places[3].data_ptr(), wanted_count=len(wanted), logits=logits.data_ptr(),
        )  # fmt: skip
        self._call(ctypes.byref(self._model), ctypes.byref(tokens), torch.get_num_threads())
        return logits

    def _layer(self, block: Block, layer: int) -> _Layer:
        spec, attention, forward = self.model.spec, block.attention, block.feedforward
        windowed = spec.windowed(layer)
        return _Layer(
            qkv=self._matrix(attention.qkv), out=self._matrix(attention.out), up=self._matrix(forward.up),
            down=self._matrix(forward.down), qkv_bias=self._real(attention.qkv.bias),
            out_bias=self._real(attention.out.bias), up_bias=self._real(forward.up.bias),
            down_bias=self._real(forward.down.bias), before_attention=self._norm(block.attention_norm),
            after_attention=self._norm(block.attention_after), before_feedforward=self._norm(block.feedforward_norm),
            after_feedforward=self._norm(block.feedforward_after), queries=self._norm(attention.q_norm),
            keys=self._norm(attention.k_norm), window=spec.window if windowed and spec.window else 0,
            turn=int(windowed and spec.local_theta is not None),
        )  # fmt: skip

    def _norm(self, norm: nn.Module | None) -> _Norm:
        if norm is None:
            return _Norm()
        return _Norm(self._real(norm.weight), self._real(getattr(norm, "bias", None)))  # type: ignore[arg-type]

    def _matrix(self, part: nn.Module) -> _Matrix:
        """Where the weights of a linear layer or a table lie, and what they are."""
        if not isinstance(part, Quantized):
            return _Matrix(numbers=self._at(part.weight))  # type: ignore[arg-type]  # nn.Module hides the type
        zeros = None if part.zeros is None else self._at(part.zeros)
        return _Matrix(
            numbers=self._at(part.codes), scales=self._at(part.scales), zeros=zeros, kind=KINDS.index(part.kind),
            group=part.group, wide=part.scales.dtype == torch.float32,
        )  # fmt: skip

    def _at(self, weight: Tensor) -> int:
        """Where a matrix lies in memory."""
        assert weight.is_contiguous()
        self._kept.append(weight)
        return weight.data_ptr()

    def _real(self, values: Tensor | None) -> int | None:
        """Where a vector lies in f32: the vectors alone are copied."""
        return None if values is None else self._at(values.detach().float().contiguous())


def _table(model: Transformer) -> nn.Module:
    """What the logits are made by."""
    return model.outputs.table().table or model.embedding
