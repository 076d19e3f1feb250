"""``amauta pretrain`` as it is typed: every manner from text and tokenizer to a model, and what cannot be asked for."""

import json
from pathlib import Path

import pytest

from amauta.cli import main
from amauta.models import exchange
from amauta.tokenize.special import FOR

MANNERS = ("bert", "roberta", "albert", "electra", "t5", "bart", "gpt2", "llama")
TINY = ["--size", "nano", "--layers", "1", "--width", "32", "--heads", "2", "--context", "48", "--rows", "4",
        "--no-compile", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.jsonl"
    rows = [{"text": f"The cup number {n} is red. The hat is blue. The road is long."} for n in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def tokenizer(text: str, manner: str, capsys: pytest.CaptureFixture[str]) -> str:
    out = str(Path(text).parent / f"tokenizer-{manner}")
    reserve = ["--for", manner] if manner in FOR else []
    assert main(["tokenizer", "train", "--text", text, "--out", out, "--size", "420", "--allow-smaller", *reserve]) == 0
    capsys.readouterr()
    return out


@pytest.mark.parametrize("manner", MANNERS)
def test_every_manner_from_text_to_a_model(text: str, manner: str, capsys: pytest.CaptureFixture[str]):
    out = Path(text).parent / "run"
    words = ["--tokenizer", tokenizer(text, manner, capsys), "--out", str(out), *TINY, "--steps", "2", "--json"]
    assert main(["pretrain", "--as", manner, "--text", text, *words]) == 0
    told = json.loads(capsys.readouterr().out)
    model = exchange.load(Path(told["model"]))
    assert told["steps"] == 2 and told["parameters"] == sum(weight.numel() for weight in model.parameters())
    kinds = {"t5": "encoder-decoder", "bart": "encoder-decoder", "gpt2": "decoder", "llama": "decoder"}
    assert model.spec.kind == kinds.get(manner, "encoder") and model.spec.layers == 1


def test_what_cannot_be_learned_is_named_with_what_can(text: str, capsys: pytest.CaptureFixture[str]):
    words = ["--text", text, "--tokenizer", tokenizer(text, "bert", capsys), "--out", str(Path(text).parent / "no")]
    assert main(["pretrain", "--as", "gpt2", "--objective", "masked", *words, *TINY, "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["key"] == "train.cannot-learn"
    assert "can learn: causal, spans" in " ".join(said.err.split()) and "--as bert, roberta, albert" in said.err


def test_embeddings_alone_by_flags(text: str, capsys: pytest.CaptureFixture[str]):
    folder = Path(text).parent
    begun = ["--tokenizer", tokenizer(text, "llama", capsys), "--out", str(folder / "base"), *TINY, "--steps", "2"]
    assert main(["pretrain", "--text", text, *begun, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    more = ["pretrain", "--text", text, "--start", str(folder / "base"), "--train-only", "embeddings", "--out",
            str(folder / "more"), "--steps", "2", "--rows", "4", "--no-compile", "--device", "cpu"]  # fmt: skip
    assert main([*more, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    table = exchange.load(Path(told["model"])).embedding.weight
    assert (first["trained"], told["trained"]) == (first["parameters"], table.numel())
    another = ["all" if word == "embeddings" else word for word in more]
    assert main([*another, "--resume"]) == 2  # it is another run
    assert "train_only" in capsys.readouterr().err
