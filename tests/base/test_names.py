"""Mistyped names: the nearest one, or all that are allowed."""

import pytest

from amauta.base.names import did_you_mean, nearest, one_of

KNOWN = ["steps", "batch-size", "learning_rate", "device"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("stepz", "steps"),
        ("STEPS", "steps"),
        ("batch_size", "batch-size"),  # given back as it is known, not as it was typed
        ("learning-rat", "learning_rate"),
        ("devcie", "device"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_name(name: str, wanted: str | None):
    assert nearest(name, KNOWN) == wanted


def test_of_several_the_closest_wins():
    assert nearest("heldout_txt", ["heldout", "heldout_text", "text"]) == "heldout_text"


def test_nothing_is_near_when_nothing_is_known():
    assert nearest("steps", []) is None and did_you_mean("steps", []) == ""


def test_a_sentence_with_the_nearest_or_with_all_of_them():
    assert did_you_mean("stepz", KNOWN) == "Did you mean 'steps'?"
    assert did_you_mean("zzz", iter(KNOWN)) == "Allowed: batch-size, device, learning_rate, steps."


def test_a_choice_is_told_in_its_order_and_whole():
    assert one_of("cup", iter(("auto", "cpu", "cuda"))) == "Allowed: auto, cpu, cuda. Did you mean 'cpu'?"
    assert one_of("zzz", ("auto", "cpu")) == "Allowed: auto, cpu."


def test_in_spanish(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert one_of("cup", ("auto", "cpu")) == "Se admite: auto, cpu. ¿Quiso decir 'cpu'?"
