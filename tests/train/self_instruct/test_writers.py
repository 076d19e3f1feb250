"""Writers: what a model here and a server are asked, what is made of their answers, and how faults are told."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from amauta.base.errors import ConfigError, ModelError
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.chat import render
from amauta.train.self_instruct.wording import Request
from amauta.train.self_instruct.writers import Draw, Written, local, served
from tests.train.conftest import Tiny
from tests.train.self_instruct.server import served as serving

GREEDY, DRAWN = Draw(20), Draw(50, 0.7, 0.5, 2.0, seed=9)
ASKED = [Request(f"Tasks {n}", "Task 9:", ("Task 16",)) for n in range(6)]


@dataclass
class Answer:
    text: str
    finish: str = "stop"
    failure: ModelError | None = None


@dataclass
class Model:
    """As a LanguageModel: it answers with what it was given."""

    tokenizer: Any
    answers: list[Answer]
    calls: list[tuple[list[Any], dict[str, Any]]] = field(default_factory=list)

    def generate(self, prompts: list[Any], **settings: Any) -> list[Answer]:
        self.calls.append((prompts, settings))
        return self.answers


def test_a_model_here_is_asked_in_plain_text_and_in_a_chat(tiny: Tiny, tokenizer: Any):
    answers = [Answer(" a", "stop"), Answer("b", "stop-string"), Answer("c", "length"), Answer("", "context"),
               Answer("", "failed", ModelError("train.no-tokenizer")), Answer("d", "time")]  # fmt: skip
    model = Model(tokenizer, answers)
    wanted = [Written(one.text, n < 2) for n, one in enumerate(answers)]
    assert local(model, chat=False)(ASKED, DRAWN) == wanted
    prompts, given = model.calls[0]
    assert prompts == [f"Tasks {n}\nTask 9:" for n in range(6)]
    assert given == {"stop": ("Task 16",), "seed": 9, "batch": 6, "max_tokens": 50, "temperature": 0.7, "top_p": 0.5,
                     "presence_penalty": 2.0}  # fmt: skip
    assert local(model, chat=True)(ASKED, GREEDY) == wanted
    prompts, given = model.calls[1]
    asked = [{"role": "user", "content": "Tasks 0"}]
    assert prompts[0] == [*render(tokenizer, asked, reply=True).ids, *tokenizer.encode("Task 9:")]
    assert given == {"stop": ("Task 16",), "seed": 0, "batch": 6, "max_tokens": 20, "temperature": 0.0}


def test_a_request_without_a_beginning(tiny: Tiny, tokenizer: Any):
    model = Model(tokenizer, [Answer("a")])
    local(model, chat=False)([Request("Tasks", "", ())], GREEDY)
    assert model.calls[0][0] == ["Tasks"]


def test_nothing_but_failures_is_the_models_own_error(tiny: Tiny, tokenizer: Any):
    from amauta.language_model.model import LanguageModel

    made = Transformer.create(Spec(vocabulary=tokenizer.size, context=16, width=16, layers=1, heads=2), seed=0)
    with pytest.raises(ModelError, match="16"):
        local(LanguageModel(made, tokenizer), chat=False)([Request("red " * 40, "", ())] * 2, GREEDY)


def test_one_answer_is_enough_to_go_on(tiny: Tiny, tokenizer: Any):
    failed = Answer("", "failed", ModelError("train.no-tokenizer"))
    some = local(Model(tokenizer, [failed, Answer("a")]), chat=False)(ASKED[:2], GREEDY)
    assert some == [Written("", False), Written("a", True)]
    with pytest.raises(ModelError) as found:
        local(Model(tokenizer, [failed, failed]), chat=False)(ASKED[:2], GREEDY)
    assert found.value is failed.failure


def test_a_model_here_goes_on_with_its_own_seeds(tiny: Tiny, tokenizer: Any):
    """Request i of a call draws as it would alone with seed + i; a stop text ends it."""
    from amauta.language_model.model import LanguageModel

    made = Transformer.create(Spec(vocabulary=tokenizer.size, context=96, width=16, layers=1, heads=2), seed=0)
    write = local(LanguageModel(made, tokenizer), chat=True)
    draw = Draw(12, 1.0, seed=4)
    together = write([Request("a", "b", ("zzz",)), Request("c", "d", ("zzz",))], draw)
    assert together[1:] == write([Request("c", "d", ("zzz",))], Draw(12, 1.0, seed=5))
    assert together[0].text != together[1].text


def plain(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    time.sleep(0.01 * (6 - body["seed"] % 6))  # later requests are answered first
    return 200, {"choices": [{"text": f" {body['prompt']}", "finish_reason": "stop" if body["seed"] % 2 else "length"}]}


def test_a_server_is_asked_for_completions_and_keeps_their_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(plain) as (url, seen):
        found = served(url + "/", "m", chat=False, key="MY_KEY")(ASKED, DRAWN)
    assert found == [Written(f" Tasks {n}\nTask 9:", (9 + n) % 2 == 1) for n in range(6)]
    path, body, headers = min(seen, key=lambda one: one[1]["seed"])
    assert path == "/v1/completions" and headers["Authorization"] == "Bearer secret"
    assert body == {"model": "m", "prompt": "Tasks 0\nTask 9:", "stop": ["Task 16"], "seed": 9, "max_tokens": 50,
                    "temperature": 0.7, "top_p": 0.5, "presence_penalty": 2.0}  # fmt: skip
    assert sorted(body["seed"] for _, body, _ in seen) == list(range(9, 15))


@pytest.mark.parametrize(
    ("said", "text"),
    [(" Write", " Write"), ("Task 9: Write", " Write"), ("Sure!\nTask 9: Write", " Write"), (None, ""),
     ("\ud800x", "?x"), ("Task 9: a\nTask 9: b", " a\nTask 9: b")],
)  # fmt: skip
def test_a_chat_may_say_the_beginning_again(said: str | None, text: str):
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}

    with serving(answer) as (url, seen):
        assert served(url, "m", chat=True)(ASKED[:1], GREEDY) == [Written(text, True)]
    path, body, headers = seen[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert body["messages"] == [{"role": "user", "content": "Tasks 0"}] and "prompt" not in body
    assert body["temperature"] == 0.0 and "top_p" not in body


def test_a_busy_server_is_asked_again_and_a_refusal_is_told():
    waits: list[float] = []
    states = [503, 429, 200]

    def busy(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return states.pop(0), {"choices": [{"text": "ok", "finish_reason": "stop"}]}

    with serving(busy) as (url, seen):
        assert served(url, "m", chat=False, wait=waits.append)(ASKED[:1], GREEDY) == [Written("ok", True)]
    assert waits == [1.0, 2.0] and len(seen) == 3
    with serving(lambda path, body: (400, {"error": "no such model: m"})) as (url, seen):
        with pytest.raises(ModelError, match="400.*no such model: m.*--resume"):
            served(url, "m", chat=False, wait=waits.append)(ASKED[:1], GREEDY)
    assert len(seen) == 1 and len(waits) == 2
    with serving(lambda path, body: (500, {})) as (url, seen):
        with pytest.raises(ModelError, match="no answer in 6 tries.*500"):
            served(url, "m", chat=False, wait=waits.append)(ASKED[:1], GREEDY)
    assert len(seen) == 6 and waits[2:] == [1.0, 2.0, 4.0, 8.0, 16.0]
    with pytest.raises(ModelError, match="no answer in 6 tries"):  # nobody listens there any more
        served(url, "m", chat=False, wait=waits.append)(ASKED[:1], GREEDY)


@pytest.mark.parametrize(
    "content", [b"<html>", {"choices": []}, {"choices": [{"message": {}}]}, [1], {"choices": None}]
)
def test_an_answer_in_another_form_is_named(content: Any):
    with serving(lambda path, body: (200, content)) as (url, _):
        with pytest.raises(ModelError, match="gave no answer in the form"):
            served(url, "m", chat=False)(ASKED[:1], GREEDY)


def test_an_address_that_is_none():
    with pytest.raises(ConfigError, match="file:///etc"):
        served("file:///etc", "m", chat=True)


def test_draws_as_arguments():
    assert json.dumps(Draw(3, 0.0, 0.5).settings()) == '{"max_tokens": 3, "temperature": 0.0}'
    assert Draw(3, 0.5, 1.0).settings() == {"max_tokens": 3, "temperature": 0.5}
