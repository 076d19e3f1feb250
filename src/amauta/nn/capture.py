"""What a forward pass saw, kept when it is asked for: nothing is computed or held otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from amauta.base.errors import ConfigError
from amauta.base.names import one_of

KINDS = ("attention", "hidden", "heads")


@dataclass
class Capture:
    """One list a kind, with an entry for each layer; those that were not asked for stay empty.

    attention: (B, H, T, S) weights in f32. cross: the same over the encoder's states. heads: (B, T, H, K), what each
    head gives before the output projection. hidden: (B, T, D), the embeddings and then what each layer gives.
    """

    wanted: frozenset[str]
    attention: list[Tensor] = field(default_factory=list)
    cross: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)

    def cut(self, first: int) -> None:
        """Forget the ``first`` tokens that read; keys stay."""
        self.attention[:] = [weights[:, :, first:] for weights in self.attention]
        self.cross[:] = [weights[:, :, first:] for weights in self.cross]
        self.heads[:], self.hidden[:] = ([one[:, first:] for one in kept] for kept in (self.heads, self.hidden))


def wanted(kinds: Iterable[str]) -> frozenset[str]:
    """The kinds, checked; ConfigError for one that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError("model.unknown-capture", name=kind, hint=one_of(kind, KINDS))
    return frozenset(kinds)
