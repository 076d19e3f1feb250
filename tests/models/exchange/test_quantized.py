"""Models of few bits in folders and files: the same bit for bit when read again, and never a different model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from amauta.base.errors import ModelError
from amauta.compress.rounding import Form, encode, grid, layer_of
from amauta.models import exchange
from amauta.models.exchange.gguf import load as load_gguf
from amauta.models.exchange.gguf import write as gguf_write
from amauta.models.quantized import bytes_of, few_bits, in_full, put_in
from amauta.models.reshape import reshaped, with_head
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn.quantized import Quantized
from tests.compress.small import SPECS, V, model_of

FORMS = (
    Form("int4", 32), Form("int4", 32, affine=True), Form("nf4", 32), Form("nf4", 32, double=True), Form("int8"),
    Form("int8", tensor=True), Form("int8", 32, affine=True),
)  # fmt: skip


def quantised(model: Transformer, *forms: Form) -> Transformer:
    """The model with every linear layer and table in one of the forms, in turn."""
    layers: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) or name in ("embedding", "outputs.language.table"):
            form = forms[len(layers) % len(forms)]
            if part.in_features % 32 if isinstance(part, nn.Linear) else part.weight.shape[1] % 32:  # type: ignore[union-attr]
                form = Form("int8")
            held = grid(part.weight.detach(), form)  # type: ignore[arg-type, operator]
            layers[name] = layer_of(part, encode(part.weight.detach(), held, form), held, form)  # type: ignore[arg-type, operator]
    put_in(model, layers)
    return model


def said(model: Transformer) -> torch.Tensor:
    ids = torch.randint(3, V, (2, 16), generator=torch.Generator().manual_seed(5))
    both: dict[str, Any] = {"decoder_ids": ids} if model.spec.kind == "encoder-decoder" else {}
    hidden = model(ids, **both)
    return model.logits(hidden) if model.spec.outputs else model.sentence(hidden)


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_every_family_there_and_back(name: str, tmp_path: Path):
    """Bit for bit: tensors, spec, and what is computed; written again, the same bytes."""
    model = quantised(model_of(name, feedforward=64), *FORMS)
    exchange.save(model, tmp_path / "one")
    again = exchange.load(tmp_path / "one")
    mine, theirs = model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key
    assert again.spec == model.spec and again.spec.family == model.spec.family
    assert exchange.spec_in(tmp_path / "one") == model.spec
    assert exchange.read_spec(exchange.read_config(tmp_path / "one")) == model.spec
    assert torch.equal(said(again), said(model))
    exchange.save(again, tmp_path / "two")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@torch.no_grad()
def test_shared_weights_stay_shared():
    model = quantised(model_of("shared", feedforward=64), Form("int8"))
    assert model.encoder is not None and model.decoder is not None
    assert model.encoder.blocks[0].attention is model.decoder.blocks[0].attention
    assert isinstance(model.encoder.blocks[0].attention.qkv, Quantized)


@torch.no_grad()
def test_in_full_is_the_same_model(tmp_path: Path):
    model = quantised(model_of("llama", feedforward=64), Form("int4", 32, affine=True))
    plain = in_full(model)
    assert not few_bits(plain) and len(few_bits(model)) == 13
    torch.testing.assert_close(said(plain), said(model), rtol=1e-5, atol=1e-5)
    exchange.save(plain, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
    torch.testing.assert_close(said(exchange.load(tmp_path)), said(model), rtol=1e-5, atol=1e-5)
    other = model_of("llama")
    copy = in_full(other)
    copy.embedding.weight.zero_()
    assert float(other.embedding.weight.abs().sum()) > 0  # a copy in any case


def test_bytes_of_a_model():
    model = quantised(model_of("llama", feedforward=64), Form("int4", 32))
    linear = sum(
        part.weight.numel() for part in model_of("llama", feedforward=64).modules() if isinstance(part, nn.Linear)
    )
    norms = sum(value.numel() for value in model.parameters())
    assert bytes_of(model) == (linear + V * 32) * 4 // 8 + (linear + V * 32) // 32 * 2 + norms * 4


@torch.no_grad()
def test_numbers_in_bf16(tmp_path: Path):
    model = quantised(model_of("llama", feedforward=64), Form("int4", 32))
    exchange.save(model, tmp_path)
    half = exchange.load(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and said(half).dtype == torch.bfloat16
    assert {layer.scales.dtype for layer in few_bits(half).values()} == {torch.float16}
    difference = said(half).float() - said(model)
    assert float(difference.norm() / said(model).norm()) < 0.05


def test_nothing_to_pack_for_an_optimiser():
    """Rows of layers of few bits are no parameters, and asking keeps no weight in full."""
    plain = model_of("llama", feedforward=64)
    assert len(plain.packed_rows()) == 6
    assert quantised(plain, Form("int4", 32)).packed_rows() == {}


def test_another_library_is_refused(tmp_path: Path):
    exchange.save(model_of("llama"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    for work in (exchange.load, exchange.spec_in):
        with pytest.raises(ModelError) as error:
            work(tmp_path)
        assert error.value.key == "compress.other-method" and "bitsandbytes" in str(error.value)


@pytest.mark.parametrize("change", ["kind", "missing", "shape", "layer", "field"])
def test_a_folder_that_is_not_what_it_says(change: str, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    exchange.save(quantised(model_of("llama", feedforward=64), Form("int4", 32)), tmp_path)
    config, tensors = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors")
    layers, name = config["quantization_config"]["layers"], "decoder.blocks.0.attention.qkv"
    if change == "kind":
        layers[name] = "int8"
    elif change == "layer":
        layers["decoder.blocks.0.attention.qvk"] = layers.pop(name)
    elif change == "field":
        layers[name] = {"kind": "int4", "inptus": 8}
    elif change == "missing":
        del tensors[f"{name}.codes"]
    else:
        tensors[f"{name}.codes"] = tensors[f"{name}.codes"][:, :-16].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        exchange.load(tmp_path)
    assert error.value.key == "compress.damaged" and "attention" in str(error.value)


@pytest.mark.parametrize(("kind", "form", "group"), [("q8_0", Form("int8"), 96), ("q4_0", Form("int4", 64), 64)])
@torch.no_grad()
def test_gguf_bit_for_bit(kind: Any, form: Form, group: int, tmp_path: Path):
    """Codes that a second rounding would change: they stand in the file as they were, q and k turned."""
    sizes: dict[str, Any] = {"width": 64, "heads": 4, "feedforward": 128, "tied": False}
    model = dataclasses.replace(SPECS["llama"], **sizes)
    made = quantised(Transformer.create(model, 3).eval(), form)
    for layer in few_bits(made).values():  # no group reaches its end any more
        layer.codes.bitwise_and_(0b1011_1011)
    figures = gguf_write.write(made, None, tmp_path / "m.gguf", type=kind, tolerance=1e-3)
    back = load_gguf(tmp_path / "m.gguf")
    plain = dict(in_full(made).named_parameters())
    for name, value in back.named_parameters():
        if name == "outputs.language.table.weight" and kind == "q4_0":
            continue  # more bits there, by llama.cpp's rule
        assert torch.equal(value, plain[name]), name
    assert figures["kl"] < 1e-3


@torch.no_grad()
def test_gguf_of_what_it_has_no_words_for(tmp_path: Path):
    """Affine groups go through their weights in full, and the comparison says what that cost."""
    made = quantised(Transformer.create(Spec(vocabulary=V, width=64, layers=1, heads=4, feedforward=96), 0).eval(),
                     Form("int4", 32, affine=True))  # fmt: skip
    figures = gguf_write.write(made, None, tmp_path / "m.gguf", type="q8_0")
    assert 0 < figures["kl"] < 2e-2
    wanted, back = in_full(made), load_gguf(tmp_path / "m.gguf")
    torch.testing.assert_close(said(back), said(wanted), rtol=0.05, atol=0.05)


@torch.no_grad()
def test_another_head_keeps_the_bits():
    """QLoRA of a classifier: the layers stay as they are; a table with new entries is held in full."""
    model = quantised(model_of("llama", feedforward=64), Form("int4", 32))
    made = reshaped(model, with_head(model.spec, ("classifier",), labels=3), seed=0)
    assert set(few_bits(made)) == set(few_bits(model))
    ids = torch.randint(3, V, (1, 9))
    assert torch.equal(made(ids), model(ids))
    grown = reshaped(model, dataclasses.replace(model.spec, vocabulary=V + 4), seed=0, fresh=4)
    assert set(few_bits(model)) - set(few_bits(grown)) == {"embedding"}
    assert torch.equal(grown.embedding.weight[:V], model.embedding.weight)
    assert torch.equal(grown(ids), model(ids))
    room = reshaped(model, model.spec, seed=0, fresh=4)  # the old table had room for the new entries
    assert set(few_bits(model)) - set(few_bits(room)) == {"embedding"}
    assert torch.equal(room.embedding.weight[:-4], model.embedding.weight[:-4])
    assert not torch.equal(room.embedding.weight[-4:], model.embedding.weight[-4:])


@torch.no_grad()
def test_rounded_inputs_are_kept(tmp_path: Path):
    """What becomes of a layer's inputs is said in config.json, and holds when it is read again."""
    for at, threshold in enumerate((6.0, float("inf"))):
        model = model_of("llama")
        form, name = Form("int8"), "decoder.blocks.1.feedforward.down"
        part = model.get_submodule(name)
        held = grid(part.weight, form)  # type: ignore[arg-type]
        codes = encode(part.weight, held, form)  # type: ignore[arg-type]
        put_in(model, {name: layer_of(part, codes, held, form, inputs=8, threshold=threshold)})
        exchange.save(model, tmp_path / str(at))
        again = few_bits(exchange.load(tmp_path / str(at)))[name]
        assert (again.inputs, again.threshold) == (8, threshold)
