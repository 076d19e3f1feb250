"""Weights set to zero: how many and which, in every family; and what `prune` refuses."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.adapt.settings import Adapters
from amauta.base.errors import ConfigError, DataError, ModelError
from amauta.compress.prune.run import prune
from amauta.compress.prune.settings import WEIGHTS, Prune
from amauta.compress.prune.weights import set_to_zero
from amauta.compress.run import quantize
from amauta.compress.settings import Calibration, Rounding
from amauta.models.adapters import attach
from amauta.models.pruned import linears
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.compress.small import SPECS, model_of, rows_of
from tests.compress.test_statistics import everything


def asked(scheme: str = "wanda", **more: Any) -> Prune:
    return Prune(model="", out=Path(), scheme=scheme, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", WEIGHTS)
@pytest.mark.parametrize("name", SPECS)
def test_half_of_every_family(name: str, scheme: str):
    model = model_of(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    facts = set_to_zero(model, rows_of(3), asked(scheme))
    pruned = {f"{key}.weight" for key in linears(model)}
    for key, value in model.named_parameters():
        if key not in pruned:
            assert torch.equal(value, before[key]), key  # tables, norms, biases, outputs
            continue
        zeros = value == 0
        assert zeros.float().mean() == 0.5
        if scheme == "wanda":
            assert (zeros.float().mean(1) == 0.5).all()  # of every row
        if scheme != "sparsegpt":
            assert torch.equal(value[~zeros], before[key][~zeros])
        if scheme == "magnitude":
            assert before[key][zeros].abs().max() <= before[key][~zeros].abs().min()
    total = sum(before[key].numel() for key in pruned)
    assert facts["sparsity"] == facts["sparsest"] == 0.5 and facts["zeros"] == total // 2


@pytest.mark.parametrize("scheme", WEIGHTS)
def test_patterns(scheme: str):
    model = model_of("gpt2")
    facts = set_to_zero(model, rows_of(3), asked(scheme, pattern="1:4", ratio=0.1))
    for linear in linears(model).values():
        assert ((linear.weight.unflatten(1, (-1, 4)) != 0).sum(-1) == 1).all()
    assert facts["sparsity"] == 0.75


def test_magnitude_across_the_model():
    model = model_of("llama")
    model.decoder.blocks[1].attention.out.weight.data *= 0.1
    flat = torch.cat([linear.weight.detach().abs().flatten() for linear in linears(model).values()])
    threshold = flat.sort().values[round(0.3 * len(flat)) - 1]
    wanted = {name: linear.weight.detach().abs() > threshold for name, linear in linears(model).items()}
    facts = set_to_zero(model, [], asked("magnitude", across="model", ratio=0.3))
    for name, linear in linears(model).items():
        assert torch.equal(linear.weight != 0, wanted[name])
    assert facts["sparsest_layer"] == "decoder.blocks.1.attention.out" and facts["sparsest"] > 0.9
    assert facts["sparsity"] == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_wanda_sees_what_pruned_layers_give(name: str):
    """Layer by layer over whole passes of the model, each row of each matrix by a sort."""
    model, rows = model_of(name), rows_of(3)
    slow = copy.deepcopy(model)
    blocks = sorted({key.split(".attention")[0].split(".feedforward")[0].split(".cross")[0] for key in linears(slow)})
    with torch.no_grad():
        for block in sorted(blocks, key=lambda key: (key.startswith("decoder"), key)):
            inputs = everything(slow, rows)
            for key, linear in linears(slow).items():
                if key.startswith(block):
                    scores = linear.weight.abs() * inputs[key].norm(dim=0)
                    goes = scores.argsort(dim=1)[:, : scores.shape[1] // 2]
                    linear.weight.scatter_(1, goes, 0.0)
    set_to_zero(model, rows, asked())
    for key, linear in linears(model).items():
        assert torch.equal(linear.weight != 0, linears(slow)[key].weight != 0), key


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", WEIGHTS)
def test_a_ratio_that_empties_a_layer(scheme: str):
    with pytest.raises(ModelError, match=r"0.9999 leaves nothing of decoder.blocks.0.attention.qkv \(2048\)"):
        set_to_zero(model_of("llama"), rows_of(2), asked(scheme, ratio=0.9999))


def test_a_layer_that_the_others_empty():
    model = model_of("llama")
    model.decoder.blocks[1].attention.out.weight.data *= 1e-6
    with pytest.raises(ModelError, match="leaves nothing of decoder.blocks.1.attention.out"):
        set_to_zero(model, [], asked("magnitude", across="model"))


def test_a_pattern_that_does_not_divide():
    with pytest.raises(ModelError, match="has 32 inputs, which groups of 5"):
        set_to_zero(model_of("llama"), [], asked("magnitude", pattern="2:5"))


def test_a_pattern_for_heads():
    with pytest.raises(ConfigError, match="--pattern is for weights"):
        prune(model_of("llama"), None, asked("heads", pattern="2:4"))


@pytest.mark.parametrize("scheme", ["magnitude", "heads"])
def test_a_model_of_few_bits(scheme: str):
    made, _ = quantize(model_of("llama"), None, Rounding(scheme="int8", full=("feedforward",)), Calibration())
    with pytest.raises(ModelError, match="quantise it after"):
        prune(made, None, asked(scheme))


def test_a_model_with_adapters():
    model = model_of("llama")
    attach(model, Adapters(adapter=("lora",)), seed=0)
    with pytest.raises(ModelError, match="adapter"):
        prune(model, None, asked("magnitude"))


def test_a_model_without_linear_layers():
    model = model_of("llama")
    for block in model.decoder.blocks:
        for part, name in ((block.attention, "qkv"), (block.attention, "out"), (block.feedforward, "up"),
                           (block.feedforward, "down")):  # fmt: skip
            setattr(part, name, torch.nn.Identity())  # as a quantised layer: no linear one
    with pytest.raises(ModelError, match="quantise it after"):
        prune(model, None, asked("magnitude"))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, str]:
    """A tokenizer of at most V entries, and a file of text."""
    folder = tmp_path_factory.mktemp("words")
    texts = [f"the {a} sees the {b} ." for a in ("cat", "dog", "cow", "hen") for b in ("hat", "cup", "sea")]
    file = folder / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return train_bpe(texts, 280), str(file)


def test_calibration_is_recorded(words: tuple[Tokenizer, str]):
    tokenizer, file = words
    model = model_of("llama", vocabulary=tokenizer.size)
    text = Calibration(text=(file,), rows=4, length=12)
    made, facts = prune(model, tokenizer, asked(calibration=text))
    assert facts["calibration"]["rows"] == 4 and facts["calibration"]["tokens"] == 48
    assert all((linear.weight == 0).any() for linear in linears(made).values())
    assert not any((linear.weight == 0).any() for linear in linears(model).values())  # a copy was pruned
    own, facts = prune(model, tokenizer, asked("heads", calibration=Calibration(rows=2, length=8)))
    assert facts["calibration"]["from"] == "itself" and own.spec.heads == 2
    assert "calibration" not in prune(model, tokenizer, asked("magnitude"))[1]


def test_calibration_text_that_is_short_or_missing(words: tuple[Tokenizer, str]):
    tokenizer, file = words
    model = model_of("llama", vocabulary=tokenizer.size)
    with pytest.raises(DataError, match="100"):
        prune(model, tokenizer, asked(calibration=Calibration(text=(file,), rows=100, length=16)))
    encoder = model_of("bert", vocabulary=tokenizer.size)
    with pytest.raises(ConfigError, match="--text"):
        prune(encoder, tokenizer, asked("sparsegpt"))
    with pytest.raises(ModelError, match="--by size"):  # nothing to hide a token with
        prune(encoder, tokenizer, asked("heads", calibration=dataclasses.replace(Calibration(), text=(file,), rows=2,
                                                                                 length=8)))  # fmt: skip
