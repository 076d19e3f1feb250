"""What a model learns from plain text, and the knobs of it. No torch here, so that help is quick."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

Name = Literal["causal", "masked", "replaced", "spans", "denoise", "prefix"]
Hidden = Literal["token", "word", "ngram", "salient"]


@dataclass(frozen=True)
class Objective:
    """An objective of pretraining. The knobs that it does not have are not looked at."""

    objective: Annotated[
        Name,
        Doc(
            "what is predicted: the next token (causal), hidden tokens (masked), which tokens a generator replaced "
            "(replaced), spans behind sentinels (spans), the text behind noise (denoise), or the rest after a prefix"
        ),
    ] = "causal"
    pair: Annotated[
        Literal["none", "next", "order"],
        Doc("masked: also tell whether the second of two texts followed the first, or whether they stand in order"),
    ] = "none"
    mask_rate: Annotated[float, Gt(0), Lt(1), Doc("share of the tokens that are hidden")] = 0.15
    mask_exactly: Annotated[bool, Doc("hide exactly that share of every text, not each token with that chance")] = False
    mask_of: Annotated[
        Hidden, Doc("what is hidden: tokens, whole words, runs of words, or names, dates and numbers")
    ] = "token"
    mask_static: Annotated[bool, Doc("the same tokens are hidden in every epoch")] = False
    as_mask: Annotated[float, Ge(0), Le(1), Doc("share of the hidden tokens that become the mask")] = 0.8
    as_random: Annotated[float, Ge(0), Le(1), Doc("share of the hidden tokens that become a random one")] = 0.1
    span_mean: Annotated[float, Gt(0), Doc("spans, denoise: mean length of a span in tokens")] = 3.0
    shuffle_sentences: Annotated[bool, Doc("denoise: put the sentences into random order too")] = False
    see_prefix: Annotated[bool, Doc("decoders: the tokens of the prefix see each other in both directions")] = True
    generator_size: Annotated[float, Gt(0), Le(1), Doc("replaced: the generator's share of the width")] = 0.25
    detector_weight: Annotated[float, Ge(0), Doc("replaced: weight of the model's loss beside the generator's")] = 50.0
