"""The page of a pair: whole, harmless, and with every figure in it."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from amauta.base import messages
from amauta.inspect.page import page, save_page
from amauta.inspect.pair import Pair
from tests.inspect.conftest import NASTY

VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Elements with attributes and text; every tag must close the one that was opened last."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # the tag that a text stands in, and the text
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def told(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_page_is_whole_and_asks_for_nothing(pair: Pair, language: str):
    text = page(pair, language)
    read = Reader(text)
    assert dict(read.seen)["html"] == {"lang": language}
    assert not re.search(r"(src|href)=|https?:|url\(|@import", text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1 and "<script>alert" not in text
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    ids = [found["id"] for _, found in read.seen if "id" in found]
    assert len(ids) == len(set(ids))


def test_both_languages_have_their_words_and_numbers(pair: Pair):
    for language in ("en", "es"):
        text = page(pair, language)
        for name in ("title", "chosen", "rejected", "mapo", "score", "table", "colour", "mask-divergence"):
            assert messages.subject("inspect")[name][language] in text
    assert "0.325" in page(pair, "en") and "0,325" in page(pair, "es")  # the margin: (2.5 + 0.75) / 10
    assert "−0.075" in page(pair, "en")


def test_every_figure_stands_in_the_tables(pair: Pair):
    read = Reader(page(pair, "en"))
    cells = read.told("td")
    assert len(cells) == (4 + 2) * len(pair.chosen.figures)
    first = cells[: len(pair.chosen.figures)]
    assert first == ["−1", "−1.250", "0.250", "0.025", "0", "−0.250", "0", "0", "1", "0"]
    assert read.told("code") == ["Sí", NASTY.replace(" ", "·"), ".", "<|turn|>", "·no", "<|turn|>"]


def test_tokens_are_coloured_by_reward_before_any_script_runs(pair: Pair):
    tokens = [found for tag, found in Reader(page(pair, "en")).seen if tag == "span" and "data-n" in found]
    assert [found["data-n"] for found in tokens] == ["0", "1", "2", "3", "0", "1"]
    assert [found["class"] for found in tokens] == ["t plus"] * 4 + ["t minus"] * 2
    assert [found["style"] for found in tokens] == [f"--s:{x:.3f}" for x in (0.25, 0.5, 0.75, 1, 0.25, 0.5)]
    assert "Implicit reward −0.050" in tokens[-1]["title"] and "SePO learns it 1" in tokens[-1]["title"]


def test_the_data_of_the_script_is_the_pair(pair: Pair):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page(pair, "en"), re.S)
    assert "<" not in text
    data = json.loads(text)
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        assert data["sides"][name]["figures"] == side.figures and data["sides"][name]["places"] == side.places
        assert data["sides"][name]["attention"][0][0] == [0, 600, 2, 400]
    assert data["scales"]["ratio"] == 1 and data["scales"]["kl"] == 0.375 and data["scales"]["logprob"] == 4


def test_what_is_not_known_is_left_out(pair: Pair):
    few = {"score", "selected", "mask_reward", "mask_divergence"}
    sides = (replace(side, figures={k: v for k, v in side.figures.items() if k not in few})
             for side in (pair.chosen, pair.rejected))  # fmt: skip
    text = page(Pair(*sides, 0.1, "a:1", {"model": "a", "reference": "b"}), "en")
    body = text[text.index("<main>") : text.index("<footer")]
    assert "SePO" not in body and "Sparsity" not in body and "MaPO mask" in body


def test_a_page_is_written(pair: Pair, tmp_path: Path):
    save_page(pair, tmp_path / "a" / "p.html", "es")
    assert (tmp_path / "a" / "p.html").read_text(encoding="utf-8") == page(pair, "es")
