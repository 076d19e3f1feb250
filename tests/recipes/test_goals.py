"""Goals: the grammar, and every way to reach or miss one."""

import math

import pytest

from amauta.recipes.goals import flat, judge, parse

FIGURES = {"a": {"loss": 2.0, "ok": True, "nan": math.nan, "after.share": 0.9}, "b": {"loss": 3.0}, "skipped": None}


@pytest.mark.parametrize(
    ("metric", "text", "bound", "reached"),
    [
        ("loss", "<= 2", 2.0, True),
        ("loss", "< 2", 2.0, False),
        ("loss", ">= 2.0", 2.0, True),
        ("loss", "> 2", 2.0, False),
        ("loss", "==2e0", 2.0, True),
        ("loss", "> -.5", -0.5, True),
        ("loss", "< b.loss", 3.0, True),
        ("loss", "> b.loss", 3.0, False),
        ("loss", "<= 0.5 * b.loss", 1.5, False),
        ("loss", "<= 0.7*b.loss", 2.1, True),
        ("loss", "> a.after.share", 0.9, True),
        ("loss", "<= b.loss - 1.5", 1.5, False),
        ("loss", "< 0.5 * b.loss + .75", 2.25, True),
        ("after.share", ">= 0.9", 0.9, True),
        ("ok", "== 1", 1.0, True),
        ("nan", "<= 5", 5.0, False),
        ("nan", ">= 5", 5.0, False),
        ("absent", "<= 5", 5.0, False),
        ("loss", "< b.absent", None, False),
        ("loss", "< skipped.loss", None, None),
    ],
)
def test_judged(metric: str, text: str, bound: float | None, reached: bool | None):
    goal = parse(metric, text)
    assert goal is not None
    verdict = judge("a", goal, FIGURES)
    assert verdict.reached is reached
    assert verdict.bound == (None if bound is None else pytest.approx(bound))


def test_a_skipped_stages_own_goal_is_not_judged():
    goal = parse("loss", "< 1")
    assert goal is not None and judge("skipped", goal, FIGURES).reached is None


@pytest.mark.parametrize(
    "text", ["", "0.9", "=< 3", "<= ", "<= loss", "<= 2 b.loss", "<= b.loss * 2", "< 1 or > 2", "< b.loss +", "< 1 + 2"]
)
def test_what_is_no_goal(text: str):
    assert parse("loss", text) is None


def test_flat():
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}
