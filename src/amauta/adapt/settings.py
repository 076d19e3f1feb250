"""How a model is adapted; no torch here, so that the help of training commands is quick."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from amauta.config import Unset

Kind = Literal[
    "lora", "dora", "ia3", "houlsby", "pfeiffer", "prefix", "prompt", "prefix-layer", "bitfit", "norms", "embeddings"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
AROUND: tuple[Kind, ...] = ("lora", "dora", "ia3", "houlsby", "pfeiffer")  # put around linear layers, the first inmost
BEFORE: tuple[Kind, ...] = ("prefix", "prompt", "prefix-layer")  # put before the tokens
CHOSEN: tuple[Kind, ...] = ("bitfit", "norms", "embeddings")  # weights of the model itself, trained as they are
# Beginnings of the names of tables of tokens and positions.
EMBEDDINGS = ("embedding.", "encoder.positions.", "decoder.positions.", "encoder.embedding_map.",
              "decoder.embedding_map.", "outputs.language.table.", "outputs.masked.table.")  # fmt: skip
HELD = ("outputs.language.bias",)  # BART's, which its authors' library never trains, and nothing here does

KIND = "train a small adapter and freeze the model; several are put together (houlsby norms; embeddings lora)"
TARGETS = "layers that lora, dora and ia3 change: q k v o gate up down, qkv as one, attention, feedforward, all, or a \
regular expression of the names of our tensors"
RSLORA = "scale by alpha/√rank instead of alpha/rank, so that higher ranks learn as fast"
HIDDEN = "width of the MLP that makes a prefix while it is trained; left out: the prefix itself is trained"
NEW_TOKENS = "tokens to add to the vocabulary; their rows of the embedding are trained and are part of the adapter"


@dataclass(frozen=True)
class Adapters:
    """Adapters, and their sizes."""

    adapter: Annotated[tuple[Kind, ...], Doc(KIND)] = ()
    adapter_rank: Annotated[int, Gt(0), Doc("rank of lora and dora, R")] = 8
    adapter_alpha: Annotated[float | None, Gt(0), Doc("lora and dora: what they add is scaled by alpha/rank"),
                             Unset("2R")] = None  # fmt: skip
    adapter_rslora: Annotated[bool, Doc(RSLORA)] = False
    adapter_dropout: Annotated[float, Ge(0), Lt(1), Doc("share dropped of what lora's branch reads")] = 0.0
    adapter_targets: Annotated[tuple[str, ...], Doc(TARGETS)] = ("all",)
    adapter_width: Annotated[int | None, Gt(0), Doc("width of a bottleneck (houlsby, pfeiffer)"),
                             Unset("D / adapter-reduction")] = None  # fmt: skip
    adapter_reduction: Annotated[int, Gt(0), Doc("how much narrower than the model a bottleneck is")] = 16
    adapter_length: Annotated[int, Gt(0), Doc("positions of a prefix, a prompt or a prefix-layer, P")] = 20
    adapter_hidden: Annotated[int | None, Gt(0), Doc(HIDDEN)] = None
    new_tokens: Annotated[tuple[str, ...], Doc(NEW_TOKENS)] = ()

    @property
    def any(self) -> bool:
        """Whether anything is adapted."""
        return bool(self.adapter or self.new_tokens)

    @property
    def alpha(self) -> float:
        """α of lora and dora: twice the rank where it is not given."""
        return 2.0 * self.adapter_rank if self.adapter_alpha is None else self.adapter_alpha
