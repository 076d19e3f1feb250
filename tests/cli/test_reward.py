"""``amauta reward`` as it is typed."""

import json
from pathlib import Path

import pytest

from amauta.cli import main
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.rewards.called import reward_called
from amauta.tokenize.train import train_bpe


def test_from_flags_to_a_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    rows = [{"prompt": "How?", "chosen": "well", "rejected": word} for word in ("bad", "worse", "worst")]
    tokenizer = train_bpe([row["rejected"] for row in rows], 300, allow_smaller=True)
    spec = Spec(vocabulary=tokenizer.size, context=32, width=16, layers=1, heads=2)
    (tmp_path / "base").mkdir()
    write_model(Transformer.create(spec, 0), tokenizer, tmp_path / "base")
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    words = ["reward", "--model", str(tmp_path / "base"), "--data", str(file), "--heldout", str(file), "--out",
             str(out), "--steps", "20", "--rows", "4", "--device", "cpu", "--lr", "1e-2", "--centre", "0",
             "--no-compile"]  # fmt: skip
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["heldout_accuracy"] == 1.0 and told["calibration"]["pairs"] == 3 and told["kept"] == 3
    assert reward_called(f"model:{out}")([{"role": "user", "content": "How?"}], "well", {}) > 0
    assert main(words) == 2  # a run stands there
    capsys.readouterr()
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert main([*words, "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "calibration.accuracy" in shown and "acierta" in shown and "bins" not in shown
