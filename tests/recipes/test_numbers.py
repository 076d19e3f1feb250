"""Figures in both languages."""

import pytest

from amauta.recipes import numbers


@pytest.mark.parametrize(
    ("value", "unit", "english", "spanish"),
    [
        (0.905, "share", "90.5 %", "90,5 %"),
        (1234567.0, "count", "1,234,567", "1\u202f234\u202f567"),
        (2.34567, "bits/byte", "2.346", "2,346"),
        (1234.5678, "number", "1,235", "1\u202f235"),
        (0.0123456, "number", "0.01235", "0,01235"),
        (12.0, "number", "12", "12"),
        (0.0, "number", "0", "0"),
        (-3.14159, "number", "-3.142", "-3,142"),
        (1.5e-7, "number", "1.500e-07", "1,500e-07"),
        (None, "share", "–", "–"),
    ],
)
def test_figure(monkeypatch: pytest.MonkeyPatch, value: float | None, unit: str, english: str, spanish: str):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    assert numbers.figure(value, unit) == english
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert numbers.figure(value, unit) == spanish


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (60, "1 min 00 s"),
        (125.4, "2 min 05 s"),
        (3719.6, "1 h 02 min"),
        (3599.7, "1 h 00 min"),
    ],
)
def test_duration(monkeypatch: pytest.MonkeyPatch, seconds: float, text: str):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    assert numbers.duration(seconds) == text


def test_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    assert [numbers.size(count) for count in (999, 1000, 12_345_678, 2.5e9)] == ["999 B", "1.0 kB", "12.3 MB", "2.5 GB"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.75, "0.75"), (1.0, "1"), (1200.0, "1,200"), (-0.5, "-0.5"), (0.0, "0"), (2e-5, "2e-05"), (3e6, "3e+06")],
)
def test_tick(monkeypatch: pytest.MonkeyPatch, value: float, text: str):
    monkeypatch.setenv("AMAUTA_LANG", "en")
    assert numbers.tick(value) == text
