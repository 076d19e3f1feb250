"""What is compared: each system's stacks, objective and way of being fine-tuned.

All are built of one block (rotary positions, RMSNorm before each part, gated feed-forward, one table for embedding and
output) and trained by one optimiser at one rate, so that they differ in what the question is about and in nothing else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from amauta.data.objective import Objective
from amauta.data.spans import amount
from amauta.models.spec import Shape, Spec
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.finetune.settings import Way
from amauta.train.manners import MANNERS
from amauta.yardstick.settings import Yardstick

HEAD = 32  # width of a head
ADAPTED = 0.15  # share of an encoder-decoder's budget that is spent on adapting it to continue texts

SPANS, PREFIX, CAUSAL = Objective(objective="spans"), Objective(objective="prefix"), Objective()
BLIND_SPANS = Objective(objective="spans", see_prefix=False)
_BERT = dict(MANNERS["bert"].objective)  # Devlin et al. 2019; "pair" is next-sentence prediction


@dataclass(frozen=True)
class System:
    """One thing that is trained. ``built``: the fields of its spec beside the shared shape's; ``adapted``: what it
    learns at the end of its budget; ``halved``: with half of the layers."""

    name: str
    objective: Objective
    manner: Way
    built: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    adapted: Objective | None = None
    see_prompt: bool = False
    halved: bool = False

    def spec(self, settings: Yardstick, tokenizer: Tokenizer) -> Spec:
        """Its model; ModelError where the heads do not divide the width."""
        shape = Shape(
            context=2 * settings.length, width=settings.width, heads=max(1, settings.width // HEAD),
            layers=settings.layers // 2 if self.halved else settings.layers,
        )  # fmt: skip
        start = {"decoder_start": tokenizer.pad} if self.built.get("kind") == "encoder-decoder" else {}
        return Spec(**asdict(shape) | dict(self.built) | start | {"vocabulary": tokenizer.size})


_ENCODER = {"kind": "encoder", "segments": 2, "outputs": ("masked",)}
_BOTH = {"kind": "encoder-decoder"}
_SHARED = _BOTH | {"shared_stacks": True}

ENCODER = System("encoder", Objective(**_BERT | {"pair": "none"}), "bert", _ENCODER)
WITH_PAIRS = System("encoder-nsp", Objective(**_BERT), "bert",
                    _ENCODER | {"outputs": ("masked", "pair"), "pooler": "tanh"})  # fmt: skip
FAMILIES = (
    ENCODER,
    System("encoder-decoder", SPANS, "t5", _BOTH, adapted=PREFIX),
    System("decoder", CAUSAL, "gpt"),
)
NGRAM = "n-gram"

# Raffel et al. 2020 (arXiv 1910.10683), table 2, which this repeats: the architectures of section 3.2.1 by the two
# objectives of section 3.2.3, with the mean score on GLUE that was published for each.
ARCHITECTURES = ("encoder-decoder", "shared", "half-depth", "decoder", "prefix-lm")
TABLE = {
    ("encoder-decoder", "denoising"): System("t5.encoder-decoder.denoising", SPANS, "t5", _BOTH),
    ("shared", "denoising"): System("t5.shared.denoising", SPANS, "t5", _SHARED),
    ("half-depth", "denoising"): System("t5.half-depth.denoising", SPANS, "t5", _BOTH, halved=True),
    ("decoder", "denoising"): System("t5.decoder.denoising", BLIND_SPANS, "t5"),
    ("prefix-lm", "denoising"): System("t5.prefix-lm.denoising", SPANS, "t5", see_prompt=True),
    ("encoder-decoder", "lm"): System("t5.encoder-decoder.lm", PREFIX, "t5", _BOTH),
    ("shared", "lm"): System("t5.shared.lm", PREFIX, "t5", _SHARED),
    ("half-depth", "lm"): System("t5.half-depth.lm", PREFIX, "t5", _BOTH, halved=True),
    ("decoder", "lm"): System("t5.decoder.lm", CAUSAL, "t5"),
    ("prefix-lm", "lm"): System("t5.prefix-lm.lm", PREFIX, "t5", see_prompt=True),
}
FIRST = TABLE["encoder-decoder", "denoising"]  # whose cost is M
PUBLISHED_GLUE = {
    ("encoder-decoder", "denoising"): 83.28, ("shared", "denoising"): 82.81, ("half-depth", "denoising"): 80.88,
    ("decoder", "denoising"): 74.70, ("prefix-lm", "denoising"): 81.82,
    ("encoder-decoder", "lm"): 79.56, ("shared", "lm"): 79.60, ("half-depth", "lm"): 78.67,
    ("decoder", "lm"): 73.78, ("prefix-lm", "lm"): 79.68,
}  # fmt: skip


def row_length(objective: Objective, kind: str, length: int) -> int:
    """The length of a row in which a system of this kind reads ``length`` tokens of text: so all read as much a step.

    Span corruption makes a text shorter, and parts it; source and target have a row each in two stacks, and share one
    in a single stack. A masked text stands between two special tokens, which its row of ``length`` includes.
    """
    if objective.objective in ("masked", "causal"):
        return length
    apart = kind == "encoder-decoder"
    if objective.objective == "prefix":
        return length if apart else length - 1
    needed = amount(length, objective.mask_rate, objective.span_mean)
    return needed.source if apart else needed.source + needed.target - 1
