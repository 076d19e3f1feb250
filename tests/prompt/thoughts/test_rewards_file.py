"""A file of process rewards: whole, stopped anywhere and gone on with, refused where it does not belong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amauta.base.errors import DataError
from amauta.prompt.settings import Prompting
from amauta.prompt.tasks import game24
from amauta.prompt.thoughts.command import PromptRewards
from amauta.prompt.thoughts.rewards_file import write_rewards
from amauta.prompt.thoughts.settings import ProcessRewards
from tests.prompt.scripted import Scripted
from tests.prompt.thoughts.players import asked, fitful

EXAMPLES = game24.examples(4, seed=0)
SETTINGS = ProcessRewards(rollouts=3, searches=2)


def write(out: Path, count: int = 4, model: Scripted | None = None, **changes):
    return write_rewards(
        model or Scripted(fitful), game24.TASK, EXAMPLES[:count], Prompting(), replace(SETTINGS, **changes), out
    )


def test_records_and_counts(tmp_path: Path):
    out = tmp_path / "new" / "steps.jsonl"
    counts = write(out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert counts["questions"] == 4 and counts["rows"] == len(rows) and counts["too_hard"] == counts["too_easy"] == 0
    assert counts["wrong_rows"] == sum(row["first_wrong"] is not None for row in rows) >= 4
    assert {row["prompt"] for row in rows} == {each.question for each in EXAMPLES}
    for row in rows:
        wrong = row["first_wrong"] or len(row["completions"]) + 1
        assert row["labels"] == [t < wrong for t in range(1, len(row["completions"]) + 1)]
        assert len(row["values"]) == len(row["completions"])
    assert counts["rollouts"] == counts["calls"] and counts["spent"] == 0


def test_stopped_anywhere_it_goes_on_to_the_same_file(tmp_path: Path):
    whole = tmp_path / "whole.jsonl"
    counts = write(whole)
    out = tmp_path / "steps.jsonl"

    class Stopping(Scripted):
        def generate(self, prompts, **settings):
            if self.calls > 12:
                raise KeyboardInterrupt
            return super().generate(prompts, **settings)

    with pytest.raises(KeyboardInterrupt):
        write(out, model=Stopping(fitful))
    held = out.read_bytes()
    done = len(json.loads((tmp_path / "steps.jsonl.progress.json").read_text())["questions"])
    assert 0 < done < 4 and whole.read_bytes().startswith(held)
    out.write_bytes(held + b'{"prompt": "torn')  # what a power cut leaves
    model = Scripted(fitful)
    again = write(out, model=model)
    assert out.read_bytes() == whole.read_bytes()
    assert {name: again[name] for name in counts if name != "seconds"} == {
        name: counts[name] for name in counts if name != "seconds"
    }
    assert 0 < model.calls < counts["calls"]
    untouched = Scripted(fitful)
    write(out, model=untouched)
    assert untouched.calls == 0


def test_more_questions_may_follow(tmp_path: Path):
    write(tmp_path / "a.jsonl", count=2)
    write(tmp_path / "a.jsonl", count=4)
    write(tmp_path / "b.jsonl", count=4)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_other_work_is_refused(tmp_path: Path):
    out = tmp_path / "steps.jsonl"
    write(out, count=1)
    before = out.read_bytes()
    with pytest.raises(DataError) as error:
        write(out, rollouts=5)
    assert error.value.key == "thoughts.other-rewards" and error.value.fields["unlike"] == "settings"
    with pytest.raises(DataError) as error:
        write_rewards(Scripted(fitful), game24.TASK, EXAMPLES[1:], Prompting(), SETTINGS, out)
    assert error.value.fields["unlike"] == "questions"
    assert out.read_bytes() == before
    out.write_bytes(before[:-3])
    with pytest.raises(DataError) as error:
        write(out, count=2)
    assert error.value.fields["unlike"] == "bytes"
    (tmp_path / "steps.jsonl.progress.json").write_text("{")
    with pytest.raises(DataError, match="Expecting") as error:
        write(out)
    assert error.value.key == "thoughts.damaged-progress"
    other = tmp_path / "notes.jsonl"
    other.write_text("mine\n")
    with pytest.raises(DataError) as error:
        write(other)
    assert error.value.key == "thoughts.not-ours" and other.read_text() == "mine\n"


def test_questions_without_a_first_wrong_step_are_counted(tmp_path: Path):
    counts = write(tmp_path / "hard.jsonl", model=Scripted(lambda prompt, times: "no step"))
    assert counts["too_hard"] == 4 and counts["rows"] == 0 and (tmp_path / "hard.jsonl").read_bytes() == b""

    def solve(prompt: str, times: int) -> str:
        return "\n".join(game24.solution([int(one) for one in asked(prompt)[0].split()]) or ())

    counts = write(tmp_path / "easy.jsonl", model=Scripted(solve))
    assert counts["too_easy"] == 4 and counts["rows"] == 4 and counts["wrong_rows"] == 0
    counts = write(tmp_path / "spent.jsonl", model=Scripted(solve), most_calls=2)
    assert counts["spent"] == 4 and counts["rows"] == 0 and counts["too_hard"] == 0


def test_the_command_s_settings():
    given = PromptRewards(task="game24", model="m", rollouts=2, out=Path("x"), layout="plain")
    assert given.rewards == ProcessRewards(rollouts=2) and type(given.rewards) is ProcessRewards
    assert given.prompting.layout == "plain" and given.prompting.sampling == given.sampling
