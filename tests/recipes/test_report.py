"""The report: every figure is in it, nothing that a model wrote is markup, and it asks for nothing from outside."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from amauta.base.errors import RunError
from amauta.recipes import charts, report
from amauta.recipes.learned import table
from tests.recipes.conftest import Place

VOID = {"meta", "br", "img", "use", "path", "line", "rect"}


class Page(HTMLParser):
    """Elements, ids and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [value for name, value in found.items() if name in ("src", "href", "action", "data") and value]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"


@pytest.fixture
def drawn(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The small recipe, run once, with real charts in its report."""
    monkeypatch.setattr(report, "draw", charts.draw)
    place.run()
    return place


def test_the_page_is_whole_safe_and_closed(drawn: Place):
    text = (drawn.dir / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "script" not in page.tags and "<script>x(4)</script>" in page.words
    assert "b" not in page.tags and "recipe" not in page.tags and "learns" not in page.tags


def test_the_page_shows_the_figures(drawn: Place):
    page = Page((drawn.dir / "report.html").read_text())
    words = " ".join(page.words.split())
    for part in [
        "A small <recipe>", "All goals reached: 3 of 3.", "Here it <learns>.",
        "train bits_per_byte 0.000 2.250 reached ≤ 2.587 (1.15 × other.score), < 2.500",
        "train exact 10.0 % 95.0 % – –", "corpus characters – 8 – –",
        "before (step 1)", "after (step 4)", "Rosa <b>", "skipped: --extra was not given",
        f"amauta train --out {drawn.dir}/train --steps 4 --pause 0.0", f"amauta chat --model {drawn.dir}/model",
        "exact floor 2.250", "corpus 0.000", "bits per byte", "loss (nats)", "optimiser step", "training", "held out",
            "learning rate",
    ]:  # fmt: skip
        assert part in words, part
    assert page.tags.count("svg") == 3  # loss, bits per byte, learning rate


def test_the_page_speaks_spanish(drawn: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    text = report.write(drawn.dir).read_text()
    words = " ".join(Page(text).words.split())
    assert '<html lang="es">' in text
    for part in [
        "Una receta pequeña", "Aquí <aprende>.", "Todas las metas alcanzadas: 3 de 3.", "10,0 % 95,0 %", "≤ 2,587",
        "mínimo exacto 2,250", "paso del optimizador", "caracteres", "antes (paso 1)", "no se dio --extra",
    ]:  # fmt: skip
        assert part in words, part


def test_the_table_that_is_printed(drawn: Place):
    lines = table(drawn.dir).splitlines()
    assert lines[0].split() == ["stage", "figure", "before", "after", "result", "goal"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["corpus", "characters"], ["corpus", "score"], ["train", "bits_per_byte"], ["train", "exact"],
    ]  # fmt: skip
    assert lines[3].endswith("2.250  reached  ≤ 2.587 (1.15 × other.score), < 2.500")
    assert [line.index("reached") for line in lines[1:4] if "reached" in line] == [lines[0].index("result")] * 2


def test_a_missed_goal_is_in_the_page(place: Place):
    place.run("train.steps=1", "other.miss=true")
    words = " ".join(Page((place.dir / "report.html").read_text()).words.split())
    assert "Goals missed: 3 of" in words and "3.000 missed ≤ 2.587" in words
    assert "The command itself reports a missed goal." in words


def test_a_half_finished_run_has_a_report(place: Place):
    place.run()
    ledger = json.loads((place.dir / "stages.json").read_text())
    ledger["stages"][2].update(state="begun", metrics={})
    ledger["stages"][3] = {k: v for k, v in ledger["stages"][3].items() if k not in ("seconds", "metrics", "lacking")}
    ledger["stages"][3]["state"] = "waiting"
    (place.dir / "stages.json").write_text(json.dumps(ledger))
    with (place.dir / "train" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a torn last line
    words = " ".join(Page(report.write(place.dir).read_text()).words.split())
    assert "This run is not finished." in words and "not judged" in words and "not begun" in words
    assert f"amauta run {place.recipe} --dir {place.dir} --text {place.text}" in words


def test_no_run_no_report(tmp_path: Path):
    with pytest.raises(RunError) as caught:
        report.write(tmp_path)
    assert caught.value.key == "recipes.no-run"


def test_parameters_are_read_from_the_header(tmp_path: Path):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.float16)}, tmp_path / "m.safetensors", {"x": "y"})
    assert report._parameters(tmp_path / "m.safetensors") == 22


def test_a_chart_escapes_its_texts_and_draws_every_point():
    svg = charts.draw(
        "c", "y <b>", "x", [charts.Curve("a & b", [1, 2, 3], [3.0, 1.0, 2.0])], [charts.Level("floor", 0.5)]
    )
    page = Page(svg)
    assert page.open == [] and page.tags.count("svg") == 1
    assert {"y <b>", "a & b", "floor", "x"} <= {html.unescape(t).strip() for t in re.findall(r">([^<>]*)<", svg)}
    drawn = [re.findall(r"[ML]", path) for path in re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*var\(--line\)', svg)]
    assert ["M", "L", "L"] in drawn
    assert "DejaVu" not in svg and "#0102" not in svg


def test_long_curves_keep_their_ends():
    values = list(range(6001))
    thin = charts._thin(values)
    assert len(thin) <= 602 and thin[0] == 0 and thin[-1] == 6000 and thin == sorted(set(thin))


def test_what_a_command_did_not_measure_has_no_row(place: Place):
    place.edit('{metric = "exact"', '{metric = "absent"}, {metric = "exact"')
    place.run()
    assert "absent" not in table(place.dir)
    place.edit('must = {score = ">= 0"}', 'must = {absent = ">= 0"}')  # a goal on it is missed, and shown
    assert [miss["metric"] for miss in place.run()["missed"]] == ["absent"]
    assert "missed" in next(line for line in table(place.dir).splitlines() if "absent" in line)
