"""Quantisation-aware training: torch's own fake quantisation, and a run whose model is what it was trained as."""

import copy

import pytest
import torch
from torch import nn

from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.compress.rounding import Form, rounded
from amauta.models import exchange
from amauta.models.adapters import attach
from amauta.models.quantized import few_bits, in_full
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn.linear import Linear
from amauta.runs import Run
from amauta.train.aware import Aware, as_kept, fake_rounded, keep_aware, make_aware
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.sft import sft
from tests.train.conftest import Tiny

SPEC = Spec(vocabulary=50, context=16, width=32, layers=2, heads=2)


def test_as_torch_rounds_and_masks():
    """torch.ao's FakeQuantize with a fixed grid: numbers and gradients, inside and outside."""
    x = torch.linspace(-3, 3, 301, requires_grad=True)
    slope = torch.randn(301, generator=torch.Generator().manual_seed(0))
    for scale, zero, least, most in ((0.1, 8, 0, 15), (0.02, 128, 1, 255), (0.3, 3, 0, 15)):
        wanted = torch.fake_quantize_per_tensor_affine(x, scale, zero, least, most)
        (theirs,) = torch.autograd.grad(wanted, x, slope)
        found = fake_rounded(x, torch.tensor(scale), zero, least, most)
        (ours,) = torch.autograd.grad(found, x, slope)
        torch.testing.assert_close(found, wanted)
        assert torch.equal(ours, theirs) and 0 < int((ours == 0).sum()) < 301


@pytest.mark.parametrize("form", [Form("int8"), Form("int4", 32), Form("int4", 32, affine=True)], ids=str)
def test_weights_as_they_are_kept(form: Form):
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = as_kept(weight, form)
    assert torch.equal(found, rounded(weight.detach(), form))
    slope = torch.randn_like(weight)
    found.backward(slope)
    assert weight.grad is not None
    same = weight.grad == slope
    if form.kind == "int8" or form.affine:
        assert bool(same.all())  # the grid ends where the weights do
    else:  # its shorter end lies a step nearer
        step = weight.detach().view(6, 2, 32).abs().amax(-1).repeat_interleave(32, 1) / 8
        beyond = weight.detach().abs() > 7.51 * step
        assert torch.equal(weight.grad[~same], torch.zeros_like(weight.grad[~same]))
        assert bool(beyond[~same].all()) and int((~same).sum()) > 0


def test_the_layer_is_what_it_stands_for():
    linear = Linear(32, 5)
    nn.init.normal_(linear.weight), nn.init.normal_(linear.bias)
    layer = Aware(linear, Form("int4", 32))
    assert layer.weight is linear.weight and layer.bias is linear.bias
    assert list(layer.state_dict()) == list(linear.state_dict())
    x = torch.randn(3, 32)
    torch.testing.assert_close(layer(x), x @ rounded(linear.weight, Form("int4", 32)).T + linear.bias)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@torch.no_grad()
def test_kept_as_it_computed():
    model = Transformer.create(SPEC, 0)
    names = [name for name, _ in model.named_parameters()]
    for value in model.parameters():
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    plain, ids = copy.deepcopy(model), torch.randint(0, 50, (2, 9))
    model.get_parameter("decoder.blocks.0.attention.out.weight").requires_grad_(False)
    make_aware(model, "int4")
    make_aware(model, "int4")  # a second time changes nothing
    assert [name for name, _ in model.named_parameters()] == names
    assert sum(isinstance(part, Aware) for part in model.modules()) == 7  # what is frozen stays as it is
    before = model(ids)
    assert not torch.allclose(before, plain(ids), atol=1e-3)
    assert keep_aware(model) == {"qat": "int4", "layers": 7}
    assert len(few_bits(model)) == 7 and torch.allclose(model(ids), before, atol=1e-5)
    assert keep_aware(plain) == {}
    make_aware(plain, None)
    assert not any(isinstance(part, Aware) for part in plain.modules())


def test_not_with_adapters():
    model = Transformer.create(SPEC, 0)
    attach(model, Adapters(adapter=("lora",)), seed=0)
    with pytest.raises(ModelError) as error:
        make_aware(model, "int8")
    assert error.value.key == "compress.has-adapters"


def test_a_run(tiny: Tiny):
    """Trained in 4 bits and kept so; every step can be replayed, and the run repeated."""
    few = pretrain(tiny.pretrain("few", loop={"steps": 60, "qat": "int4"}, heldout=[str(tiny.folder / "text.jsonl")]))
    assert few["qat"] == "int4" and few["layers"] == 8
    model = exchange.load(Run(tiny.folder / "few").model)
    assert {layer.kind for layer in few_bits(model).values()} == {"int4"} and len(few_bits(model)) == 8
    for step in (1, 55):
        found = replay(Replay(tiny.folder / "few", step))
        assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)
    again = pretrain(tiny.pretrain("again", loop={"steps": 60, "qat": "int4"},
                                   heldout=[str(tiny.folder / "text.jsonl")]))  # fmt: skip
    assert again["loss"] == few["loss"]


def test_a_model_of_few_bits_is_trained_no_further_so(tiny: Tiny):
    pretrain(tiny.pretrain("base", loop={"steps": 2, "qat": "int8"}))
    with pytest.raises(ModelError) as error:
        sft(tiny.sft("chat", loop={"steps": 2, "qat": "int8"}))
    assert error.value.key == "train.few-bits"
    model = exchange.load(Run(tiny.folder / "base").model)
    assert in_full(model).spec == model.spec
