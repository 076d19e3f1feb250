"""amauta compress quantize: a folder that opens again, with what it cost in its card, or nothing at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.cli import main
from amauta.language_model import load
from amauta.models import exchange
from amauta.models.exchange.folder import write_model
from amauta.models.quantized import few_bits
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe

TEXT = "The old bridge of 1204 had three arches, and the river went under them to the mill. " * 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_bpe([TEXT], 300)
    spec = Spec(vocabulary=tokenizer.size, context=64, width=64, layers=2, heads=4, kv_heads=2, feedforward=96)
    model = Transformer.create(spec, 3).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(4)) * 0.05)
    folder = tmp_path_factory.mktemp("source") / "model"
    write_model(model, tokenizer, folder)
    (folder.parent / "prose.txt").write_text(TEXT)
    return folder


def call(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compress", "quantize", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(["compress", "quantize", *map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("scheme", ["int8", "int4", "nf4", "gptq", "awq", "smoothquant"])
def test_each_scheme(scheme: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, prose = tmp_path / "few", source.parent / "prose.txt"
    calibrated = scheme in ("gptq", "awq", "smoothquant")
    text = ["--text", prose, "--rows", 8, "--length", 32] if calibrated else []
    got = call(capsys, "--model", source, "--scheme", scheme, "--out", out, *text)
    assert {"bytes", "kl", "top1_agreement", "perplexity_ratio"} <= got.keys()
    assert 0 < got["kl"] < 0.2 and not got["labelled"] and got["scheme"] == scheme
    assert got["bytes"] == (out / "model.safetensors").stat().st_size
    if calibrated:
        assert got["calibration"]["rows"] == 8 and str(prose) in got["calibration"]["from"]
    row = json.loads((out / "card.json").read_text())["contract"][-1]
    assert row["step"] == f"quantize {scheme}" and row["kl"] == got["kl"] and row["settings"]["scheme"] == scheme
    held = few_bits(exchange.load(out))
    assert len(held) == 9 and all(layer.inputs == (8 if scheme == "smoothquant" else None)
                                  for name, layer in held.items() if "blocks" in name)  # fmt: skip
    [written] = load(out).generate("The old bridge", max_tokens=5, temperature=0.0)
    assert len(written.tokens) == 5
    small = load(out, cache="int8")
    assert small.model.new_cache(1, 4).keys.dtype == torch.int8
    [whole] = small.generate("The old bridge", max_tokens=5, temperature=0.0)
    assert len(whole.tokens) == 5


def test_a_quantised_model_is_not_quantised_again(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call(capsys, "--model", source, "--scheme", "int8", "--out", tmp_path / "once")
    assert "quantised already" in refused(
        capsys, "--model", tmp_path / "once", "--scheme", "int4", "--out", tmp_path / "twice"
    )
    assert not (tmp_path / "twice").exists()


def test_text_shorter_than_asked(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = refused(capsys, "--model", source, "--scheme", "gptq", "--text", source.parent / "prose.txt",
                   "--rows", 1000, "--length", 64, "--out", tmp_path / "few")  # fmt: skip
    assert "1000 rows of 64 need 64000" in said and not (tmp_path / "few").exists()


def test_a_group_that_does_not_divide(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = refused(capsys, "--model", source, "--scheme", "int4", "--group", 64, "--out", tmp_path / "few")
    assert "Groups of 64" in said and "64, 96" in said and "Allowed here: 32" in said


def test_beyond_the_tolerance(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--model", source, "--scheme", "int4", "--out", tmp_path / "few", "--tolerance", "1e-9"]
    refused(capsys, *words)
    assert not (tmp_path / "few").exists()
    capsys.readouterr()
    assert main(["compress", "quantize", *map(str, words), "--accept", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["labelled"] is True and (tmp_path / "few" / "model.safetensors").is_file()


def test_what_stands_there_stays(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "few").mkdir()
    assert "--force" in refused(capsys, "--model", source, "--scheme", "int8", "--out", tmp_path / "few")
    call(capsys, "--model", source, "--scheme", "int8", "--out", tmp_path / "few", "--force")
    assert few_bits(exchange.load(tmp_path / "few"))


def test_an_unknown_scheme(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = refused(capsys, "--model", source, "--scheme", "int9", "--out", tmp_path / "few")
    assert "int8" in said


def test_out_by_gguf(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Symmetric groups of 32 are Q4_0: a second rounding takes nothing."""
    call(capsys, "--model", source, "--scheme", "gptq", "--no-affine", "--text", source.parent / "prose.txt",
         "--rows", 8, "--length", 32, "--out", tmp_path / "few")  # fmt: skip
    capsys.readouterr()
    out = tmp_path / "few.gguf"
    assert main(["export", "--model", str(tmp_path / "few"), "--gguf", str(out), "--type", "q4_0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kl"] < 1e-4
    assert main(["export", "--model", str(tmp_path / "few"), "--folder", str(tmp_path / "full"), "--json"]) == 0
    assert not few_bits(exchange.load(tmp_path / "full"))
