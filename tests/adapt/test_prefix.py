"""What stands ahead of a text: as if its words stood there, for every family, packed, cached, by rows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from amauta.adapt.around import Around
from amauta.adapt.prefix import Ahead, Detour, prefix_layers, prefix_table
from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.decode.generate import generate
from amauta.decode.native.step import native_step, why_not
from amauta.decode.settings import Sampling
from amauta.models import ahead
from amauta.models.adapters import counts
from amauta.models.ahead import put_ahead, take_ahead
from amauta.models.sizes import named
from amauta.models.spec import Reformer, Spec
from amauta.models.transformer import Transformer

P, T, V = 4, 9, 50  # documents of a batch are 4 too, so that copies cannot fall into place by luck
SMALL = Spec(vocabulary=V, context=32, width=32, layers=3, heads=4)
LEARNED = replace(SMALL, positions="learned", norm="layer", bias=True, gated=False)
BERT = replace(LEARNED, kind="encoder", norm_place="post", segments=2, outputs=("masked",), embedding_norm=True)
DECODERS = {
    "llama": replace(SMALL, kv_heads=2, qk_norm=True),
    "gpt2": LEARNED,
    "windows": replace(SMALL, window=4, full_every=3, local_theta=100.0, embedding_scale=5.0, norm_place="both"),
    "shared": replace(SMALL, layers=4, distinct_layers=2, embedding_width=16, tied=False),
}
ENCODERS = {"bert": BERT, "relative": replace(BERT, positions="relative", norm_place="pre")}
BOTH = {
    "t5": replace(SMALL, kind="encoder-decoder", positions="relative", attention_scale=1.0, decoder_layers=2),
    "bart": replace(LEARNED, kind="encoder-decoder", norm_place="post", position_offset=2),
}
KINDS = ("prompt", "prefix", "prefix-layer")
IDS = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))


def model_of(spec: Spec) -> Transformer:
    model = Transformer.create(spec, 1)
    with torch.no_grad():  # far from the first weights, which change little
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.15)
    return model.eval()


def put(
    model: Transformer, kind: str, length: int = P, *, seed: int = 3, name: str = "default", **more: object
) -> Tensor:
    """The words whose vectors the adapter begins with, (1, P)."""
    settings = Adapters(adapter=(kind,), adapter_length=length, **more)  # type: ignore[arg-type]
    put_ahead(model, kind, settings, name=name, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    return torch.randint(V, (1, length), generator=torch.Generator().manual_seed(seed))


def stir(model: Transformer) -> None:
    """Other vectors than those of words."""
    for one in ahead_of(model):
        one.table.data += torch.randn(one.table.shape, generator=torch.Generator().manual_seed(4))


def ahead_of(model: Transformer) -> list[Ahead]:
    return [part for part in model.modules() if isinstance(part, Ahead)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS)
def test_in_a_decoder_it_begins_as_words_before_the_text(name: str, kind: str):
    model = model_of(DECODERS[name])
    before = torch.randint(V, (1, P), generator=torch.Generator().manual_seed(3)).expand(2, -1)
    wanted = model(torch.cat([before, IDS], dim=1))[:, P:]
    put(model, kind)
    torch.testing.assert_close(model(IDS), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_prompt_of_an_encoder_is_read_with_the_text(name: str):
    model = model_of(ENCODERS[name])
    before = torch.randint(V, (1, P), generator=torch.Generator().manual_seed(3)).expand(2, -1)
    real = torch.tensor([[True] * T, [True] * 6 + [False] * 3])
    both = torch.cat([before, IDS], dim=1)
    front = torch.ones(2, P, dtype=torch.bool)
    # a row's places begin at its first real token, and a prompt is real
    wanted = model(both, mask=torch.cat([front, real], dim=1))[:, P:], model(both)[:, P:]
    put(model, "prompt")
    torch.testing.assert_close(model(IDS, mask=real)[real], wanted[0][real])
    torch.testing.assert_close(model(IDS), wanted[1])


@pytest.mark.parametrize("name", BOTH)
def test_a_prompt_of_an_encoder_decoder_is_seen_by_the_decoder(name: str):
    model = model_of(BOTH[name])
    before = torch.randint(V, (1, P), generator=torch.Generator().manual_seed(3)).expand(2, -1)
    real = torch.tensor([[True] * T, [True] * 6 + [False] * 3])
    both, front = torch.cat([before, IDS], dim=1), torch.ones(2, P, dtype=torch.bool)
    wanted = [model(both, mask=mask, decoder_ids=IDS) for mask in (None, torch.cat([front, real], dim=1))]
    put(model, "prompt")
    torch.testing.assert_close(model(IDS, decoder_ids=IDS), wanted[0])
    torch.testing.assert_close(model(IDS, mask=real, decoder_ids=IDS), wanted[1])


@pytest.mark.parametrize("name", ENCODERS | BOTH)
def test_prefix_and_prefix_layer_are_one_function_before_training(name: str):
    given, spec = {}, (ENCODERS | BOTH)[name]
    for kind in ("prefix", "prefix-layer"):
        model = model_of(spec)
        put(model, kind)
        given[kind] = model(IDS, decoder_ids=IDS if name in BOTH else None)
        assert len(ahead_of(model)) == (2 if name in BOTH else 1)
    torch.testing.assert_close(given["prefix"], given["prefix-layer"], atol=2e-5, rtol=1e-4)
    assert (given["prefix"] - model_of(spec)(IDS, decoder_ids=IDS if name in BOTH else None)).abs().max() > 0.01


def test_keys_and_values_before_an_encoders_text_are_seen_by_definition():
    """By attention as it is defined: softmax over the prefix's keys and the text's own."""
    model = model_of(replace(BERT, layers=1))
    put(model, "prefix")
    stir(model)
    assert model.encoder is not None
    _, block = next(model.encoder.each())
    [one] = ahead_of(model)
    table = one.table.view(P, 2, 4, 8)
    x = model.embedding(IDS) + model.encoder.positions(torch.arange(T) + P) + model.encoder.segments.weight[0]  # type: ignore[misc, union-attr]
    x = model.encoder.embedding_norm(x)  # type: ignore[misc]
    q, k, v = (part.view(2, T, 4, 8) for part in block.attention.qkv(x).split(32, dim=-1))
    k, v = (torch.cat([table[:, i].expand(2, -1, -1, -1), part], dim=1) for i, part in enumerate((k, v)))
    weights = (torch.einsum("bthk,bshk->bhts", q, k) * 8**-0.5).softmax(-1)
    x = block.attention_norm(x + block.attention.out(torch.einsum("bhts,bshk->bthk", weights, v).flatten(2)))
    torch.testing.assert_close(model(IDS), block.feedforward_norm(x + block.feedforward(x)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS | ENCODERS)
def test_packed_documents_get_what_they_get_alone(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS)[name])
    put(model, kind)
    stir(model)
    documents = torch.tensor([[7] * 4 + [2] * 5, [1] * 6 + [3] * 3])
    places = torch.tensor([[*range(4), *range(5)], [*range(6), *range(3)]])
    rows = [(0, 0, 4), (0, 4, 9), (1, 0, 6), (1, 6, 9)]
    alone = [model(IDS[b : b + 1, i:j])[0] for b, i, j in rows]
    found = model(IDS, documents=documents, positions=places)
    torch.testing.assert_close(torch.cat([found[b, i:j] for b, i, j in rows]), torch.cat(alone), atol=1e-5, rtol=1e-4)
    mixed = torch.tensor([[0, 4, 1, 5, 2, 6, 3, 7, 8]]).expand(2, -1)  # documents in turns: no spans
    if name in ENCODERS:
        found = model(IDS.gather(1, mixed), documents=documents.gather(1, mixed), positions=places.gather(1, mixed))
        back = torch.zeros_like(found).scatter(1, mixed[..., None].expand_as(found), found)
        torch.testing.assert_close(
            torch.cat([back[b, i:j] for b, i, j in rows]), torch.cat(alone), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS)
def test_cached_equals_uncached(name: str, kind: str):
    model = model_of(DECODERS[name])
    put(model, kind)
    stir(model)
    cache, parts = model.new_cache(2, T), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        places = torch.arange(start, stop).expand(2, -1)
        parts.append(model(IDS[:, start:stop], positions=places, cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(IDS), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BOTH)
def test_an_encoder_decoder_writes_cached_as_uncached(name: str, kind: str):
    model = model_of(BOTH[name])
    put(model, kind)
    stir(model)
    settings = Sampling(max_tokens=6, temperature=0.0)
    sources = [IDS[0].tolist(), IDS[1, :5].tolist()]
    written = [
        [one.ids for one in generate(model, [[0], [0]], settings, sources=sources, cached=cached)]
        for cached in (True, False)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("kind", KINDS)
def test_generation_sees_it_and_the_compiled_step_stays_away(kind: str):
    model = model_of(DECODERS["llama"])
    settings, prompt = Sampling(max_tokens=8, temperature=0.0), IDS[0, :3].tolist()
    assert why_not(model) in (None, "no C++ compiler")
    words = put(model, kind)[0].tolist()
    assert native_step(model) is None and why_not(model) == "something ahead of the text"
    with_it = generate(model, [prompt], settings)[0].ids
    take_ahead(model, "default")
    assert with_it == generate(model, [[*words, *prompt]], settings)[0].ids
    assert model.spec == DECODERS["llama"] and why_not(model) in (None, "no C++ compiler")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS | ENCODERS | BOTH)
def test_rows_that_do_not_see_it_are_those_of_the_plain_model(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS | BOTH)[name])
    more = {"decoder_ids": IDS} if name in BOTH else {}
    plain = model(IDS, **more)
    put(model, kind)
    stir(model)
    shown = model(IDS, **more)
    for one in ahead_of(model):
        one.on = torch.tensor([0, 1])
    torch.testing.assert_close(model(IDS, **more), torch.stack([plain[0], shown[1]]), atol=1e-5, rtol=1e-4)
    for one in ahead_of(model):
        one.on = False
    assert torch.equal(model(IDS, **more), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS | ENCODERS)
def test_packed_rows_that_do_not_see_it(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS)[name])
    packed = {"documents": torch.tensor([[1] * 4 + [2] * 5] * 2),
              "positions": torch.tensor([[*range(4), *range(5)]] * 2)}  # fmt: skip
    plain = model(IDS, **packed)
    put(model, kind)
    stir(model)
    shown = model(IDS, **packed)
    for one in ahead_of(model):
        one.on = torch.tensor([0, 1])
    torch.testing.assert_close(model(IDS, **packed), torch.stack([plain[0], shown[1]]), atol=1e-5, rtol=1e-4)
    assert (plain - shown).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ("gpt2", "windows", "bert", "t5"))
def test_each_row_its_own_adapter(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS | BOTH)[name])
    more = {"decoder_ids": IDS} if name in BOTH else {}
    put(model, kind, name="a")
    put(model, "prefix" if kind == "prompt" else "prompt", 3, seed=8, name="b")
    stir(model)
    assert model.spec.limit in (None, 32 - P)

    def only(name: str, on: object) -> None:
        for one in ahead_of(model):
            one.on = on if one.name == name else not on if isinstance(on, bool) else 1 - on  # type: ignore[operator, assignment]

    only("a", True)
    first = model(IDS, **more)
    only("a", False)
    second = model(IDS, **more)
    only("a", torch.tensor([1, 0]))
    torch.testing.assert_close(model(IDS, **more), torch.stack([first[0], second[1]]), atol=1e-5, rtol=1e-4)
    take_ahead(model, "a")
    only("b", True)
    torch.testing.assert_close(model(IDS, **more), second, atol=1e-5, rtol=1e-4)
    assert model.spec.limit in (None, 32 - 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ("llama", "windows", "bert", "t5"))
def test_gradients_are_those_of_finite_differences(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS | BOTH)[name])
    put(model, kind, adapter_hidden=6 if kind == "prefix" else None)
    model = model.double().requires_grad_(False)
    weights = [weight for one in ahead_of(model) for weight in one.parameters()]
    documents = None if name == "t5" else torch.tensor([[1] * 4 + [2] * 5] * 2)
    places = torch.tensor([[*range(4), *range(5)]] * 2) if documents is not None else None
    more = {"decoder_ids": IDS} if name == "t5" else {"documents": documents, "positions": places}
    mixed = torch.randn(2, T, 32, generator=torch.Generator().manual_seed(6)).double()

    def loss() -> Tensor:
        return (model(IDS, **more) * mixed).sum()  # type: ignore[arg-type]

    for weight in weights:
        weight.requires_grad_(True)
    loss().backward()
    for weight in weights:
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)).double()
        step, values = 3e-4, []  # norms and rotary turns are in f32
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step * direction
                values.append(float(loss()))
                weight -= sign * step * direction
        assert weight.grad is not None
        slope = (values[0] - values[1]) / (2 * step)
        assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-2, abs=3e-3)


def test_a_prompt_is_computed_once_while_nothing_changes():
    model, calls = model_of(DECODERS["gpt2"]), []
    put(model, "prompt")
    [one] = ahead_of(model)
    written, ahead._written = ahead._written, lambda *given: calls.append(1) or written(*given)  # type: ignore[assignment]
    try:
        with torch.inference_mode():
            first, again = model(IDS), model(IDS)
            assert len(calls) == 1 and torch.equal(first, again)
        with torch.no_grad():
            model.decoder.blocks[1].feedforward.down.weight.mul_(1.5)  # type: ignore[union-attr]
            assert not torch.equal(model(IDS), first) and len(calls) == 2
            one.table.add_(1.0)
            model(IDS)
            assert len(calls) == 3
        model(IDS).sum().backward()  # with a gradient it is computed anew, and nothing is kept
        assert len(calls) == 4 and one.table.grad is not None and one.table.grad.abs().sum() > 0
    finally:
        ahead._written = written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ("llama", "bert", "t5"))
def test_what_layers_saw_is_told_of_the_text_with_the_keys_before_it(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS | BOTH)[name])
    put(model, kind)
    more = {"decoder_ids": IDS} if name in BOTH else {}
    hidden, seen = model(IDS, capture=("attention", "hidden", "heads"), **more)  # type: ignore[call-overload]
    torch.testing.assert_close(hidden, model(IDS, **more), atol=1e-5, rtol=1e-4)
    for stack, capture in seen.items():
        read = T + P if kind == "prompt" and name in BOTH and stack == "encoder" else T  # a decoder looks at them too
        keys = T if kind == "prompt" and name in BOTH and stack == "decoder" else T + P
        assert {one.shape for one in capture.attention} == {(2, 4, read, keys)}
        assert {one.shape[:2] for one in (*capture.hidden, *capture.heads)} == {(2, read)}
        torch.testing.assert_close(capture.attention[0].sum(-1), torch.ones(2, 4, read))
    last = seen["decoder" if "decoder" in seen else "encoder"].hidden[-1]
    torch.testing.assert_close(last, hidden)


class _Twice(Around):
    def changed(self, x: Tensor) -> Tensor:
        return self.where_on(2 * self.linear(x), self.linear(x))


@pytest.mark.parametrize("kind", ("prompt", "prefix-layer"))
def test_layers_that_differ_by_row_make_what_stands_ahead_by_row(kind: str):
    model = model_of(DECODERS["llama"])
    put(model, kind)
    block = model.decoder.blocks[0]  # type: ignore[union-attr]
    around = block.attention.qkv = _Twice(block.attention.qkv)
    with torch.no_grad():
        given = []
        for on in (False, True):
            around.on = on
            given.append(model(IDS))
        around.on = torch.tensor([0, 1])
        torch.testing.assert_close(model(IDS), torch.stack([given[0][0], given[1][1]]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given[0], given[1])


def test_what_a_detour_gives_is_all_that_is_kept():
    model = model_of(DECODERS["llama"]).train()
    put(model, "prefix")
    assert model.training  # as it was before
    first = model(IDS)
    other = model_of(DECODERS["llama"])
    put(other, "prefix", adapter_hidden=6)
    [one], [plain] = ahead_of(other), ahead_of(model)
    assert torch.equal(other(IDS), first)  # the two matrices begin at 0
    assert {name for name, _ in one.named_parameters()} == {
        f"detour.{name}" for name in ("places", "inner", "inner_bias", "outer", "outer_bias")
    }
    for weight in one.parameters():
        weight.data += 0.3
    plain.table.data.copy_(one.given())
    torch.testing.assert_close(model(IDS), other(IDS))
    assert (model(IDS) - first).abs().max() > 0.01


def test_a_detour_by_hand():
    detour = Detour(1, 2, 1, 2, torch.Generator().manual_seed(0))
    for name, value in {"places": [[1.0, 2.0]], "inner": [[0.5, 0.25]], "inner_bias": [-1.0], "outer": [[2.0], [3.0]],
                        "outer_bias": [1.0, 0.0]}.items():  # fmt: skip
        getattr(detour, name).data = torch.tensor(value)
    assert detour().tolist() == [[1.0, 0.0]]  # tanh(.5 + .5 - 1) = 0
    detour.inner_bias.data += 0.5
    torch.testing.assert_close(detour(), torch.tensor([[1 + 2 * 0.46211716, 3 * 0.46211716]]))


def test_a_prefix_in_the_order_that_it_is_stored_in():
    table = torch.arange(2 * 2 * 2 * 3 * 4.0).view(2, -1)  # P=2, L=2, G=3, K=4
    layers = prefix_layers(table, 2, 3)
    assert layers[1][0][0, 0].tolist() == [[24 + 4 * g + k for k in range(4)] for g in range(3)]  # keys of layer 1
    assert layers[1][1][0, 1, 2].tolist() == [48 + 24 + 12 + 8 + k for k in range(4)]  # values, place 1, head 2
    assert torch.equal(prefix_table(layers), table)


@pytest.mark.parametrize(
    ("kind", "name", "length", "wanted"),
    [
        ("prompt", "gpt2", 20, 20 * 768),  # 15,360
        ("prefix", "gpt2", 20, 2 * 12 * 20 * 768),  # 368,640
        ("prefix-layer", "gpt2", 20, 12 * 20 * 768),
        ("prompt", "gpt3-175b", 264, 3_244_032),
        ("prefix-layer", "gpt3-175b", 16, 18_874_368),
    ],
)
def test_published_counts(kind: str, name: str, length: int, wanted: int):
    """From a model without memory for its weights, and the same shapes in one that has it."""
    assert counts(named(name), Adapters(adapter=(kind,), adapter_length=length)) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DECODERS | ENCODERS | BOTH)
def test_counts_are_those_of_a_model_with_memory(name: str, kind: str):
    model = model_of((DECODERS | ENCODERS | BOTH)[name])
    put(model, kind)
    shapes = [one.table.shape for one in ahead_of(model)]
    with torch.device("meta"):
        bare = Transformer((DECODERS | ENCODERS | BOTH)[name])
    put(bare, kind)
    assert [one.table.shape for one in ahead_of(bare)] == shapes and ahead_of(model)[0].length == P


def test_refused():
    reformer = Reformer(layers=("local", "lsh"), chunk=4, local_chunk=4, buckets=2)
    sorted_anew = replace(LEARNED, layers=2, bias=False, tied=False, reformer=reformer)
    with pytest.raises(ModelError, match="Reformer"):
        put(Transformer.create(sorted_anew, 1), "prompt")
    model = model_of(SMALL)
    put(model, "prompt")
    with pytest.raises(ModelError, match="default already puts something before"):
        put(model, "prefix")
    with pytest.raises(ModelError, match="context is 32"):
        put(model, "prefix", 32, name="long")
    with pytest.raises(ModelError):  # what is left of the context is what a text may have
        generate(model, [[1] * (32 - P + 1)], Sampling(max_tokens=1))
