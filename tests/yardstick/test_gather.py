"""From cells to figures, with numbers worked by hand; the page and the tables that are made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from amauta.yardstick import gather, page, plots, tables
from amauta.yardstick.systems import FAMILIES, NGRAM, PUBLISHED_GLUE, TABLE, WITH_PAIRS

TASKS = ("birds", "bees")


def cell(accuracy: float, **more: Any) -> dict[str, Any]:
    curve = [[0, 1.0, 0.5], [10, 0.6, 0.7], [20, 0.4, accuracy]]
    tasks = {task: {"accuracy": accuracy, "loss": 0.4, "steps": 20, "curve": curve} for task in TASKS}
    return {"parameters": 1000, "steps": [5], "flops": 500, "tasks": tasks, "probes": {"order": 0.5}} | more


def by_published(sign: int = 1) -> dict[str, Any]:
    """Cells whose accuracies are the published scores, or their opposite; two seeds that differ by .01."""
    return {TABLE[key].name: [cell(sign * score / 100 + shift) for shift in (0.0, 0.01)]
            for key, score in PUBLISHED_GLUE.items()}  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_the_published_order_is_found_again_or_its_opposite(sign: int):
    found = gather.objectives(by_published(sign))
    assert found["rank_correlation"] == pytest.approx(sign)
    assert [row["agrees"] for row in found["contrasts"]] == [sign > 0] * 6
    assert all(row["differs"] for row in found["contrasts"])  # both seeds give the same difference
    for row in found["contrasts"]:
        assert 100 * row["difference"]["mean"] == pytest.approx(sign * row["published"])
    theirs = {row["name"]: row["published"] for row in found["contrasts"]}
    assert theirs["half-depth"] == pytest.approx(80.88 - 83.28) and theirs["prefix"] == pytest.approx(81.82 - 74.70)
    assert theirs["denoising"] == pytest.approx((403.49 - 391.29) / 5)


def test_cost_and_size_are_shares_of_the_first():
    cells = by_published()
    for one in cells[TABLE["half-depth", "denoising"].name]:
        one |= {"flops": 260, "parameters": 550}
    row = gather.objectives(cells)["rows"][2]
    assert (row["architecture"], row["cost"], row["size"]) == ("half-depth", 0.52, 0.55)
    assert row["published_rank"] == 4.0 and row["rank"] == 4.0


def test_steps_to_a_loss():
    curve = [[0, 1.0, 0.0], [10, 0.6, 0.0], [20, 0.8, 0.0], [30, 0.2, 0.0]]
    assert gather.steps_to(curve, 0.6) == 10
    assert gather.steps_to(curve, 0.8) == pytest.approx(5.0)  # half of the way from 1.0 to 0.6
    assert gather.steps_to(curve, 0.5) == pytest.approx(25.0)
    assert gather.steps_to(curve, 2.0) == 0 and gather.steps_to(curve, 0.1) is None


def curves(*losses: float) -> dict[str, Any]:
    task = {"accuracy": 0.5, "loss": losses[-1], "curve": [[10 * i, loss, 0.5] for i, loss in enumerate(losses)]}
    return {"tasks": {"birds": task}}


def test_what_pretraining_saves():
    (row,) = gather.start({"x": [curves(1.0, 0.4, 0.2)] * 2}, {"x": [curves(1.2, 1.0, 0.4), curves(1.2, 0.9, 0.4)]})
    assert row["loss"]["mean"] == pytest.approx(0.4) and row["random_steps"]["mean"] == 20
    assert row["pretrained_steps"]["mean"] == 10 and row["share"]["mean"] == 0.5 and row["share"]["half"] == 0.0
    assert row["random_curve"][1] == [10, pytest.approx(0.95), 0.5]
    (row,) = gather.start({"x": [curves(1.0, 0.9)] * 2}, {"x": [curves(1.2, 0.4), curves(1.2, 0.95)]})
    assert row["reached"] == 1 and row["share"] is None and row["pretrained_steps"] is None


def test_next_sentences_are_compared_seed_by_seed():
    without = [cell(0.60, pseudo=2.0), cell(0.80, pseudo=2.2)]
    with_ = [cell(0.61, pseudo=2.5), cell(0.81, pseudo=2.1)]
    found = {row["name"]: row for row in gather.nsp(without, with_)}
    assert list(found) == ["pseudo", "probes.order", "tasks.birds", "tasks.bees", "tasks"]
    assert found["tasks"]["difference"]["mean"] == pytest.approx(0.01) and found["tasks"]["differs"]
    assert found["pseudo"]["difference"]["mean"] == pytest.approx(0.2) and not found["pseudo"]["differs"]


def result() -> dict[str, Any]:
    """A result of every part, with figures that can be looked for."""
    bits = {"encoder": {"pseudo": 1.111}, "encoder-decoder": {"continuation": 2.222},
            "decoder": {"bits_per_byte": 3.333, "continuation": 2.345, "entropy_bits_per_byte": 0.256},
            "n-gram": {"bits_per_byte": 1.987, "continuation": 1.876}}  # fmt: skip
    cells = {name: [cell(0.8, **own), cell(0.82, **own)] for name, own in bits.items()}
    without = cells["encoder"]
    return {
        "settings": {"width": 64, "layers": 4, "length": 128, "rows": 8, "order": 5, "budget": 2e12, "seeds": 2,
                     "table_budget": 6e11, "examples": 24, "heldout_examples": 12, "epochs": 3.0},
        "ground": {"corpus": ["/somewhere/of/mine/book.txt"], "train_bytes": 2_000_000, "heldout_bytes": 60_000,
                   "heldout_documents": 100, "vocabulary": 1024, "tasks": list(TASKS), "probes": ["order"],
                   "learnt": {"birds": 24, "bees": 12}},
        "usual": dict.fromkeys(TASKS, 0.55),
        "families": gather.families(cells),
        "objectives": gather.objectives(by_published(-1)),
        "nsp": gather.nsp(without, [one | {"pseudo": 1.0} for one in without]),
        "start": gather.start(cells, {one.name: cells[one.name] for one in FAMILIES}),
    }  # fmt: skip


def test_the_page_in_both_languages(tmp_path: Path):
    made = page.write(json.loads(json.dumps(result())), tmp_path / "yardstick.md")
    assert sorted(path.name for path in made) == ["yardstick-start.svg", "yardstick.es-start.svg", "yardstick.es.md",
                                                  "yardstick.es.svg", "yardstick.md", "yardstick.svg"]  # fmt: skip
    english, spanish = ((tmp_path / name).read_text() for name in ("yardstick.md", "yardstick.es.md"))
    for text in (english, spanish):
        for figure in ("2.222 ± 0.000", "1.876", "0.256", "book.txt", "2.00e+12", "-1.00"):
            assert figure in text
        assert "/somewhere" not in text and "{" not in text
    assert "best first: n-gram 1.876 ± 0.000, encoder-decoder 2.222 ± 0.000, decoder 2.345" in english
    assert "Clearly better with it: pseudo bits/byte" in english and "![" in english
    assert "(yardstick.es.svg)" in spanish and "(yardstick.es-start.svg)" in spanish
    assert "Claramente al revés de lo publicado: restaurar − modelar" in spanish


def test_the_same_result_gives_the_same_bytes(tmp_path: Path):
    one, other = (plots.write(result(), tmp_path / name, ("svg", "png")) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_tables_leave_empty_what_a_family_has_not():
    text = tables.families(result(), tables.speaker("en"))
    encoder = next(line for line in text.splitlines() if line.startswith("| encoder "))
    assert [part.strip() for part in encoder.split("|")][4:7] == ["–", "–", "1.111 ± 0.000"]
    assert len({line.count("|") for line in text.splitlines()}) == 1 and len({len(x) for x in text.splitlines()}) == 1
    assert NGRAM in text and WITH_PAIRS.name not in text


def test_numbers_for_people():
    found = {"mean": 0.5, "half": 0.0204}
    assert tables.share(found) == "50.0 ± 2.0" and tables.number(found) == "0.500 ± 0.020"
    assert tables.share({"mean": 0.031, "half": None}, sign=True) == "+3.1" and tables.number(None) == "–"
    assert tables.power(2e12) == "2.00e+12" and tables.power(0) == "0"


def test_one_seed_shows_nothing():
    one = result() | {"nsp": gather.nsp([cell(0.6, pseudo=2.0)], [cell(0.9, pseudo=1.0)])}
    assert "One seed has no interval" in page.text(one, tables.speaker("en"), ["a.svg", "b.svg"])
