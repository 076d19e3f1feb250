"""Self-Instruct as a whole: what is kept is new and sound, counts add up, a killed run goes on to the same end."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from amauta import config, metrics
from amauta.base.errors import ConfigError, DataError, Interrupted, ModelError, RunError
from amauta.cli import main
from amauta.data.read import Row
from amauta.data.records import messages_of
from amauta.runs import Run
from amauta.train.pretrain import pretrain
from amauta.train.self_instruct import report
from amauta.train.self_instruct.parse import instructions, refusal
from amauta.train.self_instruct.rouge import Pool, words
from amauta.train.self_instruct.run import self_instruct
from amauta.train.self_instruct.seeds import Task, read_seeds, task_of
from amauta.train.self_instruct.settings import SelfInstruct
from amauta.train.self_instruct.wording import Request, wording
from amauta.train.self_instruct.writers import Draw, Written
from amauta.train.sft import sft
from tests.train.conftest import Tiny
from tests.train.self_instruct.scripted import Scripted
from tests.train.self_instruct.server import served

SEEDS = [
    {"instruction": f"Tell me {n} things that I {verb} about {thing} for a child.", "is_classification": False,
     "instances": [{"input": "", "output": f"answer {n}"}, {"input": thing, "output": verb}]}
    for n, (verb, thing) in enumerate([("know", "rain"), ("ask", "gold"), ("forget", "salt"), ("dream", "owls"),
                                       ("like", "maths"), ("fear", "kings"), ("sing", "snow"), ("sell", "hats")])
]  # fmt: skip
FILES = ("records.jsonl", "tasks.jsonl", "metrics.jsonl", "report.html", "result.json")


def made(folder: Path, **changes: Any) -> SelfInstruct:
    file = folder / "seeds.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    values = {"model": "scripted", "seeds": [str(file)], "out": str(folder / "out"), "count": 30, "batch": 3}
    return config.build(SelfInstruct, values, changes)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_kept_is_new_and_sound_and_all_is_counted(tmp_path: Path):
    settings, write = made(tmp_path), Scripted()
    result = self_instruct(settings, write, chat=False)
    tasks = rows(tmp_path / "out" / "tasks.jsonl")
    assert len(tasks) == result["instructions"] == 30
    # the public library finds no two that are too alike, and the likeness that is told
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    pool = [row["instruction"] for row in SEEDS]
    for task in tasks:
        alike = [scorer.score(other, task["instruction"])["rougeL"].fmeasure for other in pool]
        assert max(alike) < 0.7
        assert task["likeness"] == pytest.approx(max(alike)) and task["to_seeds"] == pytest.approx(max(alike[:8]))
        assert alike[pool.index(task["nearest"])] == pytest.approx(max(alike))
        pool.append(task["instruction"])
    assert len({task["to_seeds"] for task in tasks}) > 2
    # what was proposed is what was kept and what was refused, in the journal too
    asked = [row for row in rows(tmp_path / "out" / "metrics.jsonl") if row["stage"] == "instructions"]
    assert sum(row["proposed"] for row in asked) == result["proposed"]
    assert sum(row["accepted"] for row in asked) == 30 == result["proposed"] - sum(result["refused"].values())
    assert result["refused"].keys() == {"alike", "barred", "cut"} and result["acceptance"] == 30 / result["proposed"]
    assert result["requests"] == {"instructions": 3 * len(asked), "classification": 30, "instances": 30}


def test_the_first_answers_by_a_naive_loop(tmp_path: Path):
    """The rules once more, in the order in which the work has them; the pool grows within one answer."""
    settings, write = made(tmp_path), Scripted()
    result = self_instruct(settings, write, chat=False)
    say, pool, kept, refused = wording("en"), Pool(row["instruction"] for row in SEEDS), [], Counter[str]()
    for requests, draw in write.calls:
        if draw.max_tokens != settings.instruction_tokens:
            continue
        for answer in Scripted()(requests, draw):
            parts = instructions(answer.text, say)
            for part in parts:
                if len(kept) == 30:
                    continue
                reason = refusal(part, say, 4, 150)
                if reason is None and part is parts[-1] and not answer.whole:
                    reason = "cut"
                if reason is None and max(pool.likeness(part)) >= 0.7:
                    reason = "alike"
                if reason is None:
                    kept.append(part)
                    pool.add(part)
                else:
                    refused[reason] += 1
    assert [task["instruction"] for task in rows(tmp_path / "out" / "tasks.jsonl")] == kept
    assert result["refused"] == refused


def test_six_of_people_and_two_of_its_own(tmp_path: Path):
    file = tmp_path / "seeds.jsonl"
    file.write_text("".join(json.dumps(row | {"instruction": f"{row['instruction']} {n}"}) + "\n"
                            for n in range(3) for row in SEEDS))  # fmt: skip
    write = Scripted()
    self_instruct(made(tmp_path), write, chat=False)
    human = {task.instruction for task in read_seeds([str(file)], least=1)[0]}
    asked = [request for requests, draw in write.calls if draw.temperature for request in requests]
    shown = [[line.split(": ", 1)[1] for line in request.text.splitlines()[1:]] for request in asked]
    assert all(len(set(each)) == 8 for each in shown)
    people = [sum(one in human for one in each) for each in shown]
    assert people[:3] == [8, 8, 8] and set(people[3:]) == {6}
    assert len({tuple(each) for each in shown}) == len(shown)
    places = {n for each in shown[3:] for n, one in enumerate(each) if one not in human}
    assert len(places) > 4  # anywhere among the others
    assert len({draw.seed for _, draw in write.calls if draw.temperature}) == len(asked) // 3
    assert all(0 <= draw.seed < 2**31 for _, draw in write.calls)


def test_classification_has_its_labels_first(tmp_path: Path):
    write = Scripted()
    result = self_instruct(made(tmp_path), write, chat=False)
    tasks = rows(tmp_path / "out" / "tasks.jsonl")
    assert {task["instruction"].startswith("Classify") for task in tasks} == {True, False}
    for task in tasks:
        assert task["classification"] == task["instruction"].startswith("Classify")
        if task["classification"]:
            assert task["instances"] == [["the first", "good"], ["the second", "bad"]]
    assert result["classification"] == sum(task["classification"] for task in tasks)
    asked = {request.text.rsplit("Task: ", 1)[1]: request for requests, draw in write.calls
             if draw.max_tokens == 300 for request in requests}  # fmt: skip
    assert {task: request.begun == "Class label:" for task, request in asked.items()} == {
        task["instruction"]: task["classification"] for task in tasks
    }
    assert result["unclear"] == sum(row.get("unclear", 0) for row in rows(tmp_path / "out" / "metrics.jsonl"))
    assert result["unclear"] > 0 and {"contradiction", "unread", "cut"} <= result["instances_dropped"].keys()


def test_records_are_what_sft_takes(tiny: Tiny):
    result = self_instruct(made(tiny.folder), Scripted(), chat=False)
    records = rows(Path(result["data"]))
    tasks = rows(tiny.folder / "out" / "tasks.jsonl")
    written = [(one["instruction"], one["input"], one["output"]) for one in records if one["source"] == "model"]
    assert written == [(task["instruction"], a, b) for task in tasks for a, b in task["instances"]]
    assert len(records) == result["records"] == result["instances"] + 16
    assert result["without_instances"] == sum(not task["instances"] for task in tasks) > 0
    asked = messages_of(Row(next(one for one in records if one["input"] == "the first"), Path("x"), 1))
    assert asked[0]["content"].endswith("\n\nthe first") and asked[1]["content"] == "good"
    pretrain(tiny.pretrain("base", loop={"steps": 1}, shape={"context": 160}))
    told = sft(tiny.sft("tuned", data=[result["data"]], length=160, loop={"steps": 1}))
    assert told["records"] == result["records"] == told["kept"]


def test_seeds_may_be_left_out_of_the_records(tmp_path: Path):
    result = self_instruct(made(tmp_path, with_seeds=False), Scripted(), chat=False)
    assert result["records"] == result["instances"]
    assert {one["source"] for one in rows(Path(result["data"]))} == {"model"}


def test_killed_anywhere_it_comes_to_the_same_end_and_asks_nothing_twice(tmp_path: Path):
    (tmp_path / "whole").mkdir()
    whole = Scripted()
    wanted = self_instruct(made(tmp_path / "whole"), whole, chat=False)
    calls = len(whole.calls)
    for number, at in enumerate((1, calls // 2, calls)):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        first = Scripted(break_at=at)
        with pytest.raises(Interrupted, match="--resume"):
            self_instruct(made(folder), first, chat=False)
        assert len(first.calls) == at - 1 and not (folder / "out" / "records.jsonl").exists()
        journal = folder / "out" / "metrics.jsonl"
        with journal.open("a") as file:  # a line that was cut off as the process died
            file.write('{"step": 99, "sta')
        with pytest.raises(RunError, match="--resume"):
            self_instruct(made(folder), Scripted(), chat=False)
        second = Scripted()
        found = self_instruct(made(folder, resume=True), second, chat=False)
        assert len(second.calls) == calls - (at - 1)
        assert {**found, "data": "", "report": ""} == {**wanted, "data": "", "report": ""}
        for name in FILES[:3]:
            assert (folder / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()
    again = Scripted()
    assert self_instruct(made(tmp_path / "whole", resume=True), again, chat=False)["records"] == wanted["records"]
    assert not again.calls  # a finished run is shown again


def test_a_journal_of_other_seeds_is_not_gone_on_with(tmp_path: Path):
    with pytest.raises(Interrupted):
        self_instruct(made(tmp_path), Scripted(break_at=4), chat=False)
    with pytest.raises(RunError, match="count"):
        self_instruct(made(tmp_path, resume=True, count=31), Scripted(), chat=False)
    file = tmp_path / "seeds.jsonl"
    file.write_text(file.read_text().replace("rain", "hail"))
    with pytest.raises(RunError, match="request 1 is not the one"):
        self_instruct(made(tmp_path, resume=True), Scripted(), chat=False)


def test_a_model_that_repeats_itself_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def parrot(requests, draw: Draw) -> list[Written]:  # type: ignore[no-untyped-def]
        say = {300: "\nOutput: x", 8: "No"}
        return [Written(say.get(draw.max_tokens, " Tell me the same again, please."), True) for _ in requests]

    result = self_instruct(made(tmp_path, patience=7), parrot, chat=False)
    assert (result["instructions"], result["proposed"], result["refused"]) == (1, 9, {"alike": 8})
    assert "1 of 30 instructions" in capsys.readouterr().err
    silent = made(tmp_path, patience=4, out=str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"In 6 requests .* 6 instructions .*\(empty 6\)"):
        self_instruct(silent, lambda requests, draw: [Written("", False) for _ in requests], chat=False)
    assert not (tmp_path / "none" / "result.json").exists()


def test_patience_begins_anew_with_every_new_instruction(tmp_path: Path):
    result = self_instruct(made(tmp_path, patience=4), Scripted(), chat=False)
    assert result["instructions"] == 30 and result["requests"]["instructions"] > 2 * 4


@pytest.mark.parametrize(
    ("value", "task"),
    [
        (SEEDS[0], Task(SEEDS[0]["instruction"], [("", "answer 0"), ("rain", "know")], False)),
        ({"instruction": " Add\n two ", "input": None, "output": " 4 "}, Task("Add two", [("", "4")])),
        ({"instruction": "a", "input": "b", "output": "c", "is_classification": True}, Task("a", [("b", "c")], True)),
    ],
)  # fmt: skip
def test_seeds_by_hand(value: dict[str, Any], task: Task):
    assert task_of(Row(value, Path("x"), 1)) == task


@pytest.mark.parametrize(
    "value",
    [{"instruction": "a"}, {"instruction": "a", "instances": []}, {"instruction": "a", "instances": [{"input": "b"}]},
     {"instruction": 3, "output": "x"}, {"instruction": " ", "output": "x"}, {"output": "x"},
     {"instruction": "a", "instances": ["x"]}, {"instruction": "a", "output": "b", "input": 4}],
)  # fmt: skip
def test_seeds_that_are_none_are_named(value: dict[str, Any]):
    with pytest.raises(DataError, match="x.jsonl, line 7"):
        task_of(Row(value, Path("x.jsonl"), 7))


def test_seeds_are_read_once_each(tmp_path: Path):
    file = tmp_path / "s.jsonl"
    more = {"instruction": SEEDS[0]["instruction"], "input": "hail", "output": "know"}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*SEEDS, more, SEEDS[0], {"x": 1}]))
    found, skipped = read_seeds([str(file)], least=8, may_skip=1)
    assert (len(found), skipped) == (8, 1)
    assert found[0].instances == [("", "answer 0"), ("rain", "know"), ("hail", "know")]
    with pytest.raises(DataError, match="8 seed tasks.*9"):
        read_seeds([str(file)], least=9, may_skip=1)


def test_the_published_seeds_are_read(amauta_data: Path):
    file = amauta_data / "instruct" / "self_instruct_seed_tasks.jsonl"
    found, _ = read_seeds([str(file)], least=8)
    raw = file.read_text(encoding="utf-8")
    assert len(found) == 175
    assert sum(bool(task.classification) for task in found) == raw.count('"is_classification": true')
    assert sum(len(task.instances) for task in found) == raw.count('"output":')


def test_figures_of_diversity_by_hand():
    tasks = [Task("a b a b", likeness=0.5, to_seeds=0.25), Task("A c", likeness=0.3, to_seeds=0.15)]
    found = report.diversity([Task("x y z")], tasks)
    assert found == pytest.approx({"to_seeds": 0.2, "likeness": 0.4, "openings": 1, "distinct_1": 3 / 6,
                                   "distinct_2": 3 / 4, "distinct_1_seeds": 1.0, "distinct_2_seeds": 1.0})  # fmt: skip
    assert report.distinct(["a"], 2) == 0.0


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_page_tells_the_counts_and_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str):
    monkeypatch.setenv("AMAUTA_LANG", language)
    nasty = '<script>alert("$x$")</script> & <b>'

    def write(requests, draw: Draw) -> list[Written]:  # type: ignore[no-untyped-def]
        say = {300: f"\nOutput: {nasty}", 8: "No"}
        first = f" {chr(97 + draw.seed % 26)}{draw.seed} tells of {draw.seed % 97} {nasty}"
        return [Written(say.get(draw.max_tokens, first), True) for _ in requests]

    result = self_instruct(made(tmp_path, count=5), write, chat=False)
    text = Path(result["report"]).read_text(encoding="utf-8")
    page = Reader(text)
    assert "<script" not in text and nasty in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 4
    assert not [attrs for tag, attrs in page.tags if tag in ("img", "script", "link", "iframe")]
    assert not re.search(r"@import|url\((?!#)", text)
    assert ("html", {"lang": language}) in page.tags
    wanted = {"en": ("Opening words", "too like another"), "es": ("Palabras iniciales", "demasiado parecida a otra")}
    assert all((word in page.text) == (spoken == language) for spoken in wanted for word in wanted[spoken])
    assert str(result["refused"]["alike"]) in page.text


def test_every_reason_has_its_words(tmp_path: Path):
    import inspect

    from amauta.train.self_instruct import parse, run

    named = set(re.findall(r'(?:reason = |return |dropped\[|, |\{)"([a-z-]+)"', inspect.getsource(parse)))
    named |= set(re.findall(r'reason = "([a-z]+)"', inspect.getsource(run)))
    assert {"alike", "empty", "unread", "many"} <= named & report.REASONS.keys()


def by_script(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """The scripted writer behind a server, in a chat: it says the beginning itself, after words of its own."""
    text, stop = body["messages"][0]["content"], body["stop"]
    begun = "Task 9:" if stop == ["Task 16"] else "Is it classification?" if "\n" in stop else ""
    begun = "Class label:" if text.startswith("Given a classification task") else begun
    [found] = Scripted()([Request(text, begun, tuple(stop))], Draw(body["max_tokens"], seed=body["seed"]))
    said = {"content": f"Of course:\n{begun}{found.text}"}
    return 200, {"choices": [{"message": said, "finish_reason": "stop" if found.whole else "length"}]}


def test_the_command_against_a_server_killed_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made(tmp_path)
    given = ["--model", "m", "--seeds", str(tmp_path / "seeds.jsonl"), "--count", "12", "--batch", "2", "--json"]
    with served(by_script) as (url, seen):
        assert main(["self-instruct", *given, "--url", url, "--out", str(tmp_path / "whole")]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["instructions"] == 12 and told["records"] == len(rows(Path(told["data"])))
        assert told["classification"] > 0 and {path for path, _, _ in seen} == {"/v1/chat/completions"}
        assert "tasks 9 to 15" in seen[0][1]["messages"][0]["content"]
        assert metrics.read(Run(tmp_path / "whole").metrics)[0]["stage"] == "instructions"
        all_of_it = len(seen)
        words_given = ["self-instruct", *given, "--url", url, "--out", str(tmp_path / "killed")]
        process = subprocess.Popen([sys.executable, "-m", "amauta", *words_given], stderr=subprocess.DEVNULL)
        journal = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        answered = 2 * journal.read_bytes().count(b"\n")
        before = len(seen)
        assert main([*words_given, "--resume"]) == 0
        again = json.loads(capsys.readouterr().out)
    assert again["records"] == told["records"] and answered >= 6
    assert len(seen) - before == all_of_it - answered  # nothing that was answered is asked again
    for name in FILES[:3]:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_command_with_a_model_here(tiny: Tiny, capsys: pytest.CaptureFixture[str]):
    """A model that has learnt nothing writes nothing that could be kept, and is told so."""
    made(tiny.folder)
    pretrain(tiny.pretrain("base", loop={"steps": 1}, shape={"context": 900}))
    given = ["self-instruct", "--model", str(tiny.folder / "base" / "model"), "--seeds",
             str(tiny.folder / "seeds.jsonl"), "--out", str(tiny.folder / "none"), "--patience", "2", "--batch", "2",
             "--instruction-tokens", "3", "--temperature", "0", "--presence-penalty", "0"]  # fmt: skip
    capsys.readouterr()
    assert main(given) == 2
    assert "none could be kept" in capsys.readouterr().err


def test_unknown_settings_name_the_nearest(tmp_path: Path):
    with pytest.raises(ConfigError, match="'similarity'"):
        made(tmp_path, similarty=0.5)


def test_openings_are_words():
    assert report.openings([Task("¿Qué es?"), Task("qué más")]) == Counter({"qué": 2})
    assert words("¿Qué es?")[0] == "qué"
