"""What is said of a run, on changes that were made up to deserve it."""

import numpy as np
import pytest

from amauta.data.batches import Piece
from amauta.train.prefer.diagnosis import Change, Probe, change_of, probe_of, repetition, verdicts


def piece(answer: list[int], prompt: int = 2) -> Piece:
    ids = np.array([*range(90, 90 + prompt), *answer])
    return Piece(ids, np.arange(1, len(ids)) >= prompt)


PAIRS = [
    (piece([1, 2, 3, 9]), piece([1, 5, 9])),
    (piece([7]), piece([8, 8, 8, 8])),
    (piece([1, 2, 1, 1]), piece([1, 1])),
]


def test_the_change_of_pairs():
    probe = probe_of(PAIRS, None, heldout=False)
    before, after = np.array([-10.0, -8.0, -2.0, -9.0, -1.0, -1.0]), np.array([-11.0, -12.0, -1.0, -7.0, 2.0, -2.0])
    change = change_of(probe, before, after)
    assert (change.chosen, change.rejected, change.margin) == (1.0, -1.0, 2.0)
    assert (change.fell, change.accuracy, change.longer) == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    # of [1 5 9], 1 at the begin and 9 at the end; nothing of [7]; of [1 1] both, each once
    assert change.alike == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_the_change_of_single_answers_counts_all_against_all():
    pieces = [piece([number]) for number in range(4)]
    probe = probe_of([(one,) for one in pieces], [True, False, True, False], heldout=True)
    change = change_of(probe, np.zeros(4), np.array([2.0, 1.0, -3.0, 4.0]))
    assert (change.chosen, change.rejected, change.accuracy, change.fell) == (-0.5, 2.5, 0.25, 0.5)
    assert not probe.paired and probe.heldout


def test_a_probe_is_spread_over_all_units():
    units = [(piece([number]), piece([0])) for number in range(1000)]
    probe = probe_of(units, None, heldout=False)
    picked = [int(one.ids[-1]) for one in probe.pieces[::2]]
    assert len(picked) == 64 and picked[0] == 0 and picked[-1] == 999 and np.diff(picked).max() < 20
    assert isinstance(probe, Probe) and probe.wanted.tolist() == [True, False] * 64


WELL = {"chosen": 2.0, "rejected": -3.0, "fell": 0.1, "accuracy": 0.9, "alike": 0.2, "longer": 0.5}
SHORT, LONG = ("q", "yes it is", "yes it is so"), ("q", "yes it is", "yes it is so and so on and on for a long time")
LOOP = ("q", "yes it is", "so it goes on " * 9)


@pytest.mark.parametrize(
    ("changes", "given", "names"),
    [
        ({}, {}, ["well"]),
        ({"chosen": 0.02, "rejected": -0.05}, {}, ["unmoved"]),
        ({"chosen": -3.0, "rejected": 1.0}, {}, ["backwards"]),
        ({"chosen": -1.0, "rejected": -9.0}, {}, ["displaced"]),
        ({"chosen": -9.0, "rejected": -120.0}, {}, ["displaced", "saturated"]),
        ({}, {"seen": 0.95}, ["well"]),
        ({"accuracy": 0.55}, {"seen": 0.95}, ["overfit"]),
        ({"longer": 0.8}, {"samples": [SHORT]}, ["well"]),
        ({"longer": 0.8}, {"samples": [LONG]}, ["longer"]),
        ({"longer": 0.4}, {"samples": [LONG]}, ["well"]),
        ({"longer": 0.4}, {"samples": [LOOP]}, ["repeats"]),
    ],
)
def test_verdicts(changes: dict[str, float], given: dict[str, object], names: list[str]):
    found = verdicts(Change(**WELL | changes), 0.1, **given)  # type: ignore[arg-type]
    assert list(found) == names


def test_remedies_are_named():
    said = verdicts(Change(**WELL | {"chosen": -1.25, "rejected": -9.0}), 0.1)["displaced"]
    assert "--sft-weight" in said and "1.2 nats" in said and "20%" in said
    assert "--lr" in verdicts(Change(**WELL | {"chosen": 0.0, "rejected": 0.0}), 0.1)["unmoved"]


def test_repetition():
    assert repetition("one two three") == 0.0
    assert repetition("a b c d e f g h") == 0.0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
