"""The page of the prompting benchmark, from figures worked by hand."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks._kept import Kept
from benchmarks.pages import prompting

A, B = "Positive", "Negative"
RIGHT = [A, A, B, B]


def figures(accuracy: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    told = {"generated_tokens": 10.4, "read_tokens": 99.6, "calls": 1.0, "seconds": 2.0, "no_answer": 0.25}
    return {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, **told, "examples": 7, **more}


def given(*rows: list[str]) -> list[dict[str, Any]]:
    return [{"answers": row} for row in rows]


@pytest.fixture
def found() -> dict[str, Any]:
    none = given([A, A, A, A])
    conditions = {name: figures(0.5, 0.4, 0.6, draws=5, macro_f1=0.456) for name in ("none", "gold", "random")}
    tuned = [{"answers": [one] * 4, "losses": [1.0] * steps} for one, steps in ((A, 4), (B, 6))]
    small = {"width": 64, "layers": 3, "heads": 4}
    digits = {"direct": (0.1, 0.0, 0.2), "scratchpad": (0.9, 0.8, 1.0)}
    return {
        "model": "toy", "samples": 5, "steps": 96, "dtype": "f32", "threads": 1, "cores": 3, "seconds": 240.0,
        "thoughts": {"branching": 2, "breadth": 2, "simulations": 4, "parts": 4},
        "methods": {"sums": {
            "direct": figures(0.2, 0.1, 0.3), "cot": figures(0.6, 0.4, 0.8, seconds=14.0),
            "few-shot": figures(0.4, 0.25, 0.6), "got": figures(0.0, 0.0, 0.05), "mcts": figures(0.15, 0.05, 0.25),
        }},
        "labels": {
            "task": "moods", "examples": 24, "shots": 8, "seeds": 5, "conditions": conditions,
            "gold_minus_random": {"accuracy": -0.1, "low": -0.15, "high": -0.05},
        },
        "learning": {
            "task": "moods", "examples": 4, "seeds": 2, "steps": 8, "rows": 8, "learnt": 0.1, "lr": 1e-4,
            "right": RIGHT,
            "ways": {
                "context": {"0": none, "1": given([A, A, A, A], [A, A, B, A]), "2": given(RIGHT, RIGHT)},
                "weights": {"0": none, "1": given([A, B, A, B], [A, A, B, B]), "2": tuned},
            },
        },
        "scratchpads": {
            "digits": 3, "records": 9, "examples": 60, "steps": 450, "rows": 16, "length": 128, "shape": small,
            "ways": {way: {"learnt": 3, "parameters": 178464, "loss": 1.0,
                           "digits": {"1": figures(0.5, 0.3, 0.7 - one[0] / 10, scratch_right=0.5),
                                      "2": figures(*one, scratch_right=0.75)}} for way, one in digits.items()},
        },
    }  # fmt: skip


def test_every_number_of_the_page_is_computed(found: dict[str, Any]) -> None:
    text = prompting.page(found, "en", "plot.svg")
    assert "| sums, cot | 7 | 60 [40, 80] | 25 | 10 | 100 | 1 | 14.0 |" in text
    assert "better than direct beyond both intervals: cot; worse: got. The dearest, cot, takes 7 times" in text
    assert "| right labels | 5 | 50 [40, 60] | 0.46 |" in text
    assert "-10 [-15, -5] points: right labels do worse, beyond chance" in text
    assert "| 0 | 50 [15, 85] | 50 [15, 85] | – | – | – | 0 |" in text  # Wilson's of 2 in 4
    assert "| 2 | 100 [100, 100] | 50 [50, 50] | +50 [+50, +50] | 50 | 50 | 5 |" in text
    assert (
        "better beyond chance at k = 2; fine-tuning at k = none; there is no difference beyond chance at k = 1" in text
    )
    assert "than independent answers would at 1 of 2 sizes." in text
    assert "2 examples bring +50 [+50, +50] points in context and +0 [+0, +0] points" in text
    assert "| 2 | 7 | 10 [0, 20] | 90 [80, 100] | 10 | 10 | 75 |" in text
    assert "better at digits: 2; worse at: none; no difference can be told at: 1." in text
    assert "![The same examples in the prompt and in the weights](plot.svg)" in text


def test_answers_that_are_alike_by_chance_alone(found: dict[str, Any]) -> None:
    # k = 1, first seed: A A A A against A B A B: alike 2/4, by chance (4 * 2) / 16; second: 3/4, (3 * 2 + 1 * 2) / 16
    assert prompting.alike(found["learning"], "1") == (0.625, 0.5)
    assert prompting.accuracies(found["learning"], "context", "1") == [0.5, 0.75]
    mean, low, high = prompting.gap(found["learning"], "1")  # 0 and -1/4: t of one degree of freedom reaches beyond -1
    assert (mean, low, high) == (-0.125, -1.0, 1.0)


@pytest.mark.parametrize(("interval", "said"), [((0.0, -0.1, 0.1), "same"), ((0.2, 0.1, 0.3), "more")])
def test_the_verdict_on_labels_follows_the_interval(
    found: dict[str, Any], interval: tuple[float, float, float], said: str
) -> None:
    found["labels"]["gold_minus_random"] = dict(zip(("accuracy", "low", "high"), interval, strict=True))
    assert prompting.WORDS[f"labels-{said}"]["es"] in prompting.page(found, "es", "plot.svg")


def test_both_languages_and_their_plots_are_written(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measured.json").write_text("noise\n" + json.dumps(found) + "\n")
    monkeypatch.setattr(sys, "argv", ["prompting", str(tmp_path / "measured.json"), str(tmp_path / "out")])
    prompting.main()
    pages = [(tmp_path / "out" / f"prompting{one}.md").read_text(encoding="utf-8") for one in ("", ".es")]
    intervals = [re.findall(r"^\|.*\[.*$", text, re.MULTILINE) for text in pages]
    assert [len(rows) for rows in intervals] == [13, 13]
    for text, suffix, word in zip(pages, ("", ".es"), ("fine-tuned", "ajuste fino"), strict=True):
        assert f"(prompting{suffix}.svg)" in text and "{" not in text
        drawn = ElementTree.parse(tmp_path / "out" / f"prompting{suffix}.svg")
        assert word in {node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text")}


def test_what_was_found_is_kept_until_the_settings_change(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"found": len(calls)}

    assert Kept(tmp_path)("part", {"seeds": (1, 2)}, work) == {"found": 1}
    again = Kept(tmp_path)
    assert again("part", {"seeds": (1, 2)}, work) == {"found": 1} and again.seconds > 0
    assert again("part", {"seeds": (1,)}, work) == {"found": 2} and len(calls) == 2
