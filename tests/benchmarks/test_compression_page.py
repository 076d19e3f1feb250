"""The page of the compression benchmark, from figures worked by hand."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.pages import compression


def one(
    megabytes: float, prose: float, *, task: tuple[float, float, float] = (0.6, 0.5, 0.7), speed: float | None = 1.0
):
    timed = {} if speed is None else {"speed": speed, "tokens_per_second": 40 * speed, "peak": int(1.5e6 * megabytes)}
    return {
        "bytes": int(megabytes * 1e6), "formula": int(megabytes * 0.5e6), "prose": prose, "kl": 0.0123,
        "top1_agreement": 0.9, "perplexity_ratio": 1.04, "blimp": list(task), "arc": [0.4, 0.3, 0.5], **timed,
    }  # fmt: skip


@pytest.fixture
def found() -> dict[str, Any]:
    return {
        "model": "toy", "calibration": ["a/wiki.txt", 8, 64], "prose": ["b/tales.txt", 4], "pairs": 10,
        "questions": 20, "tokens": 48, "cores": 2, "seconds": 600.0,
        "schemes": {
            "f32": one(400, 20.0) | {"formula": 400_000_000},
            "bf16": one(200, 20.02),
            "int8": one(120, 20.1, speed=1.6),
            "int4": one(60, 24.0, speed=2.5),
            "int4, affine": one(62, 21.0, speed=2.4),
            "awq": one(62, 20.5, speed=2.4),
            "gptq": one(62.5, 20.7, task=(0.3, 0.2, 0.49), speed=2.4),
            "magnitude 50 %": one(400, 90.0, task=(0.8, 0.71, 0.9), speed=None),
        },
    }  # fmt: skip


def test_every_verdict_follows_from_the_figures(found):
    text = compression.page(found, "en", "plot.svg")
    assert "Within 3 % of the perplexity of f32: int8, awq. Smallest of them: awq, 31% of bf16's bytes." in text
    assert "nearest costs × 1.200" in text
    assert "a zero too, × 1.050, AWQ × 1.025 and GPTQ × 1.035" in text
    assert "2 of 6 schemes have intervals that do not meet those of f32: gptq, magnitude 50 %" in text
    assert "560 GB (64), 280 GB (32), 140 GB (16), 70 GB (8), 35 GB (4)" in text
    assert "toy, 100.0 million parameters" in text


def test_rows_hold_what_was_measured(found):
    text = compression.page(found, "en", "plot.svg")
    [row] = [line for line in text.splitlines() if line.startswith("| int4 |") and "1.200" in line]
    assert row == "| int4 | 60 | 0.012 | 90.0 | 1.040 | 24.00 | 1.200 | 60 [50, 70] | 40 [30, 50] | 100 | 2.50 |"
    [row] = [line for line in text.splitlines() if line.startswith("| magnitude 50 % |")]
    assert row.endswith("| – | – |")
    [row] = [line for line in text.splitlines() if line.startswith("| int8 |") and "2.00" in line]
    assert row == "| int8 | 60 | 120 | 2.00 | 180 |"


def test_both_languages_say_the_same_numbers_and_each_has_its_plot(found, tmp_path: Path):
    measured = tmp_path / "found.json"
    measured.write_text(json.dumps(found), encoding="utf-8")
    compression.main(str(measured), str(tmp_path))
    english, spanish = ((tmp_path / f"compression{suffix}.md").read_text(encoding="utf-8") for suffix in ("", ".es"))
    numbers = [sorted(re.findall(r"\d+\.\d+|\d+", text)) for text in (english, spanish)]
    assert numbers[0] == numbers[1]
    for suffix in ("", ".es"):
        svg = (tmp_path / f"compression{suffix}.svg").read_bytes()
        assert b"gptq" in svg
        ElementTree.fromstring(svg)
    before = (tmp_path / "compression.svg").read_bytes()
    compression.main(str(measured), str(tmp_path))
    assert (tmp_path / "compression.svg").read_bytes() == before
