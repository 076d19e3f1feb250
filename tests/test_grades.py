"""Measures: methods' reference values, the libraries' own, and what they do at the edges."""

import builtins
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from amauta.base.errors import ConfigError
from amauta.grades import MEASURES, USUAL, check_extra, exact_match, grades, mean_interval, student, token_f1

RIGHT, GIVEN = [1, 1, 1, 0, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0, 1, 0]


def test_the_reference_values():
    found = grades(USUAL["classification"], RIGHT, GIVEN)
    assert found == pytest.approx({"accuracy": 0.75, "f1": 0.75, "matthews": 0.5})
    numbers = grades(USUAL["regression"], [1, 2, 3, 4, 5], [1.2, 1.9, 3.5, 3.4, 5.1])
    assert numbers == pytest.approx({"pearson": 0.966028, "spearman": 0.9}, abs=1e-6)


def test_by_their_definitions():
    generator = np.random.default_rng(0)
    right, given = generator.integers(0, 2, 60).tolist(), generator.integers(0, 2, 60).tolist()
    tp = sum(a == b == 1 for a, b in zip(right, given, strict=True))
    tn = sum(a == b == 0 for a, b in zip(right, given, strict=True))
    fp, fn = sum(given) - tp, sum(right) - tp
    matthews = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    found = grades(("matthews", "f1"), right, given)
    assert found == pytest.approx({"matthews": matthews, "f1": 2 * tp / (2 * tp + fp + fn)})
    x, y = generator.normal(size=40), generator.normal(size=40)
    ranks = [np.argsort(np.argsort(one)) for one in (x, y)]
    found = grades(("pearson", "spearman"), x.tolist(), y.tolist())
    assert found == pytest.approx({"pearson": np.corrcoef(x, y)[0, 1], "spearman": np.corrcoef(*ranks)[0, 1]})


def test_edges():
    assert grades(("matthews", "f1"), [1, 0, 1], [0, 0, 0]) == {"matthews": 0.0, "f1": 0.0}
    assert math.isnan(grades(("pearson",), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])["pearson"])
    # three classes of which two were met: still the mean over three; an answer that is no label is wrong, not a class
    assert grades(("f1",), [0, 1, 1], [0, 1, 1], classes=3)["f1"] == pytest.approx(2 / 3)
    assert grades(("accuracy", "f1"), [0, 1, 1, 0], [-1, 1, 1, 0]) == {"accuracy": 0.75, "f1": 1.0}


def test_spans_by_the_rules_of_squad():
    right = [["the Denver Broncos", "Broncos"], ["308"], []]
    assert exact_match(right, ["Broncos!", "309", ""]) == pytest.approx(2 / 3)
    assert token_f1(right, ["Denver, Colorado", "308", "x"]) == pytest.approx((0.5 + 1 + 0) / 3)


def test_a_missing_library_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name="sklearn")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    check_extra(["accuracy", "exact_match"])
    with pytest.raises(ConfigError, match=r"sklearn.*pip install scikit-learn scipy"):
        check_extra(["f1"])
    with pytest.raises(ConfigError, match="mathews.*matthews"):
        check_extra(["mathews"])
    assert set(name for names in USUAL.values() for name in names) <= set(MEASURES)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 29, 30, 200])
def test_the_quantile_of_student_is_that_of_another_library(degrees: int):
    assert student(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=1e-9)
    assert student(degrees, 0.5) == pytest.approx(scipy.stats.t.ppf(0.75, degrees), rel=1e-9)


def test_the_interval_of_a_mean():
    values = [0.2, 0.5, 0.3, 0.9]
    low, high = scipy.stats.t.interval(0.95, 3, 0.475, scipy.stats.sem(values))
    assert mean_interval(values) == pytest.approx((0.475, low, high))
    assert mean_interval(values, 0.0, 1.0) == pytest.approx((0.475, max(low, 0), min(high, 1)))
    assert mean_interval([0.3], 0.0, 1.0) == (0.3, 0.0, 1.0) and mean_interval([2, 2]) == (2, 2, 2)
