"""Reading on from where a row still agrees with what was read, and forgetting the rest."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from amauta.decode.feed import feed_for


class Reader:
    """What a model has read of each row. ``first`` are the logits after the prompts, (B, V).

    Rows stand at different places and go on by different numbers of tokens, in one pass.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        slots: int,
        *,
        sources: Sequence[Sequence[int]] | None = None,
        cached: bool = True,
    ) -> None:
        """``slots``: the most tokens that a row may come to have read."""
        self.feed = feed_for(model, len(prompts), slots, sources=sources, cached=cached)
        self.rows = list(range(len(prompts)))  # which row stands in each place of the feed
        self.known = {row: list(prompt) for row, prompt in enumerate(prompts)}
        self.first = self.feed.start(prompts)

    def read(self, rows: Sequence[int], ids: Sequence[Sequence[int]], last: Sequence[int]) -> list[Tensor]:
        """The logits after the ``last`` newest tokens of each row's whole ``ids``, (last_i, V) each.

        All places of a feed go on together: a row that is not asked for reads its last token once more.
        """
        asked = {row: (list(whole), count) for row, whole, count in zip(rows, ids, last, strict=True)}
        again = [(asked[row] if row in asked else (self.known[row], 1)) for row in self.rows]
        kept = [
            min(_agreeing(self.known[row], whole), len(whole) - count)
            for row, (whole, count) in zip(self.rows, again, strict=True)
        ]
        self.feed.rewind(kept)
        found = self.feed.extend([whole[start:] for (whole, _), start in zip(again, kept, strict=True)])
        self.known = {row: whole for row, (whole, _) in zip(self.rows, again, strict=True)}
        place = {row: place for place, row in enumerate(self.rows)}
        return [found[place[row]][-count:] for row, (_, count) in asked.items()]

    def keep(self, rows: Sequence[int]) -> None:
        """The other rows have ended. Their places go once half of all are idle: copying the cache costs too."""
        if 2 * len(rows) <= len(self.rows):
            self.feed.reorder([self.rows.index(row) for row in rows])
            self.rows = list(rows)


def _agreeing(known: list[int], ids: list[int]) -> int:
    """How many first tokens are the same in both: nearly all, so sought from the end."""
    size = min(len(known), len(ids))
    while known[:size] != ids[:size]:
        size -= 1
    return size
