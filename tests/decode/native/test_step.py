"""The step in C++ against the model that it stands for, and against itself in other company."""

import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.adapt.settings import Adapters
from amauta.decode.feed import feed_for
from amauta.decode.native import build
from amauta.decode.native.step import native_step, why_not
from amauta.models.adapters import as_plain, attach
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.nn import attention

pytestmark = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")

PLAIN = {"vocabulary": 37, "context": 40, "width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "init_std": 0.3}
MANNERS = {
    "llama": {},
    "no whole chunks": {"width": 36, "heads": 3, "kv_heads": 3, "feedforward": 50},
    "one query head a key": {"kv_heads": 4},
    "qwen3": {"qk_norm": True, "head_width": 24},
    "qwen2": {"qkv_bias": True},
    "gpt2": {"norm": "layer", "positions": "learned", "gated": False, "activation": "gelu_tanh", "bias": True},
    "opt": {"norm": "layer", "positions": "learned", "gated": False, "activation": "relu", "bias": True, "tied": False},
    "window": {"window": 3},
    "gemma3": {"norm_place": "both", "window": 4, "full_every": 2, "local_theta": 100.0, "activation": "gelu_tanh",
               "embedding_scale": 8.0, "qk_norm": True, "layers": 4},
    "shared layers": {"layers": 4, "distinct_layers": 2},
    "exact gelu": {"activation": "gelu"},
}  # fmt: skip


def made(manner="llama", dtype=torch.float32, seed=1):
    model = Transformer.create(Spec(**PLAIN | MANNERS[manner]), seed).eval()
    with torch.no_grad():  # norms and biases that do something
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    return model.to(dtype)


def ids_of(model, count, seed=0):
    return torch.randint(model.spec.vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def read(model, ids, step=None):
    """(T, V): the logits after each token, by the step (one pass) or by torch."""
    if step is None:
        return model.logits(model(torch.tensor([ids])))[0].float()
    return step(model.new_cache(1, len(ids)), ids, [0] * len(ids), range(len(ids)), range(len(ids)))


@pytest.mark.parametrize("manner", MANNERS)
def test_it_computes_what_the_model_computes(manner):
    model = made(manner)
    assert why_not(model) is None
    ids = ids_of(model, 11)
    wanted = read(model, ids)
    assert torch.allclose(read(model, ids, native_step(model)), wanted, atol=2e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("manner", ["llama", "gpt2", "gemma3", "no whole chunks"])
def test_in_bf16_it_is_as_near_to_the_exact_result_as_torch(manner):
    half = made(manner, torch.bfloat16)
    ids = ids_of(half, 11)
    exact = read(made(manner, torch.bfloat16).float(), ids)  # the same rounded weights, computed in f32
    by_torch, by_step = ((x - exact).norm() for x in (read(half, ids), read(half, ids, native_step(half))))
    assert by_step <= 1.5 * by_torch < 0.1 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_token_gets_in_any_company_the_same_bits(dtype, data):
    model = made("llama", dtype)
    step = native_step(model)
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=11))
    rows = [ids_of(model, length, seed) for seed, length in enumerate(lengths)]
    alone = [read(model, row, step) for row in rows]
    cache, places, found = model.new_cache(len(rows), 12), [0] * len(rows), [[] for _ in rows]
    while any(place < len(row) for place, row in zip(places, rows, strict=True)):
        open_rows = [i for i, row in enumerate(rows) if places[i] < len(row)]
        chosen = data.draw(st.lists(st.sampled_from(open_rows), min_size=1, unique=True))
        counts = [data.draw(st.integers(1, len(rows[i]) - places[i])) for i in chosen]
        fed = [
            (rows[i][places[i] + k], i, places[i] + k) for i, n in zip(chosen, counts, strict=True) for k in range(n)
        ]
        logits = step(cache, *zip(*fed, strict=True), range(len(fed)))
        for i, part in zip(chosen, logits.split(counts), strict=True):
            found[i].append(part)
            places[i] += len(part)
    for parts, wanted in zip(found, alone, strict=True):
        assert torch.equal(torch.cat(parts), wanted)


def test_the_number_of_threads_changes_no_bit():
    model = made()
    step, ids = native_step(model), ids_of(made(), 9)
    one = read(model, ids, step)
    torch.set_num_threads(3)
    three = read(model, ids, step)
    torch.set_num_threads(1)
    assert torch.equal(one, three)


def test_only_the_wanted_logits_are_given_in_the_order_asked():
    model = made()
    step, ids = native_step(model), ids_of(made(), 6)
    all_of_them = read(model, ids, step)
    some = step(model.new_cache(1, 6), ids, [0] * 6, range(6), [5, 2])
    assert torch.equal(some, all_of_them[[5, 2]])


def test_what_it_cannot_compute_is_left_to_torch():
    encoder = Transformer.create(Spec(**PLAIN, kind="encoder"), 0)
    assert why_not(encoder) == "not a decoder"
    relative = Spec(**PLAIN | {"positions": "relative", "kv_heads": 4})
    assert why_not(Transformer.create(relative, 0)) == "relative positions"
    assert "float64" in why_not(made(dtype=torch.float64))
    turned = made()
    turned.decoder.blocks[0].attention.out.weight.data = torch.eye(64).mul(2.0).T[:, torch.arange(64)].T
    assert why_not(turned) == "weights in another order"

    class Mine(torch.nn.Linear):
        pass

    another = made()
    another.decoder.blocks[1].feedforward.down = Mine(another.spec.inner, 64, bias=False)
    assert why_not(another) == "a layer of another's"
    heard = made()
    heard.decoder.blocks[0].register_forward_hook(lambda *_: None)
    assert why_not(heard) == "hooks on its layers"


def test_a_changed_equation_holds(monkeypatch):
    before = attention.attend
    monkeypatch.setattr(attention, "attend", lambda q, *rest: before(2 * q, *rest))
    assert why_not(made()) == "another result than its own forward"
    patched = made("gpt2")
    patched.logits = lambda hidden: torch.zeros(*hidden.shape[:-1], 37)
    assert why_not(patched) == "another result than its own forward"
    feed = feed_for(patched, 1, 8)
    with torch.inference_mode():
        assert feed.start([[1, 2, 3]]).abs().sum() == 0


def test_without_a_compiler_torch_computes(monkeypatch, tmp_path):
    monkeypatch.setenv("AMAUTA_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "compiler", lambda: None)
    assert build.library.__wrapped__() is None

    def fails(*_, **__):
        raise subprocess.CalledProcessError(1, "c++")

    monkeypatch.setattr(build, "compiler", lambda: "c++")
    monkeypatch.setattr(build.subprocess, "run", fails)
    assert build.library.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))


def test_adapters_are_left_to_torch_until_they_stand_in_the_weights():
    model = made()
    attach(model, Adapters(adapter=("lora",), adapter_rank=3), seed=5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".b"):
                weight.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    ids = ids_of(model, 7)
    wanted = read(model, ids)
    assert why_not(model) == "adapters that are not merged"
    with as_plain(model):
        assert why_not(model) is None
        assert torch.allclose(read(model, ids, native_step(model)), wanted, atol=1e-4 * wanted.abs().max().item())
    assert why_not(model) == "adapters that are not merged"
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_what_cannot_stand_in_the_weights_stays_where_it_is():
    model = made()
    attach(model, Adapters(adapter=("houlsby",), adapter_width=4), seed=5)
    with as_plain(model):
        assert why_not(model) == "adapters that are not merged"
