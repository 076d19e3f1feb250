"""Running, keeping, going on, refusing: on a stub command, with real processes and real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amauta.base.errors import ConfigError, RunError
from amauta.recipes.run import StageFailed, arguments, run
from tests.recipes.conftest import STUB, Place

DRIVER = """
import json, sys
from amauta.base.errors import AmautaError
from amauta.recipes.run import run
try:
    result = run(sys.argv[1], dir=sys.argv[2], set=[sys.argv[4]], command=json.loads(sys.argv[5]), text=sys.argv[3])
except AmautaError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print(json.dumps(result))
"""


def started(place: Place, pause: float = 0.3) -> subprocess.Popen:
    """The small recipe in a process of its own, in the middle of the stage ``train``."""
    words = [
        sys.executable,
        "-c",
        DRIVER,
        place.recipe,
        place.dir,
        place.text,
        f"train.pause={pause}",
        json.dumps(STUB),
    ]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 10
    while not (place.dir / "train" / "checkpoints" / "step-000002").exists():
        assert child.poll() is None and time.monotonic() < until, child.communicate()
        time.sleep(0.01)
    return child


def test_result_is_the_json_contract(place: Place):
    result = place.run()
    assert set(result) == {"passed", "stages", "dir", "report", "model", "missed"}
    assert json.loads(json.dumps(result)) == result
    assert [stage["name"] for stage in result["stages"]] == ["corpus", "other", "train", "tune", "look"]
    assert result["stages"][0]["metrics"] == {"length": 8, "score": 0.0, "nested": {"half": 4.0}}
    assert all(stage["seconds"] > 0 for stage in result["stages"] if stage["state"] == "ended")
    assert result["passed"] is True and result["missed"] == []
    assert Path(result["report"]).read_text().startswith("<!doctype html>")


def test_a_second_run_runs_nothing(place: Place):
    first = place.run()
    assert place.calls() == ["corpus", "other", "train", "look"]
    assert place.run() == first
    assert place.calls() == []


def test_a_run_folder_may_be_moved(place: Place):
    place.run()
    place.calls()
    place.dir = place.dir.rename(place.folder / "elsewhere")
    assert place.run()["dir"].endswith("elsewhere")
    assert place.calls() == []


def test_changed_content_reruns_what_depends_on_it(place: Place):
    place.run()
    place.calls()
    place.text.write_text("another text")
    assert place.run()["stages"][0]["metrics"]["length"] == 12
    assert place.calls() == ["corpus", "train"]  # train made the same model again, so look is kept


def test_changed_setting_reruns_what_depends_on_it(place: Place):
    place.run()
    place.calls()
    assert place.run("train.steps=5")["stages"][2]["metrics"]["bits_per_byte"] == 2.2
    assert place.calls() == ["train", "look"]


def test_a_stage_whose_product_is_gone_runs_again(place: Place):
    place.run()
    place.calls()
    (place.dir / "other" / "text").unlink()
    (place.dir / "other").rmdir()
    place.run()
    assert place.calls() == ["other"]


def test_a_new_version_of_the_package_runs_all_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.run()
    place.calls()
    monkeypatch.setattr("amauta.__version__", "999")
    place.run()
    assert place.calls() == ["corpus", "other", "train", "look"]


def test_finished_work_is_kept_aside_until_its_successor_has_ended(place: Place):
    place.run()
    place.edit('{dir}/other", score', '{dir}/other", text = "absent", score')
    with pytest.raises(StageFailed):
        place.run()
    assert (place.dir / "before" / "other" / "other" / "text").read_text() == ""
    place.edit(', text = "absent"', "")
    place.run()
    assert not (place.dir / "before").exists()


@pytest.mark.parametrize("whom", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_saves_and_goes_on_where_it_stopped(place: Place, whom: str):
    child = started(place)
    child.send_signal(getattr(signal, whom))
    _, said = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "Interrupted in stage train" in said and f"amauta run {place.recipe} --dir {place.dir} --text" in said
    assert not (place.dir / "train" / "model").exists()
    assert place.calls() == ["corpus", "other", "train"]
    place.run("train.pause=0.3")
    steps = [json.loads(line)["step"] for line in (place.dir / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]  # none twice: the second process went on from the checkpoint
    assert place.calls() == ["train", "look"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_terminals_interrupt_reaches_the_stage_once(place: Place):
    """A terminal signals the whole group of the runner; the stage must not get it twice."""
    child = started(place)
    assert os.getpgid(_stage_of(child.pid)) != os.getpgid(child.pid)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death only on Linux")
def test_a_killed_run_leaves_nobody_at_work_and_goes_on(place: Place):
    child = started(place)
    stage = _stage_of(child.pid)
    child.kill()
    child.communicate()
    until = time.monotonic() + 10
    while _works(stage) and time.monotonic() < until:
        time.sleep(0.01)
    assert not (place.dir / "train" / "model").exists()  # told to stop, it did not work on to the end
    result = place.run("train.pause=0.3")  # waits until the orphan has saved and ended
    assert not _works(stage)
    steps = [json.loads(line)["step"] for line in (place.dir / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert result["passed"] and place.calls() == ["corpus", "other", "train", "train", "look"]


def test_an_unfinished_stage_with_other_settings_begins_anew(place: Place):
    child = started(place)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    place.calls()
    place.run("train.steps=3")
    steps = [json.loads(line)["step"] for line in (place.dir / "train" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_two_runs_do_not_share_a_folder(place: Place):
    child = started(place)
    with pytest.raises(RunError) as caught:
        place.run()
    assert caught.value.key == "recipes.locked" and caught.value.fields["pid"] == str(child.pid)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)


def test_a_missed_goal_is_named_after_all_stages_ran(place: Place):
    result = place.run("train.steps=1")
    assert result["passed"] is False
    assert [(miss["metric"], miss["value"], miss["bound"]) for miss in result["missed"]] == [
        ("bits_per_byte", 3.0, pytest.approx(1.15 * 2.25)), ("bits_per_byte", 3.0, 2.5),
    ]  # fmt: skip
    assert place.calls() == ["corpus", "other", "train", "look"]


def test_a_goal_may_change_without_running_again(place: Place):
    place.run()
    place.calls()
    place.edit('"< 2.5"', '"< 2.1"')
    assert [miss["goal"] for miss in place.run()["missed"]] == ["< 2.1"]
    assert place.calls() == []


def test_a_commands_own_missed_goal_counts(place: Place):
    result = place.run("other.miss=true")
    assert result["passed"] is False
    assert [(miss["stage"], miss["metric"]) for miss in result["missed"]] == [("other", None)]
    assert place.calls() == ["corpus", "other", "train", "look"]


def test_a_failing_stage_passes_its_code_on_and_says_how_to_go_on(place: Place, capfd: pytest.CaptureFixture):
    place.edit('name = "look"\ncommand = "make"', 'name = "look"\ncommand = "fail"')
    with pytest.raises(StageFailed) as caught:
        place.run("look.code=7")
    assert caught.value.exit_code == 7
    assert "look" in str(caught.value) and "corpus, other, train" in str(caught.value)
    assert f"--text {place.text} --set look.code=7" in str(caught.value)
    assert "the reason" in capfd.readouterr().err
    place.calls()
    with pytest.raises(StageFailed):
        place.run("look.code=7")
    assert place.calls() == ["look"]


def test_a_stage_without_a_result_is_an_error(place: Place):
    place.edit('name = "look"\ncommand = "make"', 'name = "look"\ncommand = "silent"')
    with pytest.raises(RunError) as caught:
        place.run()
    assert caught.value.key == "recipes.no-result"


def test_skipped_stages_are_said_and_models_go_round_them(place: Place, capfd: pytest.CaptureFixture):
    result = place.run()
    assert "tune: skipped, because --extra was not given" in capfd.readouterr().err
    assert result["stages"][3] == {"name": "tune", "seconds": 0.0, "metrics": {}, "state": "skipped"}
    assert (place.dir / "model" / "weights").read_text() == "4 steps"
    extra = place.folder / "extra.txt"
    extra.write_text("more")
    place.calls()
    place.run(extra=extra)
    assert place.calls() == ["tune", "look"]  # look reads {model}, which is now tune's
    assert (place.dir / "model" / "weights").read_text() == "2 steps"
    place.run()  # without it again: the model of the skipped stage is not published
    assert (place.dir / "model" / "weights").read_text() == "4 steps"


def test_stages_are_said_as_a_user_would_type_them(place: Place, capfd: pytest.CaptureFixture):
    place.run()
    said = capfd.readouterr()
    assert f"$ amauta make --text {place.text} --out {place.dir}/corpus\n" in said.err
    assert "a line that is no result" in said.err and said.out == ""


def test_another_recipes_folder_is_refused(place: Place):
    place.run()
    place.edit('name = "small"', 'name = "large"')
    with pytest.raises(RunError) as caught:
        place.run()
    assert caught.value.key == "recipes.other-recipe" and "'small', not to 'large'" in str(caught.value)


def test_a_folder_of_another_recipe_with_the_same_name_is_refused(place: Place):
    place.run()
    place.edit('name = "other"\ncommand = "make"', 'name = "other"\ncommand = "train"')
    with pytest.raises(RunError) as caught:
        place.run()
    assert caught.value.key == "recipes.other-stage"


def test_a_folder_that_no_recipe_made_is_refused_untouched(place: Place):
    place.dir.mkdir()
    (place.dir / "thesis.txt").write_text("ten years")
    with pytest.raises(RunError) as caught:
        place.run()
    assert caught.value.key == "recipes.not-ours"
    assert [path.name for path in place.dir.iterdir()] == ["thesis.txt"]


def test_a_torn_ledger_is_named(place: Place):
    place.run()
    (place.dir / "stages.json").write_text('{"stages": [')
    with pytest.raises(RunError) as caught:
        place.run()
    assert "stages.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key", "hint"),
    [
        ("trian.steps=3", "recipes.unknown-stage", "'train'"),
        ("train.steps", "recipes.bad-set", "pretrain.steps=200"),
        ("train=3", "recipes.bad-set", "stage.setting=value"),
        ("train.out={dri}/x", "recipes.unknown-placeholder", "'dir'"),
    ],
)
def test_overrides_are_checked(place: Place, change: str, key: str, hint: str):
    with pytest.raises(ConfigError) as caught:
        place.run(change)
    assert caught.value.key == key and hint in str(caught.value)
    assert not place.dir.exists()


def test_every_line_is_checked_before_the_first_stage_runs(place: Place):
    seen: list[list[str]] = []

    def refuse(line: list[str]) -> None:
        seen.append(line)
        if line[0] == "train":
            raise ConfigError("recipes.no-inputs")

    with pytest.raises(ConfigError):
        run(place.recipe, dir=place.dir, command=STUB, check_line=refuse, text=place.text)
    assert [line[0] for line in seen] == ["make", "make", "train"] and place.calls() == []


def test_flags_are_written_as_they_are_typed():
    flags = {"top_k": 5, "text": ["a b", "c"], "compile": True, "loop.resume": False, "bias": "-1", "rate": 0.5}
    assert arguments(flags) == [
        "--top-k", "5", "--text", "a b", "c", "--compile", "--loop.no-resume", "--bias=-1", "--rate", "0.5",
    ]  # fmt: skip


def _works(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _stage_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])
