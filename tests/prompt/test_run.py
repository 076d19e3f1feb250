import json
from types import SimpleNamespace

import pytest

from amauta.base.errors import ConfigError, RunError
from amauta.config import build
from amauta.decode.tree.tree import Tree
from amauta.grades import wilson
from amauta.prompt.methods import METHODS
from amauta.prompt.run import run, summary, task_of
from amauta.prompt.settings import ComparePrompts, MethodName, RunPrompt, ShowPrompt
from amauta.prompt.show import shown
from amauta.prompt.task import Example, Task
from tests.prompt.scripted import Scripted

SHOWN = tuple(Example(f"{i} + 0", str(i), {"reasoning": f"it is {i}.", "scratch": str(i)}) for i in range(6))
TASK = Task("sums", examples=lambda count, seed: [Example(f"1 + {i}", str(1 + i)) for i in range(count)],
            demonstrations=SHOWN)  # fmt: skip


def settings(cls=RunPrompt, **given):
    return build(cls, {"task": "sums", "model": "m", "layout": "plain", "examples": 4, **given})


def right_or(wrong):
    """Answers every sum rightly but those whose question ends with one of ``wrong``."""

    def say(prompt, times):
        a, b = prompt.rpartition("Q: ")[2].partition("\n")[0].split(" + ")
        return " 99" if b in wrong else f" {int(a) + int(b)}"

    return Scripted(say)


def test_the_names_are_the_methods():
    assert list(METHODS) == list(MethodName.__args__)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_counts_what_its_model_counts(name: str):
    """Tokens and calls of each method's outcome against the model's own count, over a model that says little."""
    model = Scripted(lambda prompt, times: " 1")
    task = task_of(SimpleNamespace(task="game24" if name in ("tot", "got", "mcts") else "arithmetic", shown=None))
    task = task_of(SimpleNamespace(task="sorting", shown=None)) if name == "got" else task
    example = task.examples(1, 0)[0]
    given = settings(samples=3, shots=0)
    outcome = METHODS[name](model, task, example, given)
    assert (outcome.generated_tokens, outcome.read_tokens, outcome.calls) == (model.generated, model.read, model.calls)
    assert outcome.calls > 0 and outcome.seconds > 0
    assert outcome.tree.budget == {"generated": model.generated, "read": model.read, "calls": model.calls}
    assert Tree.read(outcome.tree.record()) == outcome.tree
    json.dumps(outcome.facts)


def test_accuracy_and_costs():
    model = right_or({"2"})
    found = run(model, TASK, settings(), method="direct")
    assert found["accuracy"] == 0.75 and found["examples"] == 4
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson(3, 4)
    assert found["generated_tokens"] == model.generated / 4 and found["read_tokens"] == model.read / 4
    assert found["calls"] == 1 and found["no_answer"] == 0 and found["parse_failures"] == 0
    assert found["accuracy_std"] is None


def test_seeds_move_demonstrations_order_and_sampling():
    model = right_or({"2"})
    found = run(model, TASK, settings(seeds=3, shots=3, sampling={"temperature": 1.0}), method="few-shot")
    assert found["accuracies"] == [0.75] * 3 and found["accuracy_low"] == found["accuracy_high"] == 0.75
    prompts = [model.prompts[i : i + 4] for i in range(0, 12, 4)]
    heads = [{prompt.rpartition("Q: ")[0] for prompt in part} for part in prompts]
    assert all(len(one) == 1 for one in heads) and len(set.union(*heads)) == 3  # one draw a seed
    ordered = right_or(set())
    run(ordered, TASK, settings(seeds=3, shots=6, examples=1), method="few-shot")  # all there are: only the order moves
    assert len(set(ordered.prompts)) == 3
    seeds = [asked["seed"] for _, asked in model.asked]
    assert len(set(seeds)) == 12
    again = right_or(set())
    run(again, TASK, settings(seeds=3, shots=3, sampling={"temperature": 1.0}), method="few-shot")
    assert again.asked == model.asked
    other = right_or(set())
    run(other, TASK, settings(shots=3, sampling={"temperature": 1.0, "seed": 1}), method="few-shot")
    assert not {asked["seed"] for _, asked in other.asked} & set(seeds)


def test_a_summary_by_hand():
    facts = {"generated_tokens": 2, "read_tokens": 10, "calls": 1, "seconds": 0.5}
    rows = [
        {"grade": 1.0, "answer": "a", "parsed": True, "dropped": 1, "finish": "length", **facts},
        {"grade": 0.0, "answer": None, "parsed": False, "repaired": False, "finish": "stop", **facts},
        {"grade": 0.52, "answer": "b", "parsed": False, "repaired": True, "dropped": 2, **facts},
        {"grade": 0.5, "answer": "a", "parsed": True, **facts},
    ]
    found = summary(rows, 2)
    assert found["accuracies"] == [0.5, 0.51] and found["accuracy"] == pytest.approx(0.505)
    # two values, .01 apart: t(1) = 12.7062, standard error .005
    assert found["accuracy_low"] == pytest.approx(0.505 - 12.7062 * 0.005, abs=1e-5)
    assert found["accuracy_high"] == pytest.approx(0.505 + 12.7062 * 0.005, abs=1e-5)
    assert found["accuracy_std"] == pytest.approx(0.00707107, abs=1e-6)
    assert (found["no_answer"], found["parse_failures"], found["repaired"], found["dropped"]) == (0.25, 0.5, 0.25, 3)
    assert found["cut"] == 0.25 and found["seconds"] == 0.5 and found["read_tokens"] == 10
    wide = summary([{"grade": grade, "answer": "a", **facts} for grade in (0.0, 1.0)], 2)
    assert (wide["accuracy_low"], wide["accuracy_high"]) == (0, 1)  # a share lies between


def test_every_result_is_recorded(tmp_path):
    out = tmp_path / "runs" / "out.jsonl"
    run(right_or({"2"}), TASK, settings(shots=2), method="few-shot", out=out)
    head, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert head["run"]["method"] == "few-shot" and head["run"]["model"] == "scripted"
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    one = rows[2]
    assert (one["question"], one["right"], one["answer"], one["grade"]) == ("1 + 2", "3", "99", 0.0)
    assert one["template"] == "question" and one["demonstration_seed"] == one["order_seed"] == 0
    assert len(one["demonstrations"]) == 2 and one["verbalisers"] is None and one["dropped"] == 0
    assert one["settings"]["temperature"] == 0.0 and one["settings"]["max_tokens"] == 32


def test_a_second_call_goes_on(tmp_path):
    out = tmp_path / "out.jsonl"

    class Dies(Scripted):
        def generate(self, prompts, **given):
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().generate(prompts, **given)

    with pytest.raises(KeyboardInterrupt):
        run(Dies(right_or({"2"}).script), TASK, settings(seeds=2), method="direct", out=out)
    with out.open("a") as file:
        file.write('{"step": 4, "ex')  # cut off in the middle of a line
    model = right_or({"2"})
    found = run(model, TASK, settings(seeds=2), method="direct", out=out)
    assert model.calls == 5 and found["accuracies"] == [0.75, 0.75]
    whole = right_or({"2"})
    fresh = run(whole, TASK, settings(seeds=2), method="direct", out=tmp_path / "fresh.jsonl")
    untimed = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in file.read_text().splitlines()]
        for file in (out, tmp_path / "fresh.jsonl")
    ]
    assert untimed[0] == untimed[1]
    assert {**found, "seconds": 0} == {**fresh, "seconds": 0}
    silent = Scripted({})
    assert run(silent, TASK, settings(seeds=2), method="direct", out=out)["accuracy"] == 0.75
    more = right_or(set())
    run(more, TASK, settings(examples=6), method="direct", out=out)  # more examples of the same run
    assert more.prompts == ["Q: 1 + 4\nA:", "Q: 1 + 5\nA:"]


def test_results_of_another_run_are_not_mixed_in(tmp_path):
    out = tmp_path / "out.jsonl"
    run(right_or(set()), TASK, settings(), method="direct", out=out)
    with pytest.raises(RunError) as caught:
        run(right_or(set()), TASK, settings(shots=1, sampling={"top_k": 5}), method="few-shot", out=out)
    assert caught.value.key == "prompt.other-run" and caught.value.fields["names"] == "method, sampling.top_k, shots"
    other = Task("sums", examples=lambda count, seed: [Example("2 + 2", "4")] * count, demonstrations=SHOWN)
    with pytest.raises(RunError) as caught:
        run(right_or(set()), other, settings(), method="direct", out=out)
    assert caught.value.key == "prompt.other-examples"
    out.write_text('{"step": 1, "loss": 3}\n')
    with pytest.raises(RunError) as caught:
        run(right_or(set()), TASK, settings(), method="direct", out=out)
    assert caught.value.key == "prompt.not-results" and "loss" in out.read_text()


def test_trees_are_written(tmp_path):
    run(right_or(set()), TASK, settings(examples=1), method="direct", tree=tmp_path / "one.json")
    assert Tree.load(tmp_path / "one.json").nodes[1].text == " 1"
    run(right_or(set()), TASK, settings(examples=2), method="direct", tree=tmp_path / "out.html")
    assert sorted(file.name for file in tmp_path.glob("*.html")) == ["out-1.html", "out-2.html"]
    assert "1 + 1" in (tmp_path / "out-2.html").read_text()


def test_an_unknown_method():
    with pytest.raises(ConfigError, match="cot") as caught:
        run(right_or(set()), TASK, settings(), method="cott")
    assert caught.value.key == "prompt.unknown-method"


def test_which_task_is_meant(tmp_path):
    assert task_of(settings(task="sentiment")).name == "sentiment"
    file = tmp_path / "sentiment.jsonl"
    file.write_text('{"question": "q", "answer": "1"}\n')
    assert task_of(settings(task=str(file))).examples(1, 0)[0].question == "q"
    with pytest.raises(ConfigError) as caught:
        task_of(settings(task="sentiment", shown=file))
    assert caught.value.key == "prompt.shown-without-file"


def test_compare_settings_hold_several_methods():
    given = settings(ComparePrompts, methods=["direct", "cot"])
    found = [run(right_or(set()), TASK, given, method=name) for name in given.methods]
    assert [one["method"] for one in found] == ["direct", "cot"] and [one["calls"] for one in found] == [1, 2]


def test_shown_prompts_are_those_that_are_sent():
    for method in ("direct", "few-shot", "scratchpad"):
        model = Scripted(lambda prompt, times: " 1")
        found = shown(model, TASK, settings(ShowPrompt, method=method, number=3))
        assert model.calls == 0
        run(model, TASK, settings(examples=3), method=method)
        [one] = found["prompts"]
        assert one["text"] == model.prompts[2] and one["tokens"] == len(model.prompts[2]) == len(one["pieces"])
        assert one["ids"] == model.tokenizer.encode(model.prompts[2]) and found["question"] == "1 + 2"
    found = shown(Scripted({}), TASK, settings(ShowPrompt, method="cot"))
    assert [one["text"] for one in found["prompts"]] == [
        "Q: 1 + 0\nA: Let's think step by step.",
        "Q: 1 + 0\nA: Let's think step by step.\nTherefore, the answer is",
    ]
    found = shown(Scripted({}), TASK, settings(ShowPrompt, method="self-consistency", samples=5, shots=1))
    assert len(found["prompts"]) == 1 and found["calls"] == 5
    found = shown(Scripted({}, context=50), TASK, settings(ShowPrompt, method="few-shot"))
    assert found["dropped"] == 4 and found["demonstrations"] == []
    with pytest.raises(ConfigError) as caught:
        shown(Scripted({}), Task("one", examples=lambda count, seed: []), settings(ShowPrompt, number=2))
    assert caught.value.key == "prompt.no-such-example"
