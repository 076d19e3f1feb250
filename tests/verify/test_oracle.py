"""The oracle's rows: gradients over all batches, training to the end, and that it fails where a method is broken."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import config
from amauta.base.errors import ConfigError
from amauta.base.messages import LANGUAGES
from amauta.cli import main
from amauta.losses import preference as losses
from amauta.losses.preference import PREFERENCE_LOSSES, UNPAIRED_LOSSES
from amauta.pages import Speech
from amauta.train.policy import settings as policy_settings
from amauta.train.policy import worth
from amauta.verify import driven, gradients, policies, preferences, report
from amauta.verify.ground import Ground
from amauta.verify.oracle import UNBIASED, oracle
from amauta.verify.settings import POLICIES, PREFERENCES, Oracle

GROUND = Ground(Oracle(group=2))
SCALES = {"rloo": 1.0, "reinforce": 1 / 2, "dr-grpo": 1 / 2 / 2}  # 1 - 1/G; and by the longest answer, of two tokens


def settings(**changes: Any) -> Oracle:
    return config.build(Oracle, changes)


@pytest.mark.parametrize("name", PREFERENCES)
def test_the_mean_gradient_over_all_pairs_is_the_exact_one(name: str):
    found = gradients.of_preference(GROUND, preferences.trial(GROUND, name))
    if name == "kto":  # a batch's own z is rarely that of all
        assert 1e-3 < found["bias"] < 0.1
    else:
        assert found["bias"] < 1e-5 and found["scale"] == pytest.approx(1, abs=1e-5)
    assert found["variance"] > 1


@pytest.mark.parametrize("name", POLICIES)
def test_the_mean_gradient_over_all_groups(name: str):
    found = gradients.of_policy(GROUND, policies.trial(GROUND, name))
    if name in SCALES:
        assert found["bias"] < 1e-5 and found["scale"] == pytest.approx(SCALES[name], abs=1e-5)
    else:
        assert found["bias"] > 0.05


def test_grpos_mean_gradient_is_its_field():
    trial = policies.trial(GROUND, "grpo")
    trial.policy.place(GROUND.point)
    mean = sum(chance * slope for chance, slope in gradients._of_groups(GROUND, trial))
    torch.testing.assert_close(-mean, policies.grpo_field(GROUND)(GROUND.point) / 2, atol=1e-6, rtol=0)  # two prompts


def test_bias_scale_and_variance_by_hand():
    batches = [(0.5, torch.tensor([3.0, 1.0]).double()), (0.5, torch.tensor([1.0, 1.0]).double())]
    found = gradients.compared(iter(batches), torch.tensor([4.0, 0.0]).double())  # mean (2, 1)
    assert found == pytest.approx({"bias": 5**-0.5, "scale": 0.5, "variance": 1 / 5})


def test_pairs_and_rewards_lead_to_one_policy():
    result = oracle(settings(methods=["dpo", "rloo"], steps=150, iterations=120, groups=8))
    dpo, rloo = result["rows"]
    assert (dpo["method"], rloo["method"]) == ("dpo", "rloo") and result["passed"]
    assert dpo["distance"] == dpo["to_rl"] < 1e-3 and rloo["distance"] == rloo["to_rl"] < 5e-3
    assert result["dpo_to_rloo"] < 5e-3 and dpo["own_to_rl"] == 0
    assert {"method", "distance", "bias", "variance"} <= dpo.keys()
    assert "DPO, from pairs alone" in report.text(result, Speech("en"))
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("name", "far"), [("tdpo", 1e-3), ("hinge", 1e-2), ("kto", 3e-2), ("grpo", 8e-2), ("dapo", 0.02)]
)
def test_methods_with_another_optimum_come_to_their_own(name: str, far: float):
    result = oracle(settings(methods=[name], steps=150, iterations=80, groups=8, group=3))
    [row] = result["rows"]
    assert row["distance"] < far < row["own_to_rl"] and row["to_rl"] > 0.05


def broken(function: Any, **wrong: Any) -> Any:
    """The function with other knobs than it is given."""
    return lambda *given, **knobs: function(*given, **{**knobs, **wrong})


def test_a_broken_loss_is_found(monkeypatch: pytest.MonkeyPatch):
    quick = settings(methods=["dpo", "tdpo"], quick=True)
    assert oracle(quick)["passed"]
    monkeypatch.setattr(losses, "dpo", broken(losses.dpo, beta=1.0))
    result = oracle(quick)
    assert [row["passed"] for row in result["rows"]] == [False, True] and not result["passed"]


def test_a_broken_advantage_is_found(monkeypatch: pytest.MonkeyPatch):
    def with_itself(rewards: torch.Tensor) -> torch.Tensor:
        return rewards * (rewards - rewards.mean(-1, keepdim=True))

    monkeypatch.setitem(worth.GROUPS, "leave_one_out", with_itself)
    assert not oracle(settings(methods=["rloo"], quick=True))["passed"]


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_training_begins_at_the_reference_wherever_gradients_were_measured(name: str):
    ground = Ground(settings(steps=1, iterations=1, groups=2))
    module, drive = (preferences, driven.preference) if name == "dpo" else (policies, driven.policy)
    fresh, used = module.trial(ground, name), module.trial(ground, name)
    used.policy.place(ground.point)
    if name == "ppo":
        used.critic.place(torch.ones_like(used.critic.table))
    assert torch.equal(drive(ground, fresh), drive(ground, used))


def test_a_method_that_stops_too_early_has_missed_its_optimum():
    assert not oracle(settings(methods=["dpo"], steps=3))["passed"]
    assert oracle(settings(methods=["dpo"], steps=3, quick=True))["passed"]  # only the gradient is judged


def test_every_loss_and_method_is_checked():
    named = {loss.__name__ for loss in (*PREFERENCE_LOSSES, *UNPAIRED_LOSSES)}
    assert named <= set(PREFERENCES), f"no optimum is known of: {named - set(PREFERENCES)}"
    assert set(POLICIES) == set(policy_settings.METHODS)
    assert set(report.WHERE) == {*PREFERENCES, *POLICIES} >= UNBIASED


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return oracle(settings(methods=["dpo", "rloo", "gspo"], quick=True, iterations=2, steps=2, group=2))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_tells_all(language: str, result: dict[str, Any], tmp_path: Path):
    speak, write = Speech(language), partial(report.write, language=language)
    for kind in ("md", "html", "svg", "png"):
        write(result, tmp_path / f"oracle.{kind}")
    lines = report.text(result, speak).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["dpo", "rloo", "gspo"]
    page = (tmp_path / "oracle.html").read_text()
    for place in ((tmp_path / "oracle.md").read_text(), page):
        assert speak("oracle.quick") in place and speak("oracle.equal", value="")[:30] not in place
        assert speak("oracle.title") in place and speak("oracle.at-rl")[:20] in place
    assert f'lang="{language}"' in page and "<svg" in page and "<script" not in page
    write(result, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "oracle.svg").read_bytes()
    with pytest.raises(ConfigError, match="svg"):
        write(result, tmp_path / "oracle.docx")


def test_a_row_that_missed_says_so():
    result = oracle(settings(methods=["dpo"], steps=2))
    assert report.text(result, Speech("en")).splitlines()[1].endswith("missed")


def test_the_command(capsys: pytest.CaptureFixture[str]):
    words = ["verify", "oracle", "--methods", "dpo", "--quick", "--steps", "5", "--json"]
    assert main(words) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["method"] == "dpo" and row["passed"] and row["distance"] > 0
    assert main(["verify", "oracle", "--methods", "dpo", "--steps", "2", "--json"]) == 1
    assert main(["verify", "oracle", "--methods", "dop"]) == 2
