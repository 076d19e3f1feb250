"""The scheduler alone, without a model: random requests come, are read, end, are cancelled and preempted."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from amauta.decode.engine.scheduler import Admission, Scheduler

IDS = st.lists(st.integers(0, 1), min_size=1, max_size=9)


class Traffic(RuleBasedStateMachine):
    """Beside the scheduler a plain model: what each slot's memory holds, and who is where."""

    @initialize(slots=st.integers(1, 4), block=st.sampled_from([0, 1, 2, 3]))
    def begin(self, slots, block):
        self.scheduler = Scheduler(slots, block)
        self.block = block
        self.memory = {slot: [] for slot in range(slots)}  # what was really read into each row of a cache
        self.known = {slot: [] for slot in range(slots)}  # what of it were prompts
        self.ids, self.priority, self.waiting, self.next = {}, {}, [], 0

    @rule(ids=IDS, priority=st.integers(0, 2))
    def submit(self, ids, priority):
        self.scheduler.submit(self.next, ids, priority)
        self.ids[self.next], self.priority[self.next] = list(ids), priority
        self.waiting.append(self.next)
        self.next += 1

    @rule()
    def admit(self):
        free = self.scheduler.free
        one = self.scheduler.admit()
        if not free or not self.waiting:
            assert one is None
            return
        most = max(self.priority[number] for number in self.waiting)
        assert one.number == next(number for number in self.waiting if self.priority[number] == most)
        assert one.slot in free
        ids = self.ids[one.number]
        if one.reused == len(ids):
            assert self.block and self.known[one.source] == ids
        else:
            assert one.reused % self.block == 0 if self.block else one.reused == 0
        assert self.memory[one.source][: one.reused] == ids[: one.reused]  # it is really there
        best = max((self.same(held, ids) for held in self.known.values()), default=0)
        assert one.reused == best  # and nobody has more of it
        self.memory[one.slot] = self.memory[one.source][: one.reused] + ids[one.reused :]
        self.known[one.slot] = list(ids)
        self.scheduler.read(one.number, ids[one.reused :])
        self.waiting.remove(one.number)

    def same(self, held, ids):
        if not self.block:
            return 0
        if held == ids:
            return len(ids)
        count = 0
        while count < min(len(held), len(ids) - 1) and held[count] == ids[count]:
            count += 1
        return count // self.block * self.block

    @rule(id=st.integers(0, 1))
    def go_on(self, id):
        for slot in self.scheduler.running.values():
            self.memory[slot].append(id)  # written: not read for others

    @rule(data=st.data())
    def end(self, data):
        if self.ids:
            number = data.draw(st.sampled_from(sorted(self.ids)))
            self.scheduler.leave(number)
            self.scheduler.leave(number)  # twice is no error
            del self.ids[number]
            self.waiting = [one for one in self.waiting if one != number]

    @rule()
    def preempt(self):
        running, free = dict(self.scheduler.running), len(self.scheduler.free)
        gone = self.scheduler.preempted()
        stay = [self.priority[number] for number in running if number not in gone]
        urgent = sorted((self.priority[number] for number in self.waiting), reverse=True)[free:]
        for priority, number in zip(urgent, gone, strict=False):
            assert self.priority[number] < priority
        if len(gone) < len(urgent):
            assert all(one >= urgent[len(gone)] for one in stay)
        for number in gone:
            self.scheduler.submit(number, self.ids[number], self.priority[number])
            self.waiting.append(number)

    @invariant()
    def no_slot_is_lost_or_owned_twice(self):
        if not hasattr(self, "scheduler"):
            return
        owned = list(self.scheduler.running.values())
        assert len(owned) == len(set(owned))
        assert sorted(owned + self.scheduler.free) == list(range(self.scheduler.slots))
        assert set(self.scheduler.running) | {one.number for one in self.scheduler.waiting} == set(self.ids)
        assert not set(self.scheduler.running) & {one.number for one in self.scheduler.waiting}
        assert self.scheduler.idle == (not self.ids)
        for slot, held in self.memory.items():
            known = self.scheduler.held[slot]
            assert known == held[: len(known)]  # what it believes is there is there


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_beginning_is_taken_over_or_copied():
    scheduler = Scheduler(2, block=2)
    scheduler.submit(0, [1, 2, 3, 4, 5])
    assert scheduler.admit() == Admission(0, 0, 0, 0)
    scheduler.read(0, [1, 2, 3, 4, 5])
    scheduler.submit(1, [1, 2, 3, 4, 9])
    assert scheduler.admit() == Admission(1, 1, 0, 4)  # request 0 still runs: copied
    scheduler.read(1, [9])
    scheduler.leave(0)
    scheduler.submit(2, [1, 2, 3, 4])
    assert scheduler.admit() == Admission(2, 0, 0, 2)  # taken over; its last token is read for its logits
    scheduler.read(2, [3, 4])
    scheduler.leave(1)
    scheduler.submit(3, [1, 2, 3, 4])
    assert scheduler.admit() == Admission(3, 1, 0, 4)  # the very same: nothing is read


def test_nothing_waits_behind_a_lower_priority():
    scheduler = Scheduler(1)
    scheduler.submit(0, [1], priority=0)
    scheduler.admit()
    scheduler.submit(1, [1], priority=0)
    assert scheduler.preempted() == []
    scheduler.submit(2, [1], priority=1)
    assert scheduler.preempted() == [0]
    assert scheduler.admit().number == 2
