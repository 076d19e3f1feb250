"""Policy optimisation, judged by what was learned, and by what a run that was stopped comes to."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from amauta import metrics
from amauta.base.errors import ConfigError, DataError, RunError
from amauta.checkpoint import load
from amauta.runs import Run
from amauta.train import loop
from amauta.train.policy.rollouts import read_iteration
from amauta.train.policy.run import policy
from amauta.train.policy.settings import METHODS, Policy
from amauta.train.replay import Replay, replay
from tests.train.conftest import LOOP, Tiny

Make = Callable[..., Policy]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_what_is_rewarded(asked: Make, method: str):
    settings = asked("rl", method=method, heldout=asked("x").data, batch=4, samples=6, loop={"steps": 30, "rows": 12})
    result = policy(settings)
    rows = [row for row in metrics.read(Run(settings.out).metrics) if "heldout_reward" in row]
    assert rows[0]["heldout_reward"] < 0.6 and result["heldout_reward"] == 1.0
    steps = [row for row in metrics.read(Run(settings.out).metrics) if "loss" in row]
    assert (
        max(row["sampler_gap"] for row in steps if row["step"] % settings.updates == 1 or settings.updates == 1) < 1e-4
    )
    assert (
        len(list((settings.out / "rollouts").iterdir()))
        == result["iterations"]
        == 30 // settings.updates + (30 % settings.updates > 0)
    )


@pytest.mark.parametrize("method, stop", [("grpo", 3), ("ppo", 5), ("ppo", 4), ("dapo", 2)])
def test_a_run_that_was_killed_ends_as_the_whole_one(asked: Make, monkeypatch, method: str, stop: int):
    """Killed between two steps of an iteration (PPO takes four of each), and at its end."""
    every = {"method": method, "algorithm": {"kl_target": 0.5}, "loop": {"save_every": 1, "keep": 99}}
    whole = policy(asked("whole", **every))
    real, calls = loop._one_step, 0

    def dies(*given):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(loop, "_one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        policy(asked("cut", **every))
    monkeypatch.setattr(loop, "_one_step", real)
    again = policy(asked("cut", **every | {"loop": every["loop"] | {"resume": True}}))
    (a, first), (b, second) = (load(Run(asked(name).out).checkpoint(6)) for name in ("whole", "cut"))
    assert a.keys() == b.keys() and first["stream"] == second["stream"]
    assert all(torch.equal(value, b[group][name]) for group, held in a.items() for name, value in held.items())
    assert again["reward"] == whole["reward"] and again["loss"] == whole["loss"]


def test_a_run_killed_before_its_model_was_kept_tells_what_the_whole_one_tells(asked: Make):
    every = {"loop": {"steps": 2, "save_every": 1}}
    whole = policy(asked("a", **every))
    (asked("a").out / "result.json").unlink()
    again = policy(asked("a", loop={"steps": 2, "save_every": 1, "resume": True}))
    told = ("reward", "reward_deviation", "equal_groups", "cut", "kl_answer", "sampler_gap", "iterations", "loss")
    assert {name: again[name] for name in told} == {name: whole[name] for name in told}


def test_the_answers_of_the_past_can_be_looked_at(asked: Make):
    settings = asked("rl", method="ppo", parts=2, loop={"steps": 9, "save_every": 1, "keep": 99})
    policy(settings)
    told = [row for row in metrics.read(Run(settings.out).metrics) if "loss" in row]
    seen: dict[int, list] = {}
    for step in (1, 2, 8, 9):
        found = replay(Replay(settings.out, step))
        assert found["recomputed"] == pytest.approx(told[step - 1]["loss"], rel=1e-4, abs=1e-6)
        assert found["iteration"] == (step - 1) // 8 + 1 and len(found["rows"]) == 6
        seen[step] = [(row["records"], row["text"]) for row in found["rows"]]
        for row in found["rows"]:
            assert row["reward"] == float(row["spans"][1][0] == "It is red.<|turn|>")
            assert len(row["advantages"]) == len(row["logprobs"]) == len(row["values"]) == row["supervised"]
    answers, _, _ = read_iteration(Run(settings.out), 0)
    assert sorted(seen[1] + seen[2]) == sorted(  # the two parts of a pass are all answers
        ([one.place], replay_text(settings, one)) for one in answers
    )


def replay_text(settings: Policy, one) -> str:  # type: ignore[no-untyped-def]
    from amauta.tokenize.tokenizer import Tokenizer

    return Tokenizer.load(Path(settings.model)).decode([*one.prompt, *one.ids], special=True)


def test_documents_can_be_learnt_beside(asked: Make, tiny: Tiny):
    text = [str(tiny.folder / "text.jsonl")]
    policy(asked("with", method="ppo", ptx=text, algorithm={"ptx_weight": 5.0}, loop={"steps": 12}))
    policy(asked("without", method="ppo", loop={"steps": 12}))
    rows = [row for row in metrics.read(Run(asked("with").out).metrics) if "ptx_loss" in row]
    assert rows[-1]["ptx_loss"] < rows[0]["ptx_loss"] - 0.5


def test_bad_settings_are_named(asked: Make):
    with pytest.raises(ConfigError, match="--samples is 1"):
        asked("a", samples=1)
    with pytest.raises(ConfigError, match="k2"):
        asked("a", method="rloo", algorithm={"kl": "k2"})
    with pytest.raises(ConfigError, match="--ptx"):
        asked("a", algorithm={"ptx_weight": 1.0})
    with pytest.raises(ConfigError, match="--parts"):
        asked("a", loop={"accumulate": 2})
    with pytest.raises(ConfigError, match="12 tokens"):
        asked("a", algorithm={"overlong": 12})
    with pytest.raises(ConfigError, match="No reward"):
        asked("a", reward=[])
    with pytest.raises(ConfigError, match="grpo"):
        asked("a", method="gropo")


def test_a_method_is_a_set_of_choices_and_each_can_be_changed(asked: Make):
    assert asked("a", method="dapo").algorithm.high == 0.28 and asked("a", method="dapo").algorithm.overlong == 2
    changed = asked("a", method="dapo", algorithm={"resample": 0, "overlong": 3})
    assert (changed.algorithm.resample, changed.algorithm.overlong, changed.algorithm.high) == (0, 3, 0.28)
    assert asked("a", method="ppo").updates == 4 and asked("a", method="ppo", updates=2).updates == 2


def test_a_reward_that_fails_stops_or_drops_and_is_counted(asked: Make, tiny: Tiny):
    file = tiny.folder / "mine.py"
    lines = ("def worth(prompt, completion, record):", "    asked = prompt[0]['content']",
             "    return float('nan') if 'the hat' in asked else float('red' in completion)")  # fmt: skip
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"asked\.jsonl:1"):
        policy(asked("a", reward=[f"{file}:worth"], loop={"steps": 5}))
    settings = asked("b", reward=[f"{file}:worth"], on_fault="drop", loop={"steps": 5})
    policy(settings)
    rows = [row for row in metrics.read(Run(settings.out).metrics) if "loss" in row]
    assert sum(row["dropped_answers"] for row in rows) == 4 * 2  # the hat was asked in the first and the third pass
    answers = [one for n in range(5) for one in read_iteration(Run(settings.out), n)[0]]
    assert all((one.reward is None) == (not one.learnt) == one.place.endswith(":1") for one in answers)
    file.write_text("def worth(prompt, completion, record):\n    raise OSError('no line')\n")
    with pytest.raises(RunError, match="no answer could be scored"):
        policy(asked("c", reward=[f"{file}:worth"], on_fault="drop", on_trouble="stop"))


def test_trouble_is_named_in_the_first_steps(asked: Make):
    with pytest.raises(RunError, match="not one answer has ended"):
        policy(asked("a", max_tokens=2, on_trouble="stop"))
    with pytest.raises(RunError, match="every answer got the same reward, 0"):
        policy(asked("b", reward=["regex:zebra"], on_trouble="stop"))
    with pytest.raises(RunError, match="the 2 answers to each prompt got one"):
        groups = {"reward": ["regex:hat|cup|door"], "temperature": 0.01, "samples": 2}
        policy(asked("c", on_trouble="stop", **groups | {"reward": ["regex:red"]}))
    with pytest.raises(RunError, match="away from its reference"):
        policy(asked("d", on_trouble="stop", kl_most=1e-3, loop={"steps": 12}))
    assert policy(asked("e", max_tokens=2))["troubles"] == ["never-ends", "one-reward"]


def test_prompts_that_leave_no_room_are_counted(asked: Make, tiny: Tiny):
    long = tiny.file("long.jsonl", [{"prompt": "What colour is the hat? " * 30, "answer": "red"}])
    with pytest.raises(DataError, match="no prompt is left"):
        policy(asked("a", data=[long]))
    result = policy(asked("b", data=[long, *asked("x").data], loop={"steps": 1}))
    assert (result["prompts"], result["dropped_prompts"]) == (7, 1)


def test_other_data_does_not_go_on(asked: Make, tiny: Tiny):
    settings = asked("a", loop={"steps": 4, "save_every": 1})
    policy(settings)
    (settings.out / "result.json").unlink()
    path = Path(settings.data[0])
    path.write_text(path.read_text() + json.dumps({"prompt": "And the sky?", "answer": "It is red."}) + "\n")
    with pytest.raises(DataError, match="7 prompts and the data now has 8"):
        policy(asked("a", loop={"steps": 4, "save_every": 1, "resume": True}))


def test_micro_batches_do_not_change_a_step(asked: Make):
    found = {}
    for rows in (12, 5, 1):
        settings = asked(f"rows{rows}", loop=LOOP | {"steps": 2, "rows": rows, "save_every": 1, "keep": 9})
        policy(settings)
        found[rows] = load(Run(settings.out).checkpoint(2))[0]["model"]
    for rows in (5, 1):
        for name, value in found[12].items():
            torch.testing.assert_close(found[rows][name], value, atol=2e-5, rtol=1e-3)
