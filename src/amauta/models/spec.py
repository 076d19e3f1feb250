"""What a model is: its spec, and the specs that have names. No torch here, so that help and plans can read it."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean


@dataclass(frozen=True)
class Shape:
    """All of a decoder but its vocabulary. ``kv_heads``, ``head_width``, ``feedforward`` follow when left out."""

    context: Annotated[int, Gt(0), Doc("longest input in tokens")] = 256
    width: Annotated[int, Gt(0), Doc("width of the residual stream, D")] = 192
    layers: Annotated[int, Gt(0), Doc("number of layers, L")] = 6
    heads: Annotated[int, Gt(0), Doc("query heads, H")] = 6
    kv_heads: Annotated[int | None, Doc("key/value heads, G; as many as query heads when left out")] = None
    head_width: Annotated[int | None, Doc("width of a head, K; D/H when left out")] = None
    feedforward: Annotated[int | None, Doc("feed-forward width, F; 4D, or 8D/3 rounded up to 32 when gated")] = None
    positions: Annotated[Literal["rotary", "learned"], Doc("how a token knows its place")] = "rotary"
    norm: Annotated[Literal["rms", "layer"], Doc("RMSNorm or LayerNorm, before each part")] = "rms"
    activation: Annotated[Literal["silu", "gelu", "gelu_tanh", "relu"], Doc("feed-forward activation")] = "silu"
    gated: Annotated[bool, Doc("gated feed-forward (SwiGLU with silu)")] = True
    bias: Annotated[bool, Doc("biases in the linear layers")] = False
    qk_norm: Annotated[bool, Doc("RMSNorm on the heads of q and k (Qwen3)")] = False
    tied: Annotated[bool, Doc("one table for the embedding and the output")] = True
    rope_theta: Annotated[float, Gt(0), Doc("base of the rotary frequencies")] = 10_000.0
    norm_eps: Annotated[float, Gt(0), Doc("added under the root of the norms")] = 1e-5
    init_std: Annotated[float, Gt(0), Doc("standard deviation of the first weights")] = 0.02
    dropout: Annotated[float, Ge(0), Lt(1), Doc("share dropped from what each part adds")] = 0.0

    def __post_init__(self) -> None:
        if self.head_width is None and self.width % self.heads:
            raise ModelError("model.heads-do-not-divide", width=self.width, heads=self.heads)
        if self.heads % self.groups:
            raise ModelError("model.groups-do-not-divide", heads=self.heads, kv_heads=self.groups)
        if self.positions == "rotary" and self.head % 2:
            raise ModelError("model.odd-head", head_width=self.head)

    @property
    def head(self) -> int:
        """Width of one head, K."""
        return self.head_width or self.width // self.heads

    @property
    def groups(self) -> int:
        """Key/value heads, G."""
        return self.kv_heads or self.heads

    @property
    def inner(self) -> int:
        """Feed-forward width, F."""
        return self.feedforward or (-(-8 * self.width // 3 // 32) * 32 if self.gated else 4 * self.width)


GPT2 = {
    "positions": "learned", "norm": "layer", "activation": "gelu_tanh", "gated": False, "bias": True, "tied": True,
}  # fmt: skip


@dataclass(frozen=True)
class Spec(Shape):
    """A decoder, whole: the shape and the vocabulary that its tokenizer brings."""

    vocabulary: Annotated[int, Gt(0), Doc("entries of the vocabulary, V")] = field(kw_only=True)


NAMED: dict[str, dict[str, Any]] = {
    # for a laptop's processor; vocabulary and context come from the tokenizer and the run
    "nano": {"width": 128, "layers": 4, "heads": 4, "qk_norm": True},
    "demo": {"width": 192, "layers": 4, "heads": 3, "feedforward": 768, "qk_norm": True},
    "mini": {"width": 384, "layers": 6, "heads": 6, "feedforward": 1024},
    "small": {"width": 512, "layers": 8, "heads": 8, "qk_norm": True},
    # published
    "gpt2": GPT2 | {"vocabulary": 50_257, "context": 1024, "width": 768, "layers": 12, "heads": 12},
    "gpt2-medium": GPT2 | {"vocabulary": 50_257, "context": 1024, "width": 1024, "layers": 24, "heads": 16},
    "gpt2-large": GPT2 | {"vocabulary": 50_257, "context": 1024, "width": 1280, "layers": 36, "heads": 20},
    "gpt2-xl": GPT2 | {"vocabulary": 50_257, "context": 1024, "width": 1600, "layers": 48, "heads": 25},
    "smollm2-135m": {"vocabulary": 49_152, "context": 8192, "width": 576, "layers": 30, "heads": 9, "kv_heads": 3,
                     "feedforward": 1536, "rope_theta": 100_000.0},
    "llama-2-7b": {"vocabulary": 32_000, "context": 4096, "width": 4096, "layers": 32, "heads": 32,
                   "feedforward": 11_008, "tied": False},
    "llama-3.2-1b": {"vocabulary": 128_256, "context": 8192, "width": 2048, "layers": 16, "heads": 32, "kv_heads": 8,
                     "feedforward": 8192, "rope_theta": 500_000.0},
    "qwen3-0.6b": {"vocabulary": 151_936, "context": 40_960, "width": 1024, "layers": 28, "heads": 16, "kv_heads": 8,
                   "head_width": 128, "feedforward": 3072, "qk_norm": True, "rope_theta": 1e6, "norm_eps": 1e-6},
}  # fmt: skip


def shape_named(name: str) -> dict[str, Any]:
    """The fields of the size called ``name`` without its vocabulary; ModelError with the nearest name otherwise."""
    if name not in NAMED:
        raise ModelError("model.unknown-size", name=name, hint=did_you_mean(name, NAMED))
    return {key: value for key, value in NAMED[name].items() if key != "vocabulary"}


def named(name: str, **changes: Any) -> Spec:
    """The spec called ``name`` with ``changes``; its published vocabulary unless another is given."""
    fields = shape_named(name)
    if "vocabulary" in NAMED[name]:
        fields["vocabulary"] = NAMED[name]["vocabulary"]
    return Spec(**fields | changes)


def complete(shape: Shape, vocabulary: int) -> Spec:
    """A shape with a vocabulary."""
    return Spec(**asdict(shape) | {"vocabulary": vocabulary})
