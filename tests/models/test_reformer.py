"""Reformer: what transformers computes from our folders and we from theirs, in f32 with the same rotations."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.count import parameters
from amauta.models.exchange import reformer as family
from amauta.models.spec import Reformer, Spec, spec_of
from amauta.models.transformer import Transformer

V = 23
OWN = Reformer(layers=("lsh", "local", "lsh"), chunk=4, local_chunk=8, hashes=2, buckets=8, hash_seed=3)
SPEC = Spec(
    vocabulary=V, context=96, width=16, layers=3, heads=2, head_width=6, feedforward=20, positions="learned",
    norm="layer", activation="relu", gated=False, bias=True, qkv_bias=False, tied=False, norm_eps=1e-12,
    output_bias=True, reformer=OWN,
)  # fmt: skip
AXIAL = {"axial_shape": (8, 12), "axial_widths": (4, 12)}
CASES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "axial": AXIAL,
    "lsh": {"layers": ("lsh",) * 2, "hashes": 3},
    "local": {"layers": ("local",) * 2, "local_before": 2},
    "factors": {"layers": ("lsh",) * 2, "buckets": (2, 4), "chunk_before": 2},
    "found": {"layers": ("lsh",) * 2, "buckets": None, "hashes": 1},
    "far": {"layers": ("lsh",) * 2, "chunk_before": 3, "hashes": 1},  # further than there are chunks
    "pieces": {"feedforward_chunk": 8},
    "other seed": {"hash_seed": 4},
}


def spec_with(kind: str = "decoder", **own: Any) -> Spec:
    reformer = replace(OWN, **own)
    return replace(SPEC, kind=kind, layers=len(reformer.layers), reformer=reformer)


def disturbed(model: torch.nn.Module) -> Any:
    """Every parameter away from its first value, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def batch(length: int) -> tuple[Tensor, Tensor]:
    """Three rows, one whole and two padded on the right."""
    ids = torch.randint(0, V, (3, length), generator=torch.Generator().manual_seed(length))
    return ids, torch.arange(length) < torch.tensor([length, max(length - 3, 1), length // 2 + 1])[:, None]


def theirs_of(folder: Path) -> Any:
    """transformers' model of a folder, whichever head it says it has."""
    transformers = pytest.importorskip("transformers")
    cls = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, cls).from_pretrained(folder).eval()


@torch.no_grad()
def compare(ours: Transformer, theirs: Any, length: int, *, padded: bool) -> None:
    """Logits of real tokens, ours against theirs, whose version 5 leaves the bias out."""
    ids, real = batch(length)
    mask = real if padded else None
    wanted = theirs(ids, attention_mask=None if mask is None else mask.long()).logits + theirs.lm_head.bias
    found = ours.logits(ours(ids, mask=mask))
    keep = real if padded else torch.ones_like(real)
    torch.testing.assert_close(found[keep], wanted[keep], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("case", CASES)
def test_transformers_computes_our_logits(case: str, kind: str, tmp_path: Path):
    ours = disturbed(Transformer.create(spec_with(kind, **CASES[case]), seed=1))
    exchange.save(ours, tmp_path)
    pieces = "feedforward_chunk" in CASES[case]
    for length in (8, 64) if pieces else (3, 6, 16, 29, 64):  # theirs takes no rest that fills no piece
        theirs = theirs_of(tmp_path)  # anew: it keeps the number of buckets that its first input needs
        assert abs(theirs.lm_head.bias).max() > 0.1
        compare(ours, theirs, length, padded=False)
        compare(ours, theirs, length, padded=True)
    back = exchange.load(tmp_path)
    assert back.spec == ours.spec
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), ours.parameters(), strict=True))


def config(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.ReformerConfig(**{
        "vocab_size": V, "hidden_size": 16, "num_attention_heads": 2, "attention_head_size": 6, "hash_seed": 1,
        "feed_forward_size": 20, "max_position_embeddings": 96, "axial_pos_shape": [8, 12],
        "axial_pos_embds_dim": [4, 12], "lsh_attn_chunk_length": 4, "local_attn_chunk_length": 8,
        "attn_layers": ["local", "lsh"], "is_decoder": True, **changes,
    })  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hashes": 2},
        {"axial_pos_embds": False, "num_buckets": [4, 8], "hidden_act": "gelu_new"},
        {"is_decoder": False, "lsh_num_chunks_after": 1, "local_num_chunks_after": 1, "num_hashes": 2},
        {"is_decoder": False, "lsh_num_chunks_before": 0, "chunk_size_lm_head": 7},
    ],
    ids=str,
)
def test_we_compute_their_logits(changes: dict[str, Any], tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    made = config(**changes)
    cls = transformers.ReformerModelWithLMHead if made.is_decoder else transformers.ReformerForMaskedLM
    disturbed(cls(made)).save_pretrained(tmp_path)
    ours = exchange.load(tmp_path)
    for length in (7, 56):
        compare(ours, theirs_of(tmp_path), length, padded=True)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ReformerModel", "ReformerForSequenceClassification", "ReformerForQuestionAnswering"])
def test_other_heads(name: str, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    labels = {"num_labels": 3} if "Sequence" in name else {}
    theirs = disturbed(getattr(transformers, name)(config(is_decoder=False, num_hashes=2, **labels)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs")
    exchange.save(ours, tmp_path / "ours")
    ids, real = batch(29)
    for model in (theirs, theirs_of(tmp_path / "ours")):
        found, hidden = model(ids, attention_mask=real.long()), ours(ids, mask=real)
        if name == "ReformerModel":
            torch.testing.assert_close(hidden[real], found.last_hidden_state[real], atol=1e-4, rtol=1e-4)
            assert hidden.shape[-1] == 32
        elif "Sequence" in name:
            torch.testing.assert_close(ours.logits(hidden, mask=real), found.logits, atol=1e-4, rtol=1e-4)
        else:
            spans = torch.stack((found.start_logits, found.end_logits), dim=-1)
            torch.testing.assert_close(ours.logits(hidden)[real], spans[real], atol=1e-4, rtol=1e-4)


def test_their_gradients(tmp_path: Path):
    """The same gradients in training mode, without dropout: through the reversal, the sorting and the chunks."""
    transformers = pytest.importorskip("transformers")
    none = {f"{part}_dropout_prob": 0.0 for part in ("hidden", "local_attention_probs", "lsh_attention_probs")}
    theirs = disturbed(transformers.ReformerModelWithLMHead(config(num_hashes=2, num_buckets=8, **none))).train()
    theirs.save_pretrained(tmp_path)
    ours = exchange.load(tmp_path).train()
    ids, _ = batch(96)
    weight = torch.linspace(-1, 1, ids.numel() * V).view(3, 96, V)
    (theirs(ids).logits * weight).sum().backward()
    (ours.logits(ours(ids)) * weight).sum().backward()
    stack, other = ours.decoder, theirs.reformer
    pairs = [
        (ours.embedding.weight, other.embeddings.word_embeddings.weight),
        (stack.norm.weight, other.encoder.layer_norm.weight),
    ]
    for block, layer in zip(stack.blocks, other.encoder.layers, strict=True):
        pairs.append((block.attention.out.weight, layer.attention.output.dense.weight))
        pairs.append((block.feedforward.up.weight, layer.feed_forward.dense.dense.weight))
    rows = [p.grad for p in other.encoder.layers[1].attention.self_attention.parameters()]
    torch.testing.assert_close(stack.blocks[1].attention.qkv.weight.grad, torch.cat(rows), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        stack.positions.rows.grad, other.embeddings.position_embeddings.weights[0].grad, atol=1e-3, rtol=1e-3
    )
    for mine, its in pairs:
        assert its.grad.abs().max() > 0.01
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"attn_layers": ["lsh", "full"]}, "attn_layers"),
        ({"attn_layers": []}, "attn_layers"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"is_decoder": False}, "is_decoder"),
        ({"architectures": ["ReformerForMaskedLM"]}, "is_decoder"),
        ({"architectures": ["ReformerForTokenClassification"]}, "architectures"),
        ({"lsh_attn_chunk_length": None}, "lsh_attn_chunk_length"),
        ({"axial_pos_shape": [4, 4, 6]}, "axial_pos_shape"),
    ],
)
def test_options_that_are_not_computed_are_refused_by_name(changes: dict[str, Any], name: str):
    given = {"architectures": ["ReformerModelWithLMHead"], "is_decoder": True, "attn_layers": ["lsh", "local"]}
    assert family.to_spec(given).layers == 2
    with pytest.raises(ModelError) as caught:
        family.to_spec(given | changes)
    assert caught.value.fields["name"] == name


@pytest.mark.parametrize(
    ("changes", "own", "key"),
    [
        ({"tied": True}, {}, "reformer.field"),
        ({"norm_place": "post"}, {}, "reformer.field"),
        ({"qkv_bias": None}, {}, "reformer.field"),
        ({"kv_heads": 1}, {}, "reformer.field"),
        ({"segments": 2}, {}, "reformer.field"),
        ({"kind": "encoder-decoder"}, {}, "reformer.field"),
        ({"layers": 2}, {}, "reformer.layers"),
        ({}, {"buckets": 7}, "reformer.odd-buckets"),
        ({}, {"buckets": (4, 3)}, "reformer.odd-buckets"),
        ({}, AXIAL | {"axial_shape": (8, 8)}, "reformer.small-grid"),
        ({}, AXIAL | {"axial_widths": (4, 4)}, "reformer.axial-widths"),
        ({}, {"axial_shape": (8, 12)}, "reformer.axial-widths"),
    ],
)
def test_specs_that_are_not_computed_are_refused(changes: dict[str, Any], own: dict[str, Any], key: str):
    with pytest.raises(ModelError) as caught:
        Transformer(replace(SPEC, **changes, reformer=replace(OWN, **own)))
    assert caught.value.key == key


@pytest.mark.parametrize("own", [{}, AXIAL, {"layers": ("lsh",)}], ids=str)
@pytest.mark.parametrize("outputs", [("language",), ("span", "value"), ("classifier",), ()], ids=str)
def test_counted_parameters_are_those_of_the_model(own: dict[str, Any], outputs: tuple[Any, ...]):
    spec = replace(spec_with(**own), outputs=outputs, pooler="tanh" if outputs == ("classifier",) else "none")
    assert parameters(spec) == sum(p.numel() for p in Transformer(spec).parameters())


def test_the_spec_comes_back_from_json():
    spec = spec_with(**AXIAL, buckets=(4, 8))
    assert spec_of(json.loads(json.dumps(asdict(spec)))) == spec


def model_with(change: Callable[[Spec], Spec] = lambda spec: spec, **own: Any) -> Transformer:
    return disturbed(Transformer.create(change(spec_with(**own)), seed=1))


def test_a_token_sees_only_what_stands_before_it_in_its_document():
    model = model_with()
    ids, _ = batch(29)
    documents = torch.tensor([1] * 12 + [2] * 17).expand(3, 29)
    x = model.embedding(ids).detach().requires_grad_()
    places = torch.arange(29).expand(3, 29)
    hidden = model.decoder(model.decoder.embed(x, places), positions=places, documents=documents)
    for t, first in ((10, 0), (20, 12)):
        (grad,) = torch.autograd.grad(hidden[:, t].sum(), x, retain_graph=True)
        reached = grad.abs().sum(-1) > 0  # (B, T)
        assert reached[:, t].all() and reached[:, first:t].any()
        assert not reached[:, :first].any() and not reached[:, t + 1 :].any()


@torch.no_grad()
def test_capture_changes_nothing_and_adds_up():
    model = model_with()
    ids, real = batch(29)
    hidden, seen = model(ids, mask=real, capture={"attention", "hidden", "heads"})
    torch.testing.assert_close(hidden, model(ids, mask=real))
    capture = seen["decoder"]
    assert [len(kept) for kept in (capture.attention, capture.heads, capture.hidden)] == [3, 3, 4]
    torch.testing.assert_close(capture.hidden[-1], hidden)
    x = model.decoder.embed(model.embedding(ids), torch.arange(29).expand(3, 29))
    torch.testing.assert_close(capture.hidden[0][real], torch.cat((x, x), dim=-1)[real])
    for i, (block, weights) in enumerate(zip(model.decoder.blocks, capture.attention, strict=True)):
        assert weights.shape == (3, 2, 29, 29)
        sums = weights.sum(-1)[0]  # of the row without padding
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=0.02, rtol=0)  # f32 beside scores of 1e5
        assert not weights.triu(1)[0].any()
        x2 = capture.hidden[i][..., 16:]
        v = block.attention.qkv(block.attention_norm(x2))[..., -12:].unflatten(-1, (2, 6))
        heads = torch.einsum("bhts,bshk->bthk", weights, v)
        torch.testing.assert_close(capture.heads[i][0], heads[0], atol=1e-4, rtol=1e-4)


def test_what_it_cannot_take_is_an_error():
    model = model_with()
    ids, _ = batch(8)
    for given in ({"prefix": torch.tensor([1, 1, 1])}, {"segments": torch.zeros_like(ids)}):
        with pytest.raises(ModelError) as caught:
            model(ids, **given)
        assert caught.value.fields["name"] == next(iter(given))


@pytest.mark.parametrize("name", ["dropout", "embedding_dropout", "attention_dropout", "lsh_dropout"])
def test_dropout_falls_in_training_only(name: str):
    own = {name: 0.2} if name == "lsh_dropout" else {}
    model = model_with(lambda spec: spec if own else replace(spec, **{name: 0.2}), **own)
    ids, _ = batch(16)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    if name == "dropout":  # on what each part adds, and on what the stack gives
        pair = model.decoder.blocks[0].pair(None)
        x = torch.randn(3, 16, 16)
        for dropped in (pair.f(x)[0], pair.g(x)[0], model(ids)):
            assert 0.1 < (dropped == 0).float().mean() < 0.3


@torch.no_grad()
def test_the_feedforward_layer_takes_so_many_tokens_at_a_time():
    model, lengths = model_with(layers=("lsh",), feedforward_chunk=10), []
    model.decoder.blocks[0].feedforward.register_forward_hook(lambda _, given, out: lengths.append(given[0].shape[1]))
    ids, _ = batch(29)
    hidden = model(ids)
    assert lengths == [10, 10, 10, 2]  # 29 tokens in chunks of 4 are 32
    model.decoder.blocks[0].at_once = 0
    torch.testing.assert_close(model(ids), hidden)


def test_packed_rows_name_what_is_packed():
    model = model_with()
    rows = model.packed_rows()
    assert [rows[block.attention.qkv.weight] for block in model.decoder.blocks] == [(12, 12), (12, 12, 12), (12, 12)]
