"""Answers judged exactly, by a scripted model."""

from pathlib import Path

import pytest

from amauta.data.read import Row
from amauta.data.records import preference_of
from amauta.decode.settings import Sampling
from amauta.evaluate import answers
from amauta.evaluate.answers import judge_dialogues, judge_preferences, wilson
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["red blue green hat cup"], 280, allow_smaller=True)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replies to come, in order."""
    script: list[str] = []
    monkeypatch.setattr(answers, "replies", lambda m, t, prompts, *_, **__: [script.pop(0) for _ in prompts])
    return script


def row(number: int, **value: object) -> Row:
    return Row(value, Path("x.jsonl"), number)


def dialogue(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def test_wilson_interval_of_known_values():
    # 8 of 10: (.4902, .9433) (Newcombe 1998, table of the score method)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(1)


def test_exact_is_character_for_character(tokenizer: Tokenizer, scripted: list[str]):
    scripted += ["It is red.", "it is blue.", " Green! ", "four"]
    asked = [
        (row(1, kind="fact"), dialogue("hat?", "It is red.")),
        (row(2, kind="fact"), dialogue("cup?", "It is blue.")),
        (row(3, kind="fact", accepted=["Green.", "Green!"]), dialogue("sea?", "Green.")),
        (row(4, kind="sum"), dialogue("a", "b", "2+2?", "four", "thanks")),
    ]
    figures, judged = judge_dialogues(None, tokenizer, asked, GREEDY, rows=2, title="t")
    assert [one["right"] for one in judged] == [True, False, True, True]
    assert judged[3]["question"] == "2+2?"  # the last answer is asked for, not the thanks after it
    assert figures["exact"] == 0.75 and figures["exact_n"] == 4
    assert figures["exact_fact"] == pytest.approx(2 / 3) and figures["exact_sum"] == 1.0


def test_preferred_and_likelier(tokenizer: Tokenizer, scripted: list[str]):
    model = Transformer.create(Spec(vocabulary=tokenizer.size, context=64, width=16, layers=1, heads=2), seed=0).eval()
    rows = [row(i, prompt="hat?", chosen="red", rejected="blue", accepted_preferred=["red", "Red."]) for i in range(3)]
    scripted += ["red", "blue", "Red."]
    pairs = [(one, preference_of(one)) for one in rows]
    figures, judged = judge_preferences(model, tokenizer, pairs, GREEDY, rows=2, title="t")
    assert [one["preferred"] for one in judged] == [True, False, True]
    assert figures["preferred"] == pytest.approx(2 / 3)
    from amauta.tokenize.chat import render

    def total(answer: str) -> float:
        ids = render(tokenizer, [*dialogue("hat?"), {"role": "assistant", "content": answer}]).ids
        start = len(render(tokenizer, dialogue("hat?"), reply=True).ids)
        return float(model.score(ids)[start - 1 :].sum())

    assert figures["likelier"] == float(total("red") > total("blue"))


def test_without_listed_answers_nothing_is_sampled(tokenizer: Tokenizer, scripted: list[str]):
    model = Transformer.create(Spec(vocabulary=tokenizer.size, context=64, width=16, layers=1, heads=2), seed=0).eval()
    one = row(1, prompt="hat?", chosen="red", rejected="blue")
    figures, judged = judge_preferences(model, tokenizer, [(one, preference_of(one))], GREEDY, rows=2, title="t")
    assert judged == [] and "preferred" not in figures
