"""How the best continuation is looked for: one field a setting. The defaults mean that nothing is searched."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from amauta.base.errors import ConfigError
from amauta.decode.settings import GREEDY_IGNORES, Sampling


@dataclass(frozen=True)
class Search:
    """Beams, and contrastive search. The names in transformers stand behind each field."""

    beams: Annotated[int, Ge(1), Doc("continuations that are kept side by side; 1 searches nothing")] = 1  # num_beams
    returned: Annotated[int, Ge(1), Doc("how many of the beams to return, best first")] = 1  # num_return_sequences
    length_penalty: Annotated[
        float, Doc("a beam's score is its log-prob over its length to this power: above 0 favours long answers")
    ] = 1.0
    early_stopping: Annotated[
        Literal["true", "false", "never"],
        Doc("when a prompt is done: as soon as all beams ended, when no better end is likely, when none is possible"),
    ] = "false"
    beam_choice: Annotated[
        Literal["best", "sampled", "stochastic"],
        Doc("which continuations go on: the likeliest, draws of each step, or draws of whole answers, no two alike"),
    ] = "best"  # do_sample
    beam_groups: Annotated[int, Ge(1), Doc("groups of beams, each kept away from those before it")] = 1
    diversity_penalty: Annotated[
        float, Ge(0), Doc("what a token costs a group for each earlier group's beam that takes it in the same step")
    ] = 0.0
    contrastive_alpha: Annotated[
        float, Ge(0), Le(1), Doc("contrastive search: the share of the penalty for being like what was said; 0 is off")
    ] = 0.0  # penalty_alpha
    contrastive_k: Annotated[int, Ge(1), Doc("contrastive search: likeliest tokens that are compared")] = 4  # top_k

    @property
    def on(self) -> bool:
        """Whether there is anything to search."""
        return self.beams > 1 or self.contrastive_alpha > 0


NEED_BEAMS = ("length_penalty", "early_stopping", "beam_choice", "beam_groups", "diversity_penalty")


def effective(settings: Sampling, search: Search) -> Sampling:
    """The settings that hold in a search: one that takes the best draws nothing, so its temperature is 0.

    So what a model's ``generation_config.json`` says of sampling does not disturb a search, as in transformers.
    """
    return settings if search.beam_choice != "best" else dataclasses.replace(settings, temperature=0.0)


def check(search: Search, settings: Sampling, *, given: Collection[str] = (), drafting: bool = False) -> None:
    """Raises ConfigError for settings that contradict each other.

    ``given``: the names of the settings that the user gave; one that a search cannot heed is then refused.
    ``drafting``: whether a draft model, or another speculation, was asked for.
    """
    if search.contrastive_alpha and search.beams > 1:
        raise ConfigError("search.contrastive-beams", alpha=search.contrastive_alpha, beams=search.beams)
    if drafting and search.on:
        raise ConfigError("search.drafts")
    if search.returned > search.beams:
        raise ConfigError("search.returned", returned=search.returned, beams=search.beams)
    changed = [name for name in NEED_BEAMS if getattr(search, name) != getattr(Search, name)]
    if search.beams == 1 and changed:
        raise ConfigError("search.needs-beams", name=changed[0], value=getattr(search, changed[0]))
    if search.beams % search.beam_groups:
        raise ConfigError("search.groups", groups=search.beam_groups, beams=search.beams)
    if (search.beam_groups > 1) != (search.diversity_penalty > 0):
        raise ConfigError("search.diversity", groups=search.beam_groups, penalty=search.diversity_penalty)
    if search.beam_choice != "best":
        _check_drawn(search, settings, changed)
    elif search.on and (unheeded := [name for name in ("temperature", *GREEDY_IGNORES) if name in given]):
        raise ConfigError("search.sampling", name=unheeded[0])


def _check_drawn(search: Search, settings: Sampling, changed: list[str]) -> None:
    if settings.temperature == 0:
        raise ConfigError("search.temperature", choice=search.beam_choice)
    unused = {"beam_groups"} if search.beam_choice == "sampled" else {"beam_groups", "length_penalty", "early_stopping"}
    if clash := [name for name in changed if name in unused]:
        raise ConfigError("search.choice", choice=search.beam_choice, name=clash[0], value=getattr(search, clash[0]))
