"""The settings of ``amauta prefer``; no torch at import, so that its help is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from amauta.adapt.settings import Adapters
from amauta.hub.known import ANY_MODEL
from amauta.optim.settings import Optim
from amauta.train.prefer.token_settings import Tokenwise
from amauta.train.settings import TOO_LONG, Loop, TooLong

TOKENWISE = ("sepo", "sparsepo", "mapo")  # each with a step of its own, in tokenwise.py
LOSS = "dpo robust hinge ipo orpo simpo cpo tdpo tdpo2; kto, of answers one by one; sepo sparsepo mapo, token by token"
DATA = "prompt/chosen/rejected records; for kto also prompt/completion/label"
BETA = "how strongly the reference holds the policy back; simpo's own is 2"
SMOOTHING = "dpo, robust: share of pairs believed to be the wrong way round; robust's own is 0.1"
REFERENCE = "what the policy is compared with: another model with the same tokenizer; the policy's start when left out"
SFT = "weight of the chosen answer's own loss, per token, beside any loss: holds its probability up"


@dataclass(frozen=True)
class Prefer:
    """Direct preference optimisation."""

    model: Annotated[str, Doc(f"the model to start from: {ANY_MODEL}")]
    data: Annotated[tuple[str, ...], Doc(DATA)]
    out: Annotated[Path, Doc("folder of the run")]
    heldout: Annotated[tuple[str, ...], Doc("records that are only scored")] = ()
    reference: Annotated[str | None, Doc(REFERENCE)] = None
    loss: Annotated[str, Doc(LOSS)] = "dpo"
    beta: Annotated[float, Gt(0), Doc(BETA)] = 0.1
    label_smoothing: Annotated[float, Ge(0), Lt(0.5), Doc(SMOOTHING)] = 0.0
    per_length: Annotated[bool, Doc("ipo: log-ratios by the token and not by the answer")] = True
    odds_weight: Annotated[float, Gt(0), Doc("orpo: weight of the odds beside the chosen answer's own loss")] = 0.1
    target_margin: Annotated[float, Ge(0), Doc("simpo: how far ahead the chosen answer must be, already × beta")] = 0.5
    alpha: Annotated[float, Ge(0), Doc("tdpo2: weight of the divergences")] = 0.5
    desirable: Annotated[float, Gt(0), Doc("kto: weight of answers that are wanted")] = 1.0
    undesirable: Annotated[float, Gt(0), Doc("kto: weight of answers that are not")] = 1.0
    sft_weight: Annotated[float, Ge(0), Doc(SFT)] = 0.0
    tokenwise: Tokenwise = field(default_factory=Tokenwise)
    length: Annotated[int | None, Doc("tokens of a row, T; the model's context, at most 2048, when left out")] = None
    too_long: Annotated[TooLong, Doc(TOO_LONG)] = "drop"
    prompts: Annotated[tuple[str, ...], Doc("questions to answer, before, during and after; left out: the data's")] = ()
    may_skip: Annotated[int, Ge(0), Doc("malformed records that may be skipped (counted)")] = 0
    adapters: Adapters = field(default_factory=Adapters)
    loop: Loop = field(default_factory=lambda: Loop(rows=8))
    optim: Optim = field(default_factory=lambda: Optim(optimizer="adamw", lr=1e-4, weight_decay=0.0))

    @staticmethod
    def preset(values: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs of the loss as its function has them, below everything that was given."""
        from amauta.losses.preference import knobs_of

        return knobs_of(values.get("loss", Prefer.loss))
