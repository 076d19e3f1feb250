"""The whole command on a small ground: finished work is kept, what cannot be done is refused, seeds decide all."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from amauta.base.errors import ConfigError, Interrupted, RunError
from amauta.metrics import console
from amauta.models.exchange.folder import write_model
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator
from amauta.runs import Run
from amauta.yardstick import run as module
from amauta.yardstick.ground import Ground
from amauta.yardstick.run import yardstick
from amauta.yardstick.systems import FAMILIES, FIRST, TABLE
from amauta.yardstick.training import ADAPTING, first_weights, plan, plans, trained
from amauta.yardstick.transfer import counted, learned, most_frequent
from tests.yardstick.conftest import small


def no_training(*_: Any) -> Any:
    raise AssertionError("something was trained")


@pytest.fixture(scope="module")
def done(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The families, run whole, with the page."""
    out = tmp_path_factory.mktemp("run")
    shutil.copytree(ground.folder, out / "ground")
    settings = small(out=str(out), only=["families"], page=str(out / "page.md"))
    return out, yardstick(settings)


def test_results_are_those_of_the_cells(done: tuple[Path, dict[str, Any]]):
    out, found = done
    assert json.loads((out / "results.json").read_text())["families"].keys() == found["families"].keys()
    cell = json.loads((out / "cells" / "decoder.seed-7.json").read_text())
    decoder = found["families"]["decoder"]
    assert decoder["continuation"]["mean"] == cell["continuation"] and decoder["bits_per_byte"]["half"] is None
    assert found["families"]["encoder"].keys() & {"bits_per_byte", "continuation"} == set()
    assert found["families"]["n-gram"]["flops"] == 0
    assert (out / "page.md").exists() and (out / "page.es.md").exists() and (out / "yardstick.png").exists()
    assert not list(out.glob("systems/*/*/stage-*/checkpoints")) and not list(out.glob("systems/*/*/task.*"))


def test_the_budget_is_kept(done: tuple[Path, dict[str, Any]]):
    _, found = done
    for one in found["plan"]:
        assert one["flops"] == sum(a * b for a, b in zip(one["steps"], one["step_flops"], strict=True))
        assert 0.7 * 1.5e9 < one["flops"] <= 1.5e9  # a step is a good part of so small a budget
    both = next(one for one in found["plan"] if one["system"] == "encoder-decoder")
    assert len(both["steps"]) == 2 and both["steps"][1] * both["step_flops"][1] <= 0.15 * 1.5e9


def test_finished_work_is_not_done_again(done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    out, found = done
    monkeypatch.setattr(module, "trained", no_training)
    settings = small(out=str(out), only=["families"])
    assert json.dumps(yardstick(settings)) == json.dumps(found)
    (out / "cells" / "encoder.seed-7.json").rename(out / "kept.json")
    with pytest.raises(AssertionError, match="trained"):
        yardstick(settings)
    (out / "kept.json").rename(out / "cells" / "encoder.seed-7.json")


def test_an_interruption_says_how_to_go_on(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    def stopped(*_: Any) -> Any:
        raise Interrupted("train.interrupted", step=1, steps=2, folder="x")

    shutil.copytree(done[0] / "ground", tmp_path / "ground")
    monkeypatch.setattr(module, "trained", stopped)
    with pytest.raises(Interrupted, match="The same command goes on"):
        yardstick(small(out=str(tmp_path), only=["start", "families"]))
    said = capsys.readouterr().err
    assert "1/7: n-gram" in said and "2/7: encoder.seed-7" in said  # three families, and each from nothing
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["n-gram.json"] and not console.quiet


def test_other_settings_need_another_folder(done: tuple[Path, dict[str, Any]]):
    with pytest.raises(RunError, match="budget") as caught:
        yardstick(small(out=str(done[0]), budget=2e9))
    assert caught.value.fields["names"] == "budget"


def test_the_plan_trains_nothing(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "trained", no_training)
    shutil.copytree(ground.folder, tmp_path / "ground")
    found = yardstick(small(out=str(tmp_path), plan=True, seeds=3))
    assert len(found["plan"]) == 14 and found["flops"] == 3 * sum(one["flops"] for one in found["plan"])
    assert not (tmp_path / "cells").exists() and not (tmp_path / "results.json").exists()


def test_a_budget_below_one_step(ground: Ground):
    with pytest.raises(ConfigError, match="--budget 1e\\+06 is not one step of decoder"):
        plan(FAMILIES[2], small(budget=1e6), ground)
    with pytest.raises(ConfigError, match="--table-budget"):
        plan(FIRST, small(table_budget=1e6), ground)


def test_all_of_the_table_take_as_many_steps(ground: Ground):
    found = plans(tuple(TABLE.values()), small(), ground)
    assert {one.stages[0].steps for one in found.values()} == {int(2e8 / found[FIRST.name].stages[0].step_flops)}
    assert found["t5.half-depth.lm"].flops < found["t5.encoder-decoder.lm"].flops


@pytest.fixture(scope="module")
def twice(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    planned = plan(FAMILIES[1], small(), ground)
    return [trained(planned, seed, small(), ground, tmp_path_factory.mktemp("twice")) for seed in (7, 7, 8)]


def test_a_seed_decides_all(twice: list[Any]):
    one, same, other = ([(made.first, made.model)[i] / "model.safetensors" for i in (0, 1)] for made in twice)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in same]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(one, other, strict=True))
    assert "seed = 8" in Run(twice[2].model.parent).config.read_text()


def test_an_encoder_decoder_ends_with_prefixes(twice: list[Any]):
    model = twice[0].model
    config = Run(model.parent).config.read_text()
    assert 'objective = "prefix"' in config and f"lr = {ADAPTING.lr}" in config
    assert 'objective = "spans"' in Run(model.parents[1] / "stage-0").config.read_text()


@pytest.mark.parametrize("system", [*FAMILIES, TABLE["prefix-lm", "lm"]], ids=lambda system: system.name)
def test_a_task_is_learned_in_each_manner(system, ground: Ground, tmp_path: Path):

    (tmp_path / "first").mkdir()
    write_model(first_weights(system.spec(small(), ground.opened()), 1), ground.opened(), tmp_path / "first")
    found = learned(system, tmp_path / "first", "entailment", 1, small(), ground, tmp_path, watched=True)
    assert [point[0] for point in found["curve"]] == [0, 1, 2, 3] and found["steps"] == 3  # 24 records, 8 a step
    assert found["curve"][-1][1:] == [found["loss"], found["accuracy"]] and 0 <= found["accuracy"] <= 1


def test_an_n_gram_model_of_each_class(ground: Ground, tmp_path: Path):
    """Classes that differ in a word are told apart; the usual one is what is learnt most often."""
    shutil.copytree(ground.folder, tmp_path / "g")
    own = Ground(tmp_path / "g")
    rows = [
        {"text": f"the {'sun' if n % 3 else 'moon'} is {n}", "label": "day" if n % 3 else "night"} for n in range(30)
    ]
    own.task("sky", "train").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own.task("sky", "heldout").write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    assert counted("sky", own) == 1.0
    assert most_frequent("sky", own) == pytest.approx(6 / 9)


def test_a_class_counts_as_often_as_it_is_learnt(ground: Ground, tmp_path: Path):
    shutil.copytree(ground.folder, tmp_path / "g")
    own, tokenizer = Ground(tmp_path / "g"), ground.opened()
    texts = {"often": [f"bird {n}" for n in range(30)], "seldom": [f"bird {n}" for n in range(3)]}
    rows = [{"text": text, "label": label} for label, some in texts.items() for text in some]
    asked = ["b", "i", "bird 1", "zebra", "d 2"]
    own.task("birds", "train").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = (json.dumps({"text": text, "label": "often"}) + "\n" for text in asked)
    own.task("birds", "heldout").write_text("".join(lines))
    models = {
        label: NGram.train([tokenizer.document(text) for text in some], size=tokenizer.size, begin=tokenizer.begin,
                           order=3, estimator=Estimator(smoothing="modified-kneser-ney"))
        for label, some in texts.items()
    }  # fmt: skip
    gains = [float(models["often"].score(ids).sum() - models["seldom"].score(ids).sum())
             for ids in map(tokenizer.document, asked)]  # fmt: skip
    assert any(-math.log(10) < gain < 0 for gain in gains)  # told by how often a class is learnt, and by that alone
    assert counted("birds", own) == sum(gain + math.log(10) > 0 for gain in gains) / len(asked)
