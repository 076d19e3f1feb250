"""What a model is: its spec. No torch here, so that help and plans can read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from amauta.base.errors import ModelError
from amauta.base.names import did_you_mean

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Kind = Literal["decoder", "encoder", "encoder-decoder"]
Output = Literal["language", "masked", "classifier", "pair", "detector", "span", "value"]
Pooling = Literal["first", "last", "mean", "mean_sqrt", "weighted_mean", "max"]


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
    positions: Annotated[Literal["rotary", "learned", "relative"], Doc("how a token knows its place")] = "rotary"
    norm: Annotated[Literal["rms", "layer"], Doc("RMSNorm or LayerNorm")] = "rms"
    norm_place: Annotated[
        Literal["pre", "post", "both"],
        Doc("norms before each part, after its residual, or before it and on what it gives"),
    ] = "pre"
    activation: Annotated[Activation, Doc("feed-forward activation")] = "silu"
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
            near = _nearest_divisors(self.width, self.heads)
            raise ModelError("model.heads-do-not-divide", width=self.width, heads=self.heads, near=near)
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


@dataclass(frozen=True)
class RopeScaling:
    """Rotary frequencies for contexts longer than those first trained on: ``linear`` divides every frequency by
    ``factor``; ``llama3`` divides the slow ones, and leaves those alone that turn more than ``high`` times within
    ``original`` tokens, with a ramp between ``low`` and ``high`` (Llama Team 2024, arXiv 2407.21783, section 3.4.3)."""

    kind: Literal["linear", "llama3"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192


@dataclass(frozen=True)
class Reformer:
    """What only a Reformer has (Kitaev, Kaiser and Levskaya 2020, arXiv 2001.04451)."""

    layers: tuple[Literal["local", "lsh"], ...]  # the attention of each layer
    chunk: int = 64  # length of a chunk of LSH attention, m
    chunk_before: int = 1
    chunk_after: int = 0
    local_chunk: int = 64
    local_before: int = 1
    local_after: int = 0
    hashes: int = 1  # rounds
    buckets: int | tuple[int, ...] | None = None  # several are factors; None: found from the length, 2T/chunk
    hash_seed: int | None = None
    axial_shape: tuple[int, int] | None = None  # positions as a grid; None: learned positions
    axial_widths: tuple[int, int] | None = None
    feedforward_chunk: int = 0  # tokens at a time; 0: all
    lsh_dropout: float = 0.0  # of LSH attention's weights; attention_dropout is that of local layers


@dataclass(frozen=True)
class Spec(Shape):
    """A model, whole: the shape, the vocabulary that its tokenizer brings, and what makes it one of its family."""

    vocabulary: Annotated[int, Gt(0), Doc("entries of the vocabulary, V")] = field(kw_only=True)
    kind: Kind = field(default="decoder", kw_only=True)
    decoder_layers: int | None = field(default=None, kw_only=True)  # of an encoder-decoder; None: as many as layers
    distinct_layers: int | None = field(
        default=None, kw_only=True
    )  # sets of weights that the layers share out; None: L
    shared_stacks: bool = field(default=False, kw_only=True)  # encoder and decoder share all but the cross-attention
    # of a decoder: the tokens of what it is given see each other in both directions (prefix LM; Raffel et al. 2020,
    # arXiv 1910.10683, figure 4)
    prefix_lm: bool = field(default=False, kw_only=True)
    # embeddings
    embedding_width: int | None = field(default=None, kw_only=True)  # E; a linear map leads from E to D (ALBERT)
    embedding_norm: bool = field(default=False, kw_only=True)
    embedding_scale: float = field(default=1.0, kw_only=True)  # what token embeddings are multiplied by (Gemma: √D)
    segments: int = field(default=0, kw_only=True)  # entries of the segment table
    position_offset: int = field(default=0, kw_only=True)  # unused first rows of the position table (RoBERTa, BART: 2)
    # positions
    relative_buckets: int = field(default=32, kw_only=True)
    relative_distance: int = field(default=128, kw_only=True)
    rope_scaling: RopeScaling | None = field(default=None, kw_only=True)
    window: int | None = field(default=None, kw_only=True)  # a query sees itself and the window - 1 tokens before it
    full_every: int | None = field(
        default=None, kw_only=True
    )  # every n-th layer has no window (Gemma 3: 6); None: none
    local_theta: float | None = field(default=None, kw_only=True)  # rope_theta of the layers with a window, unscaled
    # attention and biases
    attention_scale: float | None = field(default=None, kw_only=True)  # None: 1/√K; T5: 1
    qkv_bias: bool | None = field(default=None, kw_only=True)  # None: as bias (Qwen2 has biases on q, k and v alone)
    attention_dropout: float = field(default=0.0, kw_only=True)
    embedding_dropout: float = field(default=0.0, kw_only=True)
    # what is computed from the hidden states; the first is the model's own
    outputs: tuple[Output, ...] = field(default=("language",), kw_only=True)
    output_scale: float = field(default=1.0, kw_only=True)  # hidden states before the table (T5 with a tied one: D^-½)
    output_bias: bool = field(
        default=False, kw_only=True
    )  # a bias on the logits of "language" (BART); "masked" has one
    pooler: Literal["none", "tanh", "gelu", "relu"] = field(default="none", kw_only=True)  # dense layer on the pooled
    pooling: Pooling = field(default="first", kw_only=True)  # the state(s) that stand for the sequence
    labels: int = field(default=2, kw_only=True)  # of "classifier"; 1 is a regressor or a reward
    label_names: tuple[str, ...] = field(default=(), kw_only=True)
    classifier_bias: bool = field(default=True, kw_only=True)
    classifier_dropout: float = field(default=0.0, kw_only=True)  # of what "classifier" reads
    pooler_dropout: float = field(default=0.0, kw_only=True)  # of what the pooler reads (RoBERTa's, BART's classifier)
    sentence: "Sentence | None" = field(default=None, kw_only=True)  # how a text becomes one vector
    decoder_start: int | None = field(default=None, kw_only=True)  # the id before the first that a decoder writes
    reformer: Reformer | None = field(default=None, kw_only=True)
    family: str | None = field(default=None, kw_only=True, compare=False)  # the layout that it came in, kept when saved

    def __post_init__(self) -> None:
        super().__post_init__()
        for layers in (self.layers, self.decoder_layers):
            if self.distinct_layers and layers is not None and layers % self.distinct_layers:
                raise ModelError("model.layers-do-not-divide", layers=layers, distinct=self.distinct_layers)
        if self.embedding_width not in (None, self.width) and self.tied and "language" in self.outputs:
            raise ModelError("model.tied-but-narrow", width=self.width, embedding_width=self.embedding_width)

    @property
    def embedded(self) -> int:
        """Width of the embedding tables, E."""
        return self.embedding_width or self.width

    @property
    def states(self) -> int:
        """Width of the hidden states; a Reformer gives both of its streams."""
        return self.width if self.reformer is None else 2 * self.width

    @property
    def scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.head**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def biased_qkv(self) -> bool:
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def limit(self) -> int | None:
        """The longest input in tokens; None where positions are only relative to each other."""
        return None if self.positions == "relative" else self.context

    def windowed(self, layer: int) -> bool:
        """Whether this layer's queries see only their window."""
        return self.window is not None and not (self.full_every and (layer + 1) % self.full_every == 0)


@dataclass(frozen=True)
class Sentence:
    """A sentence encoder: pooling of the token states, an optional dense layer, an optional norm of 1."""

    pooling: Pooling = "mean"
    dense: int | None = None  # width of the dense layer
    dense_activation: Literal["identity", "tanh"] = "tanh"
    normalize: bool = True
    longest: int | None = None  # tokens read of a text
    lower: bool = False  # lower-case the text first


def spec_of(table: Mapping[str, Any]) -> Spec:
    """The spec that ``asdict`` turned into a table, after a way through JSON; ModelError for an unknown field."""
    known = {one.name for one in fields(Spec)}
    for name in table:
        if name not in known:
            raise ModelError("model.unknown-field", name=name, hint=did_you_mean(name, known))
    made = dict(table)
    for name, cls in (("rope_scaling", RopeScaling), ("reformer", Reformer), ("sentence", Sentence)):
        if made.get(name) is not None:
            made[name] = cls(**{key: _frozen(value) for key, value in made[name].items()})
    return Spec(**{name: _frozen(value) for name, value in made.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def _nearest_divisors(width: int, heads: int) -> str:
    """The numbers next to ``heads``, below and above, that divide ``width``."""
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    below, above = [n for n in divisors if n < heads][-1:], [n for n in divisors if n > heads][:1]
    return ", ".join(map(str, below + above))
