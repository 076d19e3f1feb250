"""The manners of published models: ``--as bert`` is a shape, an objective and its knobs, which flags may change.

A manner says how a model is built and what it learns; how large it is says ``--size``. No torch here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from amauta.base.errors import ConfigError, ModelError
from amauta.data.objective import Objective
from amauta.models import sizes
from amauta.models.spec import Kind, Shape, Spec

Manner = Literal[
    "gpt", "gpt2", "llama", "prefix-lm", "bert", "roberta", "albert", "electra", "t5", "t5.1.1", "t5-lm", "bart"
]
DIMENSIONS = ("context", "width", "layers", "heads", "kv_heads", "head_width", "feedforward", "embedding_width",
              "decoder_layers", "distinct_layers")  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One manner: the fields of a spec that its models share, and what they learn."""

    built: Mapping[str, Any]
    objective: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dropout: float = 0.1

    @property
    def kind(self) -> Kind:
        return self.built.get("kind", "decoder")


_MASKED = {"objective": "masked"}
_BERT = {"outputs": ("masked", "pair"), "pooler": "tanh"}
_SPANS = {"objective": "spans"}
MANNERS: dict[Manner, Way] = {
    # Radford et al. 2018; 2019
    "gpt": Way(sizes.GPT2 | {"norm_place": "post"}),
    "gpt2": Way(sizes.GPT2),
    # Touvron et al. 2023, arXiv 2302.13971
    "llama": Way(sizes.LLAMA, dropout=0.0),
    # Raffel et al. 2020, arXiv 1910.10683, figure 4 and section 3.2.3: a decoder whose prefix is read both ways
    "prefix-lm": Way(sizes.LLAMA, {"objective": "prefix"}, dropout=0.0),
    # Devlin et al. 2019, arXiv 1810.04805, section 3.1: masks made once, with the data
    "bert": Way(sizes.BERT | _BERT, _MASKED | {"pair": "next", "mask_exactly": True, "mask_static": True}),
    # Liu et al. 2019, arXiv 1907.11692, section 4: masks made anew, no pairs
    "roberta": Way(sizes.ROBERTA, _MASKED),
    # Lan et al. 2019, arXiv 1909.11942, sections 3.1 and 4.1; its larger models were trained without dropout
    "albert": Way(sizes.ALBERT | _BERT, _MASKED | {"pair": "order", "mask_of": "ngram", "mask_exactly": True}, 0.0),
    # Clark et al. 2020, arXiv 2003.10555, sections 2 and 3.1; 15 % are hidden and all of them masked
    "electra": Way(sizes.ELECTRA, {"objective": "replaced", "mask_exactly": True, "as_mask": 1.0, "as_random": 0.0}),
    # Raffel et al. 2020, sections 2 and 3.1.4; 1.1 is gated, untied and trained without dropout
    "t5": Way(sizes.T5, _SPANS),
    "t5.1.1": Way(sizes.T511, _SPANS, dropout=0.0),
    # Lester, Al-Rfou and Constant 2021, arXiv 2104.08691, section 3: go on from T5.1.1 (--start) as a prefix LM
    "t5-lm": Way(sizes.T511, {"objective": "prefix"}, dropout=0.0),
    # Lewis et al. 2020, arXiv 1910.13461, sections 2.2 and 5.1
    "bart": Way(sizes.BART | {"output_bias": True},
                {"objective": "denoise", "mask_rate": 0.3, "shuffle_sentences": True}),
}  # fmt: skip

# What each objective can be learned by, and the outputs that it needs.
ABLE: dict[str, tuple[Kind, ...]] = {
    "causal": ("decoder",),
    "masked": ("encoder",),
    "replaced": ("encoder",),
    "spans": ("encoder-decoder", "decoder"),
    "denoise": ("encoder-decoder", "decoder"),
    "prefix": ("encoder-decoder", "decoder"),
}


def needed_outputs(objective: Objective) -> tuple[str, ...]:
    """The outputs that a model must have to learn this."""
    if objective.objective == "masked":
        return ("masked",) if objective.pair == "none" else ("masked", "pair")
    return ("detector",) if objective.objective == "replaced" else ("language",)


def check_able(objective: Objective, spec: Spec, name: str) -> None:
    """ModelError, naming those that can, where a model of this kind cannot learn the objective, or lacks an output."""
    if spec.kind not in ABLE[objective.objective]:
        learns = [other for other, kinds in ABLE.items() if spec.kind in kinds]
        manners = [manner for manner, way in MANNERS.items() if way.kind in ABLE[objective.objective]]
        raise ModelError("train.cannot-learn", name=name, kind=spec.kind, objective=objective.objective,
                         learns=", ".join(learns), kinds=", ".join(ABLE[objective.objective]),
                         manners=", ".join(manners))  # fmt: skip
    missing = [output for output in needed_outputs(objective) if output not in spec.outputs]
    if missing:
        raise ModelError("train.without-output", name=name, objective=objective.objective,
                         missing=", ".join(missing), outputs=", ".join(spec.outputs) or "-")  # fmt: skip
    if objective.pair != "none" and spec.segments < 2:
        raise ModelError("train.without-segments", name=name, pair=objective.pair, segments=spec.segments)


def preset(manner: Manner, size: str) -> dict[str, Any]:
    """The layer of settings that a manner is, in the size called ``size``.

    Of a size that was made for another manner (our own ones are) only the dimensions are taken. ModelError for a
    published size of another kind of model; ConfigError for a manner that is not there.
    """
    if manner not in MANNERS:
        raise ConfigError("train.unknown-manner", name=manner, names=", ".join(MANNERS))
    way, found = MANNERS[manner], sizes.fields_named(size)
    if "vocabulary" in found and found.get("kind", "decoder") != way.kind:
        raise ModelError("train.size-of-another-kind", size=size, kind=found.get("kind", "decoder"), manner=manner,
                         wanted=way.kind)  # fmt: skip
    taken = {name: value for name, value in found.items() if name in DIMENSIONS}
    if "vocabulary" not in found and not way.built.get("gated", True):
        taken.pop("feedforward", None)  # made for a gated layer: 4D instead
    known = {one.name for one in fields(Shape)}
    published = {"context"} if "vocabulary" not in found else set[str]()
    shape = {name: value for name, value in way.built.items() if name in known and name not in published}
    shape |= {"dropout": way.dropout} | {name: value for name, value in taken.items() if name in known}
    return {"shape": shape, "objective": dict(way.objective)}


def spec_as(manner: Manner | None, size: str, shape: Shape, objective: Objective, *, vocabulary: int, pad: int | None,
            end: int | None) -> Spec:  # fmt: skip
    """The spec of a new model: a shape, what only its manner says, and what its tokenizer brings."""
    if manner is None:
        return sizes.complete(shape, vocabulary)
    known = {one.name for one in fields(Shape)} | {"vocabulary"}
    more = {name: value for name, value in MANNERS[manner].built.items() if name not in known}
    dimensions = {name: value for name, value in sizes.fields_named(size).items() if name in DIMENSIONS}
    more |= {name: value for name, value in dimensions.items() if name not in known}
    if more.get("embedding_width"):
        more["embedding_width"] = min(more["embedding_width"], shape.width)
    if shape.dropout:  # BERT, T5 and BART know one rate for all of it
        more |= {"embedding_dropout": shape.dropout, "attention_dropout": shape.dropout}
    if more.get("kind") == "encoder":
        more |= _encoder(manner, objective, pad)
    if more.get("kind") == "encoder-decoder":
        more["decoder_start"] = end if manner == "bart" else pad
        if more["decoder_start"] is None:
            raise ModelError("tokenize.no-role", name="</s>" if manner == "bart" else "<pad>")
        if manner in ("t5", "t5.1.1", "t5-lm"):
            more["output_scale"] = shape.width**-0.5 if shape.tied else 1.0
    return Spec(**asdict(shape) | more | {"vocabulary": vocabulary})


def _encoder(manner: Manner, objective: Objective, pad: int | None) -> dict[str, Any]:
    """What an encoder's objective and its tokenizer decide."""
    found: dict[str, Any] = {"outputs": needed_outputs(objective)}
    if objective.pair != "none":
        found |= {"pooler": "tanh", "segments": 2}
    elif manner in ("bert", "albert"):
        found["pooler"] = "none"
    if manner == "roberta":  # transformers counts positions from the padding id on
        if pad is None:
            raise ModelError("tokenize.no-role", name="<pad>")
        found["position_offset"] = pad + 1
    return found


def generator_spec(spec: Spec, share: float) -> Spec:
    """The generator beside a discriminator: ``share`` of its heads and feed-forward width, with heads as wide as its
    own, the same depth, and its embeddings (section 3.2)."""
    heads = max(1, round(spec.heads * share))
    width = heads * spec.head
    return replace(
        spec, width=width, heads=heads, kv_heads=None, feedforward=max(1, round(spec.inner * share)),
        embedding_width=None if spec.embedded == width else spec.embedded, outputs=("masked",), pooler="none",
    )  # fmt: skip
