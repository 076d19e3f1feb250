"""How far a reward model can be believed: by hand, by scikit-learn, and by models that are right as often as told."""

import math

import numpy as np
import pytest

from amauta.grades import wilson
from amauta.train.reward.calibration import as_text, calibration, picture

FAR = math.log(9)  # a confidence of 0.9


def test_by_hand():
    differences = np.array([FAR, FAR, -FAR, FAR, 0.0, 20.0])
    longer = np.array([3, -1, 2, 0, 0, 5])
    found = calibration(differences, longer)
    assert found["pairs"] == 6 and found["accuracy"] == pytest.approx(4.5 / 6)
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(wilson(4.5, 6))
    assert found["margin"] == pytest.approx((2 * FAR + 20) / 6)
    assert found["length_accuracy"] == pytest.approx((3 + 1) / 6)  # three are longer, two of one length
    assert found["prefers_longer"] == pytest.approx((1 + 0 + 0 + 0.5 + 0.5 + 1) / 6)
    assert [one["n"] for one in found["bins"]] == [1, 4, 1]
    assert [one["confidence"] for one in found["bins"]] == pytest.approx([0.5, 0.9, 1.0])
    assert [one["accuracy"] for one in found["bins"]] == [0.5, 0.75, 1.0]
    assert found["calibration_error"] == pytest.approx(4 / 6 * 0.15)
    assert (found["bins"][0]["low"], found["bins"][-1]["high"]) == (0.5, 1.0)


def test_the_bins_are_scikit_learns():
    """Every pair both ways round: the chance that the first beats the second, and whether it did."""
    metrics = pytest.importorskip("sklearn.calibration")
    draw = np.random.default_rng(1)
    differences = draw.normal(1.0, 2.0, 500)
    found = calibration(differences, np.ones(500))
    chance = np.concatenate([1 / (1 + np.exp(-differences)), 1 / (1 + np.exp(differences))])
    truth, told = metrics.calibration_curve(np.repeat([1, 0], 500), chance, n_bins=20)
    assert [one["accuracy"] for one in found["bins"]] == pytest.approx(truth[10:].tolist())
    assert [one["confidence"] for one in found["bins"]] == pytest.approx(told[10:].tolist())
    assert sum(one["n"] for one in found["bins"]) == 500


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_one_that_knows_its_chances_is_calibrated_and_one_that_is_too_sure_is_not(stretch: float):
    draw = np.random.default_rng(2)
    true = draw.normal(0.0, 1.5, 20_000)
    won = draw.random(20_000) < 1 / (1 + np.exp(-true))
    found = calibration(stretch * np.where(won, true, -true), np.ones(20_000))
    inside = [one["accuracy_low"] <= one["confidence"] <= one["accuracy_high"] for one in found["bins"]]
    assert (found["calibration_error"] < 0.02) == (stretch == 1.0) and sum(inside) >= (8 if stretch == 1.0 else 0)
    assert found["calibration_error"] > 0.1 or stretch == 1.0


def test_the_picture_is_the_same_for_the_same_table_and_holds_its_points():
    found = calibration(np.array([FAR, -FAR, 1.0]), np.array([1, 1, 1]))
    assert picture(found) == picture(found)
    assert picture(found) != picture(calibration(np.array([FAR, FAR, 1.0]), np.array([1, 1, 1])))
    text = picture(found).decode()
    assert "is right" in text and "says" in text and "pairs" in text


def test_the_table_for_people():
    lines = as_text(calibration(np.array([FAR, FAR, -FAR, FAR]), np.zeros(4))).splitlines()
    assert lines[0].split() == ["says", "is", "right", "95", "%", "pairs"]
    low, high = wilson(3, 4)
    assert lines[1].split() == ["0.900", "0.750", f"{low:.3f}–{high:.3f}", "4"]
