"""The settings of the methods that look at tokens one by one; no torch here, so that help is quick."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

MaskOf = Literal["common", "independent", "reward", "divergence"]

ORACLE = (
    "sepo: a model that learnt the preferences by DPO and scores tokens; left out: it is trained first, in OUT/oracle"
)
ORACLE_SHARE = "sepo: share of the pairs that the oracle is trained on, drawn by the seed"
CHOSEN_SHARE = "sepo: share of the chosen answer's tokens that are learnt, those with the highest scores"
REJECTED_SHARE = "sepo: share of the rejected answer's tokens that are learnt, those with the lowest scores"
SCALE = "sepo: γ, what the mean log-prob of the learnt tokens is multiplied by"
LEAD = "sepo: λ, how far ahead the chosen answer must be, already × γ"
MASKS = "sparsepo: one mask for rewards and divergences, one for each, or one alone beside a mask of ones"
L1_REWARD = "sparsepo: what a unit of the rewards' mask costs, in nats"
L1_DIVERGENCE = "sparsepo: what a unit of the divergences' mask costs, in nats"
MASK_LR = "sparsepo: peak learning rate of the masks; the policy's when left out"


@dataclass(frozen=True)
class Tokenwise:
    """Which tokens of an answer count, and how much."""

    oracle: Annotated[str | None, Doc(ORACLE)] = None
    oracle_share: Annotated[float, Gt(0), Le(1), Doc(ORACLE_SHARE)] = 0.5
    chosen_share: Annotated[float, Gt(0), Le(1), Doc(CHOSEN_SHARE)] = 0.3
    rejected_share: Annotated[float, Gt(0), Le(1), Doc(REJECTED_SHARE)] = 0.3
    scale: Annotated[float, Gt(0), Doc(SCALE)] = 1.0
    lead: Annotated[float, Ge(0), Doc(LEAD)] = 0.0
    masks: Annotated[MaskOf, Doc(MASKS)] = "common"
    l1_reward: Annotated[float, Ge(0), Doc(L1_REWARD)] = 1e-3
    l1_divergence: Annotated[float, Ge(0), Doc(L1_DIVERGENCE)] = 1e-3
    mask_lr: Annotated[float | None, Gt(0), Doc(MASK_LR)] = None
    mask_decay: Annotated[float, Ge(0), Doc("sparsepo: weight decay of the masks")] = 0.01
    mask_dropout: Annotated[float, Ge(0), Lt(1), Doc("sparsepo: dropout of a layer's share in a mask")] = 0.01
