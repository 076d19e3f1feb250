"""How many numbers adapters train, against what was published and what follows from the formulas by hand."""

import pytest

from amauta.adapt.settings import Adapters
from amauta.base.errors import ConfigError
from amauta.models.adapters import attach, counts
from amauta.models.adapters.places import places, targeted
from amauta.models.spec import Spec
from tests.models.adapters.toys import model_of

GPT2 = {"positions": "learned", "norm": "layer", "gated": False, "bias": True, "activation": "gelu_tanh"}
BERT = {"kind": "encoder", "positions": "learned", "norm": "layer", "norm_place": "post", "activation": "gelu",
        "gated": False, "bias": True, "segments": 2, "embedding_norm": True, "outputs": ("masked",)}  # fmt: skip
SPECS = {
    "gpt3": Spec(vocabulary=50257, context=2048, width=12288, layers=96, heads=96, **GPT2),
    "gpt2": Spec(vocabulary=50257, context=1024, width=768, layers=12, heads=12, **GPT2),
    "bert-base": Spec(vocabulary=30522, context=512, width=768, layers=12, heads=12, feedforward=3072, **BERT),
    "bert-large": Spec(vocabulary=30522, context=512, width=1024, layers=24, heads=16, feedforward=4096, **BERT),
    "llama-2-7b": Spec(vocabulary=32000, context=4096, width=4096, layers=32, heads=32, feedforward=11008),
}
D, L = 12288, 96


def of(*kinds: str, **settings: object) -> Adapters:
    return Adapters(adapter=kinds, **{f"adapter_{name}": value for name, value in settings.items()})  # type: ignore[arg-type]


PUBLISHED = [
    ("gpt3", of("lora", rank=1, targets=("q", "v")), 4_718_592),  # 4.7M (Hu et al. 2021, table 4)
    ("gpt3", of("lora", rank=2, targets=("v",)), 4_718_592),
    ("gpt3", of("lora", rank=8, targets=("q", "v")), 37_748_736),  # 37.7M
    ("gpt3", of("lora", rank=4, targets=("attention",)), 37_748_736),
    ("gpt3", of("lora", rank=2, targets=("q", "k", "v", "o")), 18_874_368),  # printed beside 37.7M; it is not
    ("gpt3", of("houlsby", width=1), 7_078_080),  # 7.1M
    ("gpt3", of("houlsby", width=8), 40_109_568),  # 40.1M
    ("gpt3", of("prompt", length=264), 3_244_032),  # 3.2M
    ("gpt3", of("prefix-layer", length=16), 18_874_368),  # printed: 20.2M, which no formula gives
    ("gpt3", of("bitfit"), 11 * D * L + D),  # printed: 14.2M; the last D is the final norm's
    ("bert-base", of("houlsby", width=64), 2_379_264),
    ("bert-large", of("houlsby", width=64), 6_343_680),
    ("bert-large", of("houlsby", width=256), 25_227_264),
    ("bert-base", of("pfeiffer", width=48), 894_528),
    ("bert-base", of("pfeiffer", reduction=16), 894_528),
    ("gpt2", of("lora", targets=("qkv",)), 294_912),  # its three matrices as the one that they are in its files
    ("llama-2-7b", of("lora", targets=("q", "v")), 4_194_304),
    ("llama-2-7b", of("dora", targets=("q", "v")), 4_194_304 + 32 * 2 * 4096),
    ("gpt2", of("ia3"), 55_296),
    ("gpt2", of("prompt", length=20), 15_360),
    ("gpt2", of("prefix", length=20), 368_640),
    ("gpt2", of("norms"), 2 * 768 * 25),
    ("gpt2", of("embeddings"), 50257 * 768 + 1024 * 768),
    ("bert-large", of("houlsby", "norms", width=64), 6_343_680 + 2 * 1024 * 49),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "wanted"), PUBLISHED, ids=str)
def test_counts(name: str, settings: Adapters, wanted: int):
    assert counts(SPECS[name], settings) == wanted


def test_shares_of_the_paper():
    """Houlsby et al. 2019: 2.1 % of BERT-large for each task at m = 64 and its norms, 1.3 models for nine tasks."""
    from amauta.models.count import parameters

    whole = parameters(SPECS["bert-large"])
    assert counts(SPECS["bert-large"], of("houlsby", width=64)) / whole == pytest.approx(0.0189, abs=2e-4)
    assert counts(SPECS["bert-large"], of("houlsby", "norms", width=64)) / whole == pytest.approx(0.0192, abs=2e-4)


def rows_of(family: str, *targets: str) -> dict[str, tuple[tuple[int, int], ...]]:
    return targeted(model_of(family), targets)


def test_targets():
    one = {f"decoder.blocks.{i}.attention.qkv": ((0, 32), (48, 64)) for i in (0, 1)}
    assert rows_of("llama", "q", "v") == one  # 4 heads and 2 of keys: rows 0-32 q, 32-48 k, 48-64 v
    assert rows_of("llama", "qkv") == {path: ((0, 64),) for path in one}
    assert rows_of("llama", "q", "qkv") == {path: ((0, 64),) for path in one}
    assert rows_of("llama", r"blocks\.1\.attention\.(q|k)$") == {"decoder.blocks.1.attention.qkv": ((0, 32), (32, 48))}
    assert rows_of("llama", r"blocks\.0\.attention") == {  # the parts where it fits both them and the whole
        "decoder.blocks.0.attention.qkv": ((0, 32), (32, 48), (48, 64)), "decoder.blocks.0.attention.out": ((0, 32),),
    }  # fmt: skip
    assert rows_of("llama", "attention.qkv") == {path: ((0, 64),) for path in one}
    layers = ("attention.qkv", "attention.out", "feedforward.up", "feedforward.down")
    assert list(rows_of("llama", "all")) == [f"decoder.blocks.{i}.{layer}" for i in (0, 1) for layer in layers]
    assert rows_of("llama", "gate")["decoder.blocks.0.feedforward.up"] == ((0, 96),)
    assert rows_of("llama", "up")["decoder.blocks.0.feedforward.up"] == ((96, 192),)
    assert rows_of("bert", "up")["encoder.blocks.0.feedforward.up"] == ((0, 128),)
    cross = rows_of("t5", "k", "v")
    assert cross["decoder.blocks.0.cross.kv"] == ((0, 32), (32, 64)) and len(cross) == 6
    assert rows_of("t5", "qkv")["decoder.blocks.1.cross.kv"] == ((0, 64),)
    assert len(rows_of("albert", "o")) == 1 and len(rows_of("t5-shared", "o")) == 4  # weights that are shared, once
    assert rows_of("bert", "pooler") == {"outputs.pooler": ((0, 32),)}
    assert rows_of("reformer", "v")["decoder.blocks.1.attention.qkv"] == ((32, 64),)  # the shared q, then v


@pytest.mark.parametrize("target", ["query", "gate", "blocks.9", "encoder"])
def test_a_target_that_matches_nothing_says_what_there_is(target: str):
    model = model_of("gpt1")
    with pytest.raises(ConfigError) as caught:
        attach(model, Adapters(adapter=("lora",), adapter_targets=("q", target)), seed=0)
    said = str(caught.value)
    assert f"'{target}'" in said and "q, k, v, qkv, o, up, down" in said and "decoder.blocks.0.attention.q" in said
    assert "decoder.blocks.1" not in said and not model.adapters
    with pytest.raises(ConfigError, match="no regular expression"):
        attach(model, Adapters(adapter=("lora",), adapter_targets=("q(",)), seed=0)


def test_places_of_an_adapted_model_are_those_of_the_plain_one():
    model = model_of("bart")
    before = places(model)
    attach(model, Adapters(adapter=("lora", "houlsby")), seed=0)
    assert places(model) == before


def test_every_layer_has_one_place_but_for_its_parts():
    found = places(model_of("bert"))
    outside = [place.path for place in found if not place.role]
    assert outside == ["outputs.pooler", "outputs.masked.dense", "outputs.pair"]
    first = [place for place in found if ".blocks.0." in place.path]
    block = [(place.path.removeprefix("encoder.blocks.0."), place.role, place.rows) for place in first]
    assert block == [
        ("attention.qkv", "q", (0, 32)), ("attention.qkv", "k", (32, 64)), ("attention.qkv", "v", (64, 96)),
        ("attention.qkv", "qkv", (0, 96)), ("attention.out", "o", (0, 32)), ("feedforward.up", "up", (0, 128)),
        ("feedforward.down", "down", (0, 32)),
    ]  # fmt: skip
