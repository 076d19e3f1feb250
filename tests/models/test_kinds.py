"""Encoders, decoders and encoder-decoders of every manner: who sees whom, padding, caches, sharing, capture."""

import pytest
import torch

from amauta.base.errors import ConfigError, ModelError
from amauta.models.heads import pool
from amauta.models.spec import Sentence, Spec
from amauta.models.transformer import Transformer

BERT = {
    "kind": "encoder", "positions": "learned", "norm": "layer", "norm_place": "post", "activation": "gelu",
    "gated": False, "bias": True, "segments": 2, "embedding_norm": True, "outputs": ("masked", "pair"),
    "pooler": "tanh",
}  # fmt: skip
T5 = {"kind": "encoder-decoder", "positions": "relative", "attention_scale": 1.0, "relative_buckets": 8,
      "relative_distance": 20, "activation": "relu", "gated": False, "decoder_start": 0}  # fmt: skip
BART = {"kind": "encoder-decoder", "positions": "learned", "norm": "layer", "norm_place": "post", "gated": False,
        "activation": "gelu", "bias": True, "embedding_norm": True, "position_offset": 2, "output_bias": True,
        "decoder_layers": 3, "decoder_start": 2}  # fmt: skip
SPECS = {
    "llama": {"kv_heads": 2},
    "gpt1": {"positions": "learned", "norm": "layer", "norm_place": "post", "gated": False, "bias": True},
    "gemma": {"norm_place": "both", "window": 3, "full_every": 2, "local_theta": 100.0, "embedding_scale": 5.6,
              "qk_norm": True, "layers": 4},
    "relative-decoder": {"positions": "relative", "relative_buckets": 8, "relative_distance": 20},
    "bert": BERT,
    "albert": BERT | {"embedding_width": 12, "distinct_layers": 1},
    "t5": T5,
    "t5-shared": T5 | {"shared_stacks": True},
    "bart": BART,
}  # fmt: skip
DECODERS = [name for name in SPECS if SPECS[name].get("kind", "decoder") == "decoder"]
PAIRS = [name for name in SPECS if SPECS[name].get("kind") == "encoder-decoder"]


def made(name: str, **changes: object) -> Transformer:
    fields = {"vocabulary": 50, "context": 32, "width": 32, "layers": 2, "heads": 4, "init_std": 0.2}
    model = Transformer.create(Spec(**fields | SPECS[name] | changes), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(3))


def moved(model: Transformer, at: int, which: int = 0, **given: torch.Tensor) -> list[bool]:
    """Whether the output at ``at`` depends on each input token of the first (or the ``which``-th) embedding call."""
    held: list[torch.Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _m, _i, out: held.append(out.retain_grad() or out))
    hidden = model(**given)
    hook.remove()
    hidden[0, at].sin().sum().backward()
    return (held[which].grad[0].abs().sum(-1) > 0).tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_sees_the_past_alone(name: str):
    seen = moved(made(name), at=4, ids=ids(1, 9))
    assert seen == [True] * 5 + [False] * 4


def test_a_windowed_layer_sees_its_window_alone():
    model = made("gemma", full_every=None, layers=1)
    assert moved(model, at=5, ids=ids(1, 9)) == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_an_encoder_sees_everything_but_padding_and_other_documents(name: str):
    model = made(name)
    assert all(moved(model, at=4, ids=ids(1, 9)))
    mask = torch.tensor([[True] * 6 + [False] * 3])
    assert moved(model, at=4, ids=ids(1, 9), mask=mask) == [True] * 6 + [False] * 3
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3]])
    assert moved(model, at=4, ids=ids(1, 9), documents=documents) == [False] * 3 + [True] * 4 + [False] * 2
    broken = torch.tensor([[2, 1, 1, 2, 2, 2, 2, 3, 3]])
    assert moved(model, at=4, ids=ids(1, 9), documents=broken) == [True, False, False] + [True] * 4 + [False] * 2


@pytest.mark.parametrize("name", [name for name in DECODERS if "window" not in SPECS[name]])
def test_a_prefix_is_seen_by_all_and_what_follows_by_the_later(name: str):
    model, prefix = made(name), torch.tensor([3])
    assert moved(model, at=0, ids=ids(1, 6), prefix=prefix) == [True] * 3 + [False] * 3
    assert moved(model, at=4, ids=ids(1, 6), prefix=prefix) == [True] * 5 + [False]


@pytest.mark.parametrize("name", PAIRS)
def test_an_encoder_decoder_sees_all_of_the_source_and_its_own_past(name: str):
    model = made(name)
    mask = torch.tensor([[True] * 5 + [False] * 2])
    given = {"ids": ids(1, 7), "decoder_ids": ids(1, 6), "mask": mask}
    assert moved(model, 2, 0, **given) == [True] * 5 + [False] * 2
    assert moved(model, 2, 1, **given) == [True] * 3 + [False] * 3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", SPECS)
def test_padding_changes_nothing(name: str, side: str):
    model, rows = made(name), [ids(1, 9)[0], ids(1, 9)[0, :5].flip(0)]
    padded = torch.full((2, 9), 7)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    for b, row in enumerate(rows):
        place = slice(9 - len(row), 9) if side == "left" else slice(0, len(row))
        padded[b, place], mask[b, place] = row, True
    given = {"decoder_ids": ids(2, 4)} if name in PAIRS else {}
    together = model(padded, mask=mask, **given)
    for b, row in enumerate(rows):
        alone = model(row[None], **{key: value[b : b + 1] for key, value in given.items()})[0]
        found = together[b] if name in PAIRS else together[b][mask[b]]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [*DECODERS, *PAIRS])
def test_cached_equals_uncached(name: str):
    model, row = made(name), ids(2, 10)
    across, source = {}, {}
    if name in PAIRS:
        source = {"ids": ids(2, 7), "mask": torch.tensor([[True] * 7, [True] * 4 + [False] * 3])}
        across = {"encoded": model.encode(**source), "encoded_mask": source["mask"]}
        whole = model(**source, decoder_ids=row)
    else:
        whole = model(row)
    cache = model.new_cache(2, 12)
    found = [model.decode(row[:, :4], cache=cache, **across)]
    for t in range(4, 10):
        found.append(model.decode(row[:, t : t + 1], positions=torch.full((2, 1), t), cache=cache))
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-4)


def test_a_cache_keeps_the_rows_that_go_on():
    model, row = made("bart"), ids(3, 6)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 4 + [False]])
    cache = model.new_cache(3, 8)
    model.decode(row[:, :5], cache=cache, encoded=model.encode(ids(3, 5), mask=mask), encoded_mask=mask)
    cache.lengths.fill_(5)
    cache.keep([2, 1])
    found = model.decode(row[[2, 1], 5:], positions=torch.full((2, 1), 5), cache=cache)[:, 0]
    wanted = model(ids(3, 5), mask=mask, decoder_ids=row)[[2, 1], -1]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_shared_weights_are_counted_and_trained_once():
    apart, shared = made("t5"), made("t5-shared")
    names = dict(shared.named_parameters())
    assert not any(name.startswith("decoder.") and ".cross" not in name and "relative" not in name for name in names)
    counts = [sum(p.numel() for p in m.parameters()) for m in (apart, shared)]
    cross = sum(p.numel() for name, p in names.items() if "cross" in name)
    assert counts[0] - counts[1] == sum(p.numel() for p in shared.encoder.parameters()) - 8 * 4  # but the bias table
    assert cross > 0
    one = made("albert")
    assert len(one.encoder.blocks) == 1 and one.encoder.layers == 2


@pytest.mark.parametrize("name", SPECS)
def test_what_is_captured_is_what_was_computed(name: str):
    model = made(name)
    given = {"decoder_ids": ids(2, 5)} if name in PAIRS else {}
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    plain = model(ids(2, 6), mask=mask, **given)
    hidden, seen = model(ids(2, 6), mask=mask, capture={"attention", "hidden", "heads"}, **given)
    torch.testing.assert_close(hidden, plain, atol=1e-5, rtol=1e-4)
    assert seen.keys() == {side for side in ("encoder", "decoder") if getattr(model, side) is not None}
    for side, found in seen.items():
        stack = getattr(model, side)
        length = 5 if side == "decoder" and name in PAIRS else 6
        assert len(found.attention) == len(found.heads) == stack.layers and len(found.hidden) == stack.layers + 1
        torch.testing.assert_close(found.hidden[-1], hidden) if stack is (model.decoder or model.encoder) else None
        for weights, heads in zip(found.attention, found.heads, strict=True):
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, length))
            assert heads.shape == (2, length, 4, 8)
            if stack.causal:
                assert not weights.triu(1).any()
        assert len(found.cross) == (stack.layers if name in PAIRS and side == "decoder" else 0)
        for weights in found.cross:
            assert weights.shape == (2, 4, 5, 6) and not weights[1, :, :, 4:].any()


def test_nothing_is_captured_that_was_not_asked_for():
    _, seen = made("llama")(ids(1, 4), capture=["heads"])
    assert seen["decoder"].heads and not seen["decoder"].attention and not seen["decoder"].hidden
    with pytest.raises(ConfigError, match=r"(?s)atention.*attention"):
        made("llama")(ids(1, 4), capture=["atention"])


def test_outputs_by_name_and_those_that_a_model_has_not():
    model = made("bert")
    hidden = model(ids(2, 6))
    assert model.logits(hidden).shape == (2, 6, 50) and model.logits(hidden, output="pair").shape == (2, 2)
    with pytest.raises(ModelError, match=r"(?s)'span'.*masked.*pair"):
        model.logits(hidden, output="span")
    with pytest.raises(ModelError, match="base model"):
        made("bert", outputs=()).logits(hidden)
    with pytest.raises(ModelError, match="decoder_ids"):
        made("t5")(ids(1, 3))
    with pytest.raises(ModelError, match="4 layers cannot share 3 sets"):
        Spec(vocabulary=5, layers=4, distinct_layers=3)
    with pytest.raises(ModelError, match="5 layers cannot share 2 sets"):
        Spec(vocabulary=5, layers=4, decoder_layers=5, distinct_layers=2, kind="encoder-decoder")
    with pytest.raises(ModelError, match="192: they cannot be multiplied"):
        Spec(vocabulary=5, embedding_width=64)


def test_pooling_by_hand():
    hidden = torch.tensor([[[1.0, -1.0], [3.0, 5.0], [9.0, 9.0]], [[7.0, 7.0], [2.0, 0.0], [4.0, 6.0]]])
    real = torch.tensor([[True, True, False], [False, True, True]])
    wanted = {
        "first": [[1.0, -1.0], [2.0, 0.0]],
        "last": [[3.0, 5.0], [4.0, 6.0]],
        "mean": [[2.0, 2.0], [3.0, 3.0]],
        "max": [[3.0, 5.0], [4.0, 6.0]],
        "mean_sqrt": [[4 / 2**0.5, 4 / 2**0.5], [6 / 2**0.5, 6 / 2**0.5]],
    }
    for how, values in wanted.items():
        torch.testing.assert_close(pool(hidden, real, how), torch.tensor(values))


def test_a_sentence_is_its_pooled_states_through_a_layer_at_length_1():
    model = made("bert", sentence=Sentence("mean", dense=6))
    hidden, mask = model(ids(2, 5)), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = model.sentence(hidden, mask)
    dense = model.outputs.sentence
    wanted = torch.stack([(hidden[b, :n].mean(0) @ dense.weight.T + dense.bias).tanh() for b, n in ((0, 5), (1, 3))])
    torch.testing.assert_close(found, wanted / wanted.norm(dim=-1, keepdim=True))


def test_first_weights_of_t5_by_fan_in():
    model = Transformer.create(Spec(vocabulary=300, width=256, layers=1, heads=4, feedforward=512, **T5), seed=0)
    block, spread = model.decoder.blocks[0], lambda x: float(x.detach().std())
    q, k, _ = block.attention.qkv.weight.split(256)
    assert spread(model.embedding.weight) == pytest.approx(1.0, rel=0.02)
    assert spread(q) == pytest.approx((256 * 64) ** -0.5, rel=0.02) and spread(k) == pytest.approx(1 / 16, rel=0.02)
    assert spread(block.cross.q.weight) == pytest.approx((256 * 64) ** -0.5, rel=0.02)
    assert spread(block.feedforward.down.weight) == pytest.approx(512**-0.5, rel=0.02)


def test_dropout_of_embeddings_and_of_attention_in_training_alone():
    model = made("llama", embedding_dropout=0.5)
    _, seen = model(ids(4, 8), capture=["hidden"])
    assert float((seen["decoder"].hidden[0] == 0).float().mean()) == 0
    _, seen = model.train()(ids(4, 8), capture=["hidden"])
    assert 0.4 < float((seen["decoder"].hidden[0] == 0).float().mean()) < 0.6
    model = made("bart", attention_dropout=0.5)
    given = {"ids": ids(1, 6), "decoder_ids": ids(1, 4)}
    assert torch.equal(model(**given), model(**given))
    model.train()
    assert not torch.allclose(model(**given), model(**given))
