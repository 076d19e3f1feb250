"""What a dialogue becomes: ids, and for each of them a role and a loss flag."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rendered:
    """A dialogue's tokens; the three lists are equally long (T).

    ``roles`` names the message's role for each token, its opening and its ``<|turn|>`` included, and is ``""`` for
    ``<|begin|>``. ``loss`` is True on the tokens that the assistant must learn to write: its content and the
    ``<|turn|>`` that ends it, not the ``<|assistant|>`` that opens it.
    """

    ids: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    loss: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], role: str, *, loss: bool) -> None:
        """Put ``ids`` at the end, all with one role and one flag."""
        self.ids.extend(ids)
        self.roles.extend([role] * len(ids))
        self.loss.extend([loss] * len(ids))
