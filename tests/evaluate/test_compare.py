"""amauta compare: rewards, wins, KL and lengths of several models' answers, against plain sums."""

import json
from pathlib import Path

import pytest
import torch

from amauta.base.errors import ConfigError
from amauta.evaluate.compare import compare
from amauta.evaluate.settings import Compare
from amauta.grades import mean_interval, wilson
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe

QUESTIONS = ("hat?", "cup?", "¿dónde?", "the road", "a bird", "one boat")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models with random weights and one tokenizer."""
    found = []
    tokenizer = train_bpe([" ".join(QUESTIONS)] * 3, 280, allow_smaller=True)
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"m{seed}")
        spec = Spec(vocabulary=tokenizer.size, context=64, width=16, layers=1, heads=2)
        exchange.save(Transformer.create(spec, seed), folder)
        tokenizer.save(folder)
        found.append(str(folder))
    return found


def asked(folders: list[str], path: Path, **more: object) -> Compare:
    rows = [{"prompt": question, "answer": "x"} for question in QUESTIONS]
    (path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"reward": ("length:6", "regex:a"), "max_tokens": 12, "device": "cpu", "out": path / "out"} | more
    return Compare(tuple(folders), (str(path / "asked.jsonl"),), **values)  # type: ignore[arg-type]


def test_the_table_is_that_of_the_answers(folders: list[str], tmp_path: Path):
    found = compare(asked(folders, tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["question"] for line in lines] == [*QUESTIONS, *QUESTIONS] and found["prompts"] == 6
    tables = [found["models"][0], found["models"][1]]
    by_model = [lines[:6], lines[6:]]
    for row, answers in zip(tables, by_model, strict=True):
        for name in ("length:6", "regex:a"):
            assert row["rewards"][name] == pytest.approx(mean_interval([one["rewards"][name] for one in answers]))
        assert [one["rewards"]["regex:a"] for one in answers] == [float("a" in one["answer"]) for one in answers]
    first, second = ([one["rewards"]["length:6"] for one in answers] for answers in by_model)
    wins = sum((b > a) + (a == b) / 2 for a, b in zip(first, second, strict=True))
    assert tables[1]["wins"] == pytest.approx([wins / 6, *wilson(wins, 6)]) and tables[0]["wins"] is None
    assert tables[0]["kl"] == [0.0, 0.0, 0.0]
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == found


def test_the_kl_is_the_mean_log_ratio_of_the_models_own_answers(folders: list[str], tmp_path: Path, monkeypatch):
    from amauta.evaluate import compare as module

    kept = {}
    real = module._answers

    def spy(model, tokenizer, prompts, settings, name):  # type: ignore[no-untyped-def]
        kept[name] = real(model, tokenizer, prompts, settings, name)
        return kept[name]

    monkeypatch.setattr(module, "_answers", spy)
    found = compare(asked(folders, tmp_path))
    first, second = (exchange.load(Path(folder)) for folder in folders)
    tokenizer = Tokenizer.load(Path(folders[0]))
    away = []
    for question, one in zip(QUESTIONS, kept[folders[1]], strict=True):
        prompt = render(tokenizer, [{"role": "user", "content": question}], reply=True).ids
        ours, theirs = (model.score([*prompt, *one.ids])[len(prompt) - 1 :].sum() for model in (second, first))
        away.append(float(ours - theirs))
    assert found["models"][1]["kl"] == pytest.approx(mean_interval(away), rel=1e-4)
    assert found["models"][1]["tokens"] == sum(len(one.ids) for one in kept[folders[1]]) / 6
    torch.testing.assert_close(sum(one.finish == "stop" for one in kept[folders[1]]) / 6, found["models"][1]["ended"])


def test_another_judge_and_what_cannot_be_compared(folders: list[str], tmp_path: Path):
    found = compare(asked(folders, tmp_path, judge="0.5*exact", limit=2))
    assert found["judge"] == "0.5*exact" and found["prompts"] == 2
    assert found["models"][1]["rewards"]["0.5*exact"] == pytest.approx([0, 0, 0])
    assert found["models"][1]["wins"][0] == 0.5  # both are always wrong
    with pytest.raises(ConfigError, match="names 1"):
        compare(asked(folders[:1], tmp_path))
