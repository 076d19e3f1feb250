"""What may be asked of speculative decoding. Torch-free, for the command line."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from amauta.base.errors import ConfigError

LOOKUP, NGRAM = "lookup", "ngram"  # the drafts that need no model; a folder of that name is ./lookup


@dataclass(frozen=True)
class Drafting:
    """Tokens guessed ahead and checked together: quicker where guesses hold, and the same distribution in any case.

    Raises ConfigError where no match could have a length that is asked for.
    """

    draft: Annotated[
        str | None,
        Doc(
            "guess tokens ahead, to be checked in one pass: lookup (what followed the same tokens before), "
            "ngram (counts of the text so far), or a model with the same vocabulary"
        ),
    ] = None
    draft_tokens: Annotated[int, Ge(1), Doc("tokens guessed before each check")] = 4
    draft_longest: Annotated[int, Ge(1), Doc("lookup, ngram: most last tokens that a guess goes by")] = 3
    draft_shortest: Annotated[int, Ge(1), Doc("lookup: fewest last tokens that a guess goes by")] = 1
    draft_adapt: Annotated[
        bool, Doc("guess two tokens more after a check that they all passed, one less after any other")
    ] = False

    @property
    def needs_model(self) -> bool:
        """Whether ``draft`` names a model, to be loaded by whoever calls."""
        return self.draft not in (None, LOOKUP, NGRAM)

    def __post_init__(self) -> None:
        if self.draft_shortest > self.draft_longest:
            raise ConfigError("speculative.match-sizes", shortest=self.draft_shortest, longest=self.draft_longest)
