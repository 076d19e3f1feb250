"""The settings of ``amauta gridworld``; no torch here, so that its help is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

Method = Literal["value-iteration", "q-learning", "reinforce", "actor-critic", "ppo", "rloo", "grpo"]
METHOD_NAMES: tuple[Method, ...] = get_args(Method)
LAYOUT = "rows of squares, parted by /: C cat, B broom, W bathtub (water), M meat, # wall, . nothing"
WRITE = "write what was found here, by the file's ending: .svg, .png or .pdf (a picture), .html (a page), .txt"


@dataclass(frozen=True)
class Gridworld:
    """A cat, a kitchen, and a way of learning."""

    method: Annotated[Literal[Method, "all"], Doc("how to learn; all: one after another, compared")] = "value-iteration"
    layout: Annotated[str, Doc(LAYOUT)] = "...M/.BW./..../C..."
    broom: Annotated[float, Doc("what entering the broom's square earns")] = -1.0
    bath: Annotated[float, Doc("what falling into the bathtub earns; it ends the episode")] = -10.0
    meat: Annotated[float, Doc("what reaching the meat earns; it ends the episode")] = 100.0
    gamma: Annotated[float, Gt(0), Lt(1), Doc("what a reward is worth one step later")] = 0.9
    episodes: Annotated[int, Gt(0), Doc("episodes to learn from; value iteration needs none")] = 20_000
    batch: Annotated[int, Gt(1), Doc("episodes of an update of the policy")] = 64
    limit: Annotated[int, Gt(0), Doc("most steps of an episode")] = 100
    lr: Annotated[float, Gt(0), Doc("Adam's rate on the policy's logits")] = 0.1
    alpha: Annotated[float, Gt(0), Le(1), Doc("how far a learnt value moves towards what was seen")] = 0.5
    epsilon: Annotated[float, Ge(0), Le(1), Doc("q-learning: share of moves that are random")] = 0.1
    seed: Annotated[int, Ge(0), Doc("the seed of everything random")] = 7
    write: Annotated[tuple[Path, ...], Doc(WRITE)] = ()
