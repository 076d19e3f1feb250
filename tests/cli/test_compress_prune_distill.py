"""``amauta compress prune`` and ``distill`` as they are typed, and what becomes of a pruned model after."""

import json
from pathlib import Path

import pytest
import torch

from amauta.cli import main
from amauta.models import exchange
from amauta.models.exchange.folder import write_model
from amauta.models.pruned import linears
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe

TEXTS = [f"the {a} sees the {b} ." for a in ("cat", "dog", "cow", "hen") for b in ("hat", "cup", "sea")]
CPU = ["--device", "cpu", "--json"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = train_bpe(TEXTS, 280)
    spec = Spec(vocabulary=tokenizer.size, context=32, width=32, layers=3, heads=4, kv_heads=2, feedforward=48)
    write_model(Transformer.create(spec, 0), tokenizer, tmp_path / "base")
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path


def run(base: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict:
    assert main(["compress", words[0], "--model", str(base / "base"), *words[1:], *CPU]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else {"error": err}


def test_prune_and_train_on(base: Path, capsys: pytest.CaptureFixture[str]):
    text, out = str(base / "text.jsonl"), base / "thin"
    words = ("prune", "--scheme", "sparsegpt", "--pattern", "2:4", "--text", text, "--rows", "4", "--length", "16",
             "--out", str(out))  # fmt: skip
    told = run(base, capsys, *words)
    assert told["sparsity"] == 0.5 and told["calibration"]["tokens"] == 64 and told["labelled"] is False
    before = exchange.load(out)
    assert all((one.weight.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all() for one in linears(before).values())
    card = json.loads((out / "card.json").read_text())
    assert card["contract"][-1]["step"] == "prune sparsegpt" and card["contract"][-1]["settings"]["pattern"] == "2:4"
    assert str(out) in "".join(run(base, capsys, *words, code=2)["error"].split())  # it stands there
    assert run(base, capsys, *words, "--force")["sparsity"] == 0.5

    for optimizer in ("muon", "adamw"):  # pruned weights stay at zero, the others learn, and the next run knows too
        first, second = str(base / f"first-{optimizer}"), str(base / f"second-{optimizer}")
        loop = ["--text", text, "--steps", "3", "--rows", "2", "--no-compile", "--optimizer", optimizer, *CPU]
        assert main(["pretrain", "--start", str(out), "--out", first, *loop]) == 0
        assert main(["pretrain", "--start", f"{first}/model", "--out", second, *loop]) == 0
        capsys.readouterr()
        for folder in (first, second):
            after = exchange.load(Path(folder) / "model")
            for name, linear in linears(after).items():
                old = linears(before)[name].weight
                assert torch.equal(linear.weight == 0, old == 0), name
                assert not torch.allclose(linear.weight, old, atol=1e-6)
            assert json.loads((Path(folder) / "model" / "card.json").read_text())["pruned"] == "prune sparsegpt"


@pytest.mark.parametrize(("command", "rows"), [
    ("sft", [{"prompt": "the cat", "completion": "sees the hat"}]),
    ("prefer", [{"prompt": "the cat", "chosen": "sees the hat", "rejected": "sea"}]),
    ("reward", [{"prompt": "the cat", "chosen": "sees the hat", "rejected": "sea"}]),
    ("finetune", [{"text": "the cat", "label": "a"}, {"text": "the sea", "label": "b"}]),
])  # fmt: skip
def test_every_training_keeps_the_zeros(base: Path, capsys: pytest.CaptureFixture[str], command: str, rows: list):
    out, data = base / "thin", base / "data.jsonl"
    run(base, capsys, "prune", "--scheme", "magnitude", "--out", str(out), "--accept", "--tolerance", "100")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    flag = "--task" if command == "finetune" else "--data"
    words = [command, "--model", str(out), flag, str(data), "--out", str(base / "run"), "--steps", "2", "--rows",
             "2", "--no-compile", "--optimizer", "adamw", "--lr", "1e-2", *CPU]  # fmt: skip
    assert main(words) == 0
    capsys.readouterr()
    before, after = (linears(exchange.load(folder)) for folder in (out, base / "run" / "model"))
    for name, linear in after.items():
        assert torch.equal(linear.weight == 0, before[name].weight == 0), name
    assert any(not torch.equal(linear.weight, before[name].weight) for name, linear in after.items())


def test_a_model_that_was_not_pruned_may_leave_zero(base: Path, capsys: pytest.CaptureFixture[str]):
    model = exchange.load(base / "base")
    with torch.no_grad():
        model.decoder.blocks[0].attention.out.weight.zero_()
    exchange.save(model, base / "base")
    words = ["--text", str(base / "text.jsonl"), "--steps", "3", "--rows", "2", "--no-compile", *CPU]
    assert main(["pretrain", "--start", str(base / "base"), "--out", str(base / "run"), *words]) == 0
    capsys.readouterr()
    assert exchange.load(base / "run" / "model").decoder.blocks[0].attention.out.weight.abs().min() > 0


def test_a_smaller_model(base: Path, capsys: pytest.CaptureFixture[str]):
    told = run(base, capsys, "prune", "--scheme", "heads", "--rows", "2", "--length", "16", "--out", str(base / "few"))
    assert told["left"] == 2 and told["calibration"]["from"] == "itself"
    made = exchange.load(base / "few")
    assert made.spec.heads == 2 and made.spec.groups == 1
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base / "few").eval()
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, made.logits(made(ids)), atol=1e-4, rtol=1e-4)


def test_beyond_the_tolerance(base: Path, capsys: pytest.CaptureFixture[str]):
    words = ("prune", "--scheme", "magnitude", "--ratio", "0.9", "--tolerance", "0", "--out", str(base / "bad"))
    assert "prune magnitude" in run(base, capsys, *words, code=2)["error"] and not (base / "bad").exists()
    assert run_accepted(base, capsys, words)["labelled"] is True


def run_accepted(base: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> dict:
    main(["compress", words[0], "--model", str(base / "base"), *words[1:], "--accept", *CPU])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("words", "says"), [
    (("prune", "--ratio", "1"), "ratio"),
    (("prune", "--scheme", "magnitude", "--ratio", "0.99999"), "leaves nothing of decoder.blocks.0.attention.qkv"),
    (("prune", "--scheme", "heads", "--ratio", "0.25", "--rows", "2", "--length", "16"), "Ratios that can be: 0.5"),
    (("prune", "--pattern", "2:4", "--scheme", "layers"), "--pattern is for weights"),
    (("prune", "--text", "TEXT", "--rows", "500"), "500"),
    (("prune", "--text", "nowhere.txt"), "nowhere.txt"),
    (("distill", "--student", "nano"), "--text"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else None)  # fmt: skip
def test_refused(base: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str):
    words = tuple(str(base / "text.jsonl") if word == "TEXT" else word for word in words)
    assert says in " ".join(run(base, capsys, *words, "--out", str(base / "out"), code=2)["error"].split())


def test_distill(base: Path, capsys: pytest.CaptureFixture[str]):
    out = base / "small"
    words = ("distill", "--layers", "1", "--text", str(base / "text.jsonl"), "--out", str(out), "--steps", "2",
             "--rows", "2", "--no-compile", "--best", "4")  # fmt: skip
    told = run(base, capsys, *words)
    assert told["kl"] >= 0 and told["parameters"] < told["teacher_parameters"]
    assert exchange.load(out / "model").spec.layers == 1
    assert main(["models", "show", str(out / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contract"][-1]["step"] == "distill"
