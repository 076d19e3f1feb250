"""Which request stands in which slot of the cache, and what of its prompt is already there. No tensors, no clock.

A slot is a row of the cache. What an ended request has read stays in its slot until another needs the place, so a
prompt that begins alike is not read again: the slot is taken over, or its beginning is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Admission:
    """A request that begins: the first ``reused`` tokens of its ids are copied from slot ``source`` to ``slot``. All of
    them, where that slot was read for the very same ids."""

    number: int
    slot: int
    source: int
    reused: int


@dataclass
class Waiting:
    number: int
    ids: list[int]
    priority: int


@dataclass
class Scheduler:
    """``slots`` places, for requests in the order of their priority (higher first), then of their coming.

    ``block``: only whole blocks of so many tokens are reused (0: nothing is). A request that was read from the start
    and one that was partly reused have then been read in the same pieces, and are the same bit for bit.
    """

    slots: int
    block: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)  # number -> slot
    held: list[list[int]] = field(default_factory=list)  # what each slot has read, running or not
    _priority: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"{self.slots} slots")
        self.held = [[] for _ in range(self.slots)]

    @property
    def free(self) -> list[int]:
        """Slots that no request owns."""
        taken = set(self.running.values())
        return [slot for slot in range(self.slots) if slot not in taken]

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def submit(self, number: int, ids: Sequence[int], priority: int = 0) -> None:
        """A new request with its prompt, or one that was preempted and comes back."""
        if number in self.running or any(one.number == number for one in self.waiting):
            raise ValueError(f"request {number} is here already")
        self.waiting.append(Waiting(number, list(ids), priority))
        self._priority[number] = priority

    def preempted(self) -> list[int]:
        """Requests that must give their slots to waiting ones of higher priority: the least urgent, newest first.

        They are taken out of their slots; the caller submits them again.
        """
        ahead = sorted((one.priority for one in self.waiting), reverse=True)[len(self.free) :]
        found = []
        for priority in ahead:
            least = min(self.running, key=lambda number: (self._priority[number], -number), default=None)
            if least is None or self._priority[least] >= priority:
                break
            self._leave(least)
            found.append(least)
        return found

    def admit(self) -> Admission | None:
        """The next waiting request, when there is a slot: where it goes, and where most of it is already read.

        One at a time, so that what the caller reads for one (``read``) is there for the next.
        """
        if not self.waiting or not self.free:
            return None
        one = max(self.waiting, key=lambda one: one.priority)  # the first of the most urgent
        self.waiting.remove(one)
        return self._place(one)

    def read(self, number: int, ids: Sequence[int]) -> None:
        """The slot of a running request holds these tokens too, for any prompt that begins with them."""
        self.held[self.running[number]] += ids

    def leave(self, number: int) -> None:
        """A request has ended or was cancelled, wherever it stood; unknown ones are no error."""
        self.waiting = [one for one in self.waiting if one.number != number]
        if number in self.running:
            self._leave(number)
        self._priority.pop(number, None)

    def _leave(self, number: int) -> None:
        del self.running[number]

    def _place(self, one: Waiting) -> Admission:
        free = self.free
        alike = [self._alike(slot, one.ids) for slot in range(self.slots)]
        source = max(range(self.slots), key=lambda slot: (alike[slot], slot in free, -len(self.held[slot])))
        # a free slot that begins like this one is taken over; else the one goes that holds least
        slot = source if source in free else min(free, key=lambda slot: (len(self.held[slot]), slot))
        self.held[slot] = one.ids[: alike[source]]
        self.running[one.number] = slot
        return Admission(one.number, slot, source, alike[source])

    def _alike(self, slot: int, ids: Sequence[int]) -> int:
        """Tokens that need not be read again: all, where the ids are the same; else whole blocks, and never the last
        token, whose logits are asked for."""
        held = self.held[slot]
        if not self.block or held == ids:
            return len(held) if self.block else 0
        most = min(len(ids) - 1, len(held))
        same = next((i for i in range(most) if held[i] != ids[i]), most)
        return same // self.block * self.block
