"""Named sizes: every published one, built without memory, has exactly its published number of parameters."""

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models.count import gopher_parameters, parameters
from amauta.models.sizes import NAMED, complete, named, shape_named
from amauta.models.spec import Shape, Spec
from amauta.models.transformer import Transformer

OURS = ("demo", "mini", "nano", "small")  # their vocabulary comes from a tokenizer
PUBLISHED = {
    "openai-gpt": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-small": 125_226_240,
    "gpt3-medium": 355_871_744,
    "gpt3-large": 760_300_032,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3-175b": 174_604_259_328,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "tinyllama": 1_100_048_384,
    "smollm2-135m": 134_515_008,
    "mistral-7b": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
    "gemma3-270m": 268_098_176,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "distilbert": 66_362_880,
    "minilm-l6": 22_713_216,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "albert-base": 11_683_584,
    "albert-large": 17_683_968,
    "albert-xlarge": 58_724_864,
    "albert-xxlarge": 222_595_584,
    "electra-small": 13_549_057,
    "electra-base": 109_483_009,
    "electra-large": 335_142_913,
    "electra-base-generator": 33_740_602,
    "electra-large-generator": 51_295_290,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5.1.1-small": 76_961_152,
    "t5.1.1-base": 247_577_856,
    "t5.1.1-large": 783_150_080,
    "t5.1.1-xl": 2_849_757_184,
    "t5.1.1-xxl": 11_135_332_352,
    "bart-base": 139_420_416,
    "bart-large": 406_291_456,
}


def built(spec: Spec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(spec).parameters())


def test_every_size_is_listed_here():
    assert PUBLISHED.keys() | OURS == NAMED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_size_has_its_parameters(name: str):
    spec = named(name)
    assert parameters(spec) == PUBLISHED[name]
    assert built(spec) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "count"), [("bert-base", 110_106_428), ("bert-large", 336_226_108)])
def test_bert_with_the_heads_that_it_was_trained_with(name: str, count: int):
    spec = named(name, outputs=("masked", "pair"))
    assert parameters(spec) == built(spec) == count


@pytest.mark.parametrize("name", OURS)
def test_our_own_sizes_take_any_vocabulary(name: str):
    spec = named(name, vocabulary=2048)
    assert parameters(spec) == built(spec)
    with pytest.raises(ModelError, match="--vocabulary"):
        named(name)


def test_chinchilla_and_gopher_by_their_formula():
    assert gopher_parameters(80, 8192, 32_000) == 70_055_362_560
    assert gopher_parameters(80, 16_384, 32_000) == 279_697_162_240


def test_unknown_size_names_the_nearest():
    with pytest.raises(ModelError, match="gpt2-medium"):
        named("gpt2-medum")


def test_what_pretraining_takes_is_a_whole_shape():
    for name in ("gpt2", "openai-gpt", "llama-2-70b", "demo"):
        table = shape_named(name)
        assert "vocabulary" not in table
        changes = {"vocabulary": 50} if name in OURS else {}
        assert complete(Shape(**table), 50) == named(name, **changes | {"vocabulary": 50})


@pytest.mark.parametrize(("name", "field"), [("bert-base", "kind"), ("mistral-7b", "window"), ("t5-small", "kind")])
def test_a_size_beyond_a_shape_is_refused_for_pretraining(name: str, field: str):
    with pytest.raises(ModelError, match=f"'{name}' cannot be trained here yet.*{field}.*gpt2-xl"):
        shape_named(name)


@pytest.mark.parametrize(
    ("width", "heads", "near"), [(1024, 12, "8, 16"), (768, 7, "6, 8"), (10, 11, "10"), (7, 3, "1, 7")]
)
def test_heads_that_do_not_divide_name_the_nearest_that_do(width: int, heads: int, near: str):
    with pytest.raises(ModelError, match=rf"{width}/{heads} is not whole.*\(the nearest: {near}\)"):
        Shape(width=width, heads=heads, positions="learned")
