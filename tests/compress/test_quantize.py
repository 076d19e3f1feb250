"""Quantising whole models: every scheme on every family that it is for, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from amauta.adapt.around import Around
from amauta.base.errors import AmautaError, ConfigError, DataError, ModelError
from amauta.compress import awq, run
from amauta.compress.calibrate import OF_ITS_OWN, calibration, written
from amauta.compress.rounding import Form, grid, rounded
from amauta.compress.run import quantize
from amauta.compress.settings import CALIBRATED, Calibration, Rounding, Scheme
from amauta.compress.statistics import calibrated
from amauta.models.quantized import few_bits, in_full
from amauta.models.transformer import Transformer
from amauta.runs import digest
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.compress.small import SPECS, model_of, rows_of

SCHEMES: tuple[Scheme, ...] = ("int8", "int4", "nf4", "gptq", "awq", "smoothquant")
TEXT = "The old bridge of 1204 had three arches, and the river went under them to the mill. " * 6


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe([TEXT], 280)


@pytest.fixture
def same_rows(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """All calibration is on these, of one length."""
    rows = [row[:11] for row in rows_of(6)]
    monkeypatch.setattr(run, "calibration", lambda *_: (rows, {"rows": len(rows)}))
    return rows


def said(model: Transformer, rows: list[Tensor]) -> Tensor:
    pair = model.spec.kind == "encoder-decoder"
    return torch.cat([model(row[None], **({"decoder_ids": row[None]} if pair else {}))[0] for row in rows])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_every_scheme_on_every_family(name: str, scheme: Scheme, same_rows: list[Tensor]):
    """All layers of the stacks have few bits, the model given is as it was, and little is lost."""
    model = model_of(name, feedforward=64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = scheme in ("awq", "smoothquant")
    if folded and (model.spec.norm_place == "post" or name in ("reformer", "shared")):
        with pytest.raises(ModelError) as error:
            quantize(model, None, Rounding(scheme), Calibration())
        assert error.value.key == "compress.no-folds" and "gptq" in str(error.value)
        return
    made, facts = quantize(model, None, Rounding(scheme), Calibration())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    linears = {key for key, part in model.named_modules() if isinstance(part, torch.nn.Linear) and ".blocks." in key}
    assert linears == {key for key in few_bits(made) if ".blocks." in key} and facts["layers"] == len(linears)
    assert {layer.kind for key, layer in few_bits(made).items() if key in facts["tables"]} == {"int8"}
    assert not made.training and facts["weights_bytes"] < 0.5 * facts["weights_bytes_before"]
    assert ("calibration" in facts) == (scheme in CALIBRATED)
    if name == "reformer":
        return  # its buckets move with the least change
    lost = (said(made, same_rows) - said(model, same_rows)).norm() / said(model, same_rows).norm()
    assert float(lost) < (0.1 if scheme in ("int8", "smoothquant") else 0.6)


@pytest.mark.parametrize("affine", [False, True])
@torch.no_grad()
def test_watching_helps(affine: bool, same_rows: list[Tensor]):
    """On what was read gptq and awq lose less than the nearest numbers with the same groups."""
    model = model_of("llama", feedforward=64)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("norm.weight"):
                value[::5] *= 6  # some channels larger than the rest
    lost = {
        scheme: float((said(quantize(model, None, Rounding(scheme, affine=affine), Calibration())[0], same_rows)
                       - said(model, same_rows)).norm())
        for scheme in ("int4", "gptq", "awq")
    }  # fmt: skip
    assert lost["gptq"] < 0.8 * lost["int4"] and lost["awq"] < 0.95 * lost["int4"]


@torch.no_grad()
def test_awq_step_by_step(same_rows: list[Tensor]):
    """The first layer's q and k: scaled, clipped by what they read once that is divided, rounded."""
    model = model_of("llama", feedforward=64)
    model.get_parameter("decoder.blocks.0.attention_norm.weight")[::5] *= 12
    made, _ = quantize(model, None, Rounding("awq"), Calibration())
    name, form = "decoder.blocks.0.attention.qkv", Form("int4", 32, affine=True)
    inputs = calibrated(model, [torch.stack(same_rows)], products=True)[name]
    weight = model.get_parameter(f"{name}.weight")
    s, exponent = awq.scales(weight, inputs.means, inputs.hessian(), form)
    assert exponent > 0
    ratio = awq.clips(weight * s, inputs.hessian() / (s[:, None] * s), form)
    assert not torch.equal(ratio[:48], awq.clips(weight * s, inputs.hessian(), form)[:48])
    wanted = rounded(weight * s, form, grid(weight * s, form, ratio=ratio))
    torch.testing.assert_close(few_bits(made)[name].weight[:48], wanted[:48], rtol=1e-4, atol=1e-6)
    norm = "decoder.blocks.0.attention_norm.weight"
    torch.testing.assert_close(made.get_parameter(norm), model.get_parameter(norm) / s)


@torch.no_grad()
def test_the_nearest_are_the_nearest():
    model = model_of("llama", feedforward=64)
    made, facts = quantize(model, None, Rounding("int4"), Calibration())
    assert facts["group"] == 32  # of 128, 64, 32 the first that divides 32 and 64
    form = Form("int4", 32)
    for name, layer in few_bits(made).items():
        weight = model.get_parameter(f"{name}.weight")
        wanted = rounded(weight, Form("int8") if name == "embedding" else form)
        torch.testing.assert_close(layer.weight, wanted, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_what_is_asked_for():
    model = model_of("gpt2", feedforward=64, tied=False)
    few = few_bits(quantize(model, None, Rounding("int8", outliers=6.0), Calibration())[0])
    assert {(layer.inputs, layer.threshold) for name, layer in few.items() if "blocks" in name} == {(8, 6.0)}
    assert few["embedding"].inputs is None
    few = few_bits(quantize(model, None, Rounding("int4", table="same", group=32), Calibration())[0])
    assert {layer.kind for layer in few.values()} == {"int4"} and "outputs.language.table" in few
    few = few_bits(quantize(model, None, Rounding("nf4", double=True, table="full"), Calibration())[0])
    assert all(layer.doubled is not None for layer in few.values()) and "embedding" not in few
    few = few_bits(quantize(model, None, Rounding(full=("down", r"blocks\.0\.", "embedding")), Calibration())[0])
    assert sorted(few) == sorted(["outputs.language.table", *(f"decoder.blocks.{i}.{part}" for i in (1, 2)
                                  for part in ("attention.qkv", "attention.out", "feedforward.up"))])  # fmt: skip
    few = few_bits(quantize(model, None, Rounding("int8", tensor=True), Calibration())[0])
    assert len(few["decoder.blocks.0.attention.qkv"].scales.unique()) == 1
    few = few_bits(quantize(model, None, Rounding("int8", affine=True, group=32), Calibration())[0])
    assert few["decoder.blocks.0.attention.qkv"].zeros is not None


@pytest.mark.parametrize("scheme", ["int4", "gptq"])
@torch.no_grad()
def test_some_layers_in_eight_bits(scheme: Scheme, same_rows: list[Tensor]):
    """Those that are named get int8, by the same scheme; 48 inputs are no matter there. Less is lost."""
    model = model_of("llama")
    made, facts = quantize(model, None, Rounding(scheme, eight=("down",)), Calibration())
    kinds = {name: layer.kind for name, layer in few_bits(made).items() if "blocks" in name}
    assert {name for name, kind in kinds.items() if kind == "int8"} == {
        f"decoder.blocks.{i}.feedforward.down" for i in range(3)
    }
    assert (facts["kind"], facts["group"], facts["eight"]) == ("int4", 32, 3)
    wide = model_of("llama", feedforward=64)
    lost = [
        float((said(quantize(wide, None, Rounding(scheme, eight=eight), Calibration())[0], same_rows)
               - said(wide, same_rows)).norm())
        for eight in ((), ("down", "up"), ("attention", "down", r"[01]\..*up"))
    ]  # fmt: skip
    assert lost[0] > lost[1] > 1.1 * lost[2]


@torch.no_grad()
def test_eight_bits_by_gptq(same_rows: list[Tensor]):
    model = model_of("llama", feedforward=64)
    made, facts = quantize(model, None, Rounding("gptq", bits=8), Calibration())
    assert facts["kind"] == "int8" and facts["group"] is None
    lost = (said(made, same_rows) - said(model, same_rows)).norm() / said(model, same_rows).norm()
    assert float(lost) < 0.03


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@torch.no_grad()
def test_a_layer_reads_what_the_rounded_ones_give(
    autocast: torch.dtype | None, same_rows: list[Tensor], monkeypatch: pytest.MonkeyPatch
):
    """With the first block rounded to nothing at all, the second reads the embeddings as they are."""
    hessians: list[Tensor] = []
    form = Form("int4", 32, affine=True)

    def nothing(weight: Tensor, hessian: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Any]:
        hessians.append(hessian)
        held = run.grid(weight, form)
        return held.zeros.to(torch.uint8).repeat_interleave(32, 1), held  # type: ignore[union-attr]

    monkeypatch.setattr(run.gptq, "quantised", nothing)
    model = model_of("llama", feedforward=64)
    quantize(model, None, Rounding("gptq", clip=False), Calibration(), autocast=autocast)
    assert model.decoder is not None
    x = model.embedding(torch.stack(same_rows)).flatten(0, 1)
    block = model.decoder.blocks[1]
    x = block.attention_norm(x)  # type: ignore[operator]
    wanted = 2 * x.T @ x / len(x)
    torch.testing.assert_close(hessians[4], wanted, rtol=1e-3, atol=1e-3)  # of the second block's q|k|v


REFUSED: list[tuple[dict[str, Any], type[AmautaError], str, str]] = [
    ({"scheme": "int4", "group": 48}, ModelError, "compress.group", "32"),
    ({"scheme": "int8", "group": 7}, ModelError, "compress.group", "32"),
    ({"scheme": "int8", "group": 16}, ModelError, "compress.group", "32"),
    ({"scheme": "gptq", "group": 128}, ModelError, "compress.group", "Allowed here: 32."),
    ({"scheme": "int8", "double": True}, ConfigError, "compress.not-of-scheme", "nf4"),
    ({"scheme": "int4", "outliers": 6.0}, ConfigError, "compress.not-of-scheme", "int8"),
    ({"scheme": "nf4", "damp": 0.1}, ConfigError, "compress.not-of-scheme", "gptq"),
    ({"scheme": "int8", "outliers": 6.0, "affine": True}, ConfigError, "compress.outliers-alone", "--affine"),
    ({"scheme": "int4", "eight": ("dwon",)}, ConfigError, "compress.matches-nothing", "dwon"),
    ({"scheme": "int8", "full": ("qvk",)}, ConfigError, "compress.matches-nothing", "attention.qkv"),
    ({"scheme": "int8", "full": (".",)}, ConfigError, "compress.nothing-left", "."),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "kind", "key", "named"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(settings: dict[str, Any], kind: type[AmautaError], key: str, named: str):
    with pytest.raises(kind) as error:
        quantize(model_of("llama", feedforward=64), None, Rounding(**settings), Calibration())
    assert error.value.key == key and named in str(error.value)


def test_widths_without_whole_runs():
    """48 inputs: no 4 bits, and no group; 8 bits a row are fine."""
    model = model_of("llama")
    for scheme in ("int4", "nf4", "gptq"):
        with pytest.raises(ModelError) as error:
            quantize(model, None, Rounding(scheme), Calibration())
        assert error.value.key == "compress.no-runs" and "48" in str(error.value)
    assert len(few_bits(quantize(model, None, Rounding("int8"), Calibration())[0])) == 13


def test_twice_is_refused():
    once, _ = quantize(model_of("llama"), None, Rounding("int8"), Calibration())
    with pytest.raises(ModelError) as error:
        quantize(once, None, Rounding("int8"), Calibration())
    assert error.value.key == "compress.already" and "int8" in str(error.value)
    assert len(few_bits(quantize(in_full(once), None, Rounding("int8"), Calibration())[0])) == 13


def test_adapters_are_merged_first():
    model = model_of("llama")
    assert model.decoder is not None
    block = model.decoder.blocks[0]
    block.attention.qkv = Around(block.attention.qkv)  # type: ignore[union-attr, arg-type]
    with pytest.raises(ModelError) as error:
        quantize(model, None, Rounding("int8"), Calibration())
    assert error.value.key == "compress.has-adapters"


def test_calibration_of_documents(tokenizer: Tokenizer, tmp_path: Path):
    """Rows are runs of the documents' tokens, chosen by the seed; all is recorded by content."""
    file = tmp_path / "prose.txt"
    file.write_text(TEXT)
    model = model_of("llama", vocabulary=tokenizer.size)
    ids = [tokenizer.begin, *tokenizer.encode(TEXT), tokenizer.end]
    asked = Calibration((str(file),), rows=5, length=9)
    rows, facts = calibration(model, tokenizer, asked)
    whole = [ids[at * 9 : at * 9 + 9] for at in range(len(ids) // 9)]
    places = [whole.index(row.tolist()) for row in rows]
    assert len(set(places)) == 5 and places == sorted(places)
    assert facts["from"] == {str(file): digest(file)}
    assert (facts["rows"], facts["length"], facts["tokens"]) == (5, 9, 45)
    again, same = calibration(model, tokenizer, asked)
    other, different = calibration(model, tokenizer, dataclasses.replace(asked, seed=8))
    assert same == facts and all(map(torch.equal, again, rows))
    assert different["sha256"] != facts["sha256"]
    import hashlib

    held = np.concatenate([row.numpy() for row in rows]).astype("<i8").tobytes()
    assert facts["sha256"] == hashlib.sha256(held).hexdigest()
    longer, facts = calibration(model, tokenizer, dataclasses.replace(asked, length=4096))
    assert facts["length"] == 24 and len(longer[0]) == 24  # the model's context


def test_calibration_text_shorter_than_asked(tokenizer: Tokenizer, tmp_path: Path):
    file = tmp_path / "short.txt"
    file.write_text("The old bridge.")
    model = model_of("llama", vocabulary=tokenizer.size)
    with pytest.raises(DataError) as error:
        calibration(model, tokenizer, Calibration((str(file),), rows=4, length=20))
    count = len(tokenizer.encode("The old bridge.")) + 2
    assert error.value.key == "compress.short-text"
    assert f"{count} tokens" in str(error.value) and "80" in str(error.value)


@torch.no_grad()
def test_what_a_model_writes_itself(tokenizer: Tokenizer):
    model = model_of("llama", vocabulary=tokenizer.size)
    rows, facts = calibration(model, tokenizer, Calibration(length=12))
    assert facts["from"] == "itself" and len(rows) == OF_ITS_OWN and {len(row) for row in rows} == {12}
    assert {int(row[0]) for row in rows} == {tokenizer.begin}
    assert torch.equal(written(model, tokenizer.begin, 3, 8, 5), written(model, tokenizer.begin, 3, 8, 5))
    assert not torch.equal(written(model, tokenizer.begin, 3, 8, 5), written(model, tokenizer.begin, 3, 8, 6))
    many = written(model, tokenizer.begin, 4000, 2, 0)[:, 1]
    chances = model.logits(model(torch.tensor([[tokenizer.begin]])))[0, 0].softmax(-1)
    best = int(chances.argmax())
    share, p = float((many == best).float().mean()), float(chances[best])
    assert abs(share - p) < 5 * (p * (1 - p) / 4000) ** 0.5


@pytest.mark.parametrize("name", ["bert", "t5", "reformer"])
def test_who_cannot_write_needs_a_text(name: str, tokenizer: Tokenizer):
    with pytest.raises(ConfigError) as error:
        calibration(model_of(name), tokenizer, Calibration())
    assert error.value.key == "compress.needs-text"


def test_documents_need_a_tokenizer(tmp_path: Path):
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(ConfigError) as error:
        calibration(model_of("llama"), None, Calibration((str(tmp_path / "a.txt"),)))
    assert error.value.key == "compress.no-tokenizer"
