"""Masks from a reference's states and activations, against the same read off the model by other means."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amauta.base.errors import ModelError
from amauta.data.batches import Batch, Listed, PackedBatches, Piece
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenwise import SparseMask, laid, layer_states, load_masks, mapo_masks, save_masks

SPEC = {"vocabulary": 40, "context": 16, "width": 16, "layers": 3, "heads": 4, "kv_heads": 2}


def model(**changes: object) -> Transformer:
    made = Transformer.create(Spec(**(SPEC | changes)), seed=1)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made.eval()


def pieces(n: int = 7) -> list[Piece]:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(n):
        ids = rng.integers(0, 40, rng.integers(4, 9))
        loss = np.arange(len(ids) - 1) >= rng.integers(0, 3)
        found.append(Piece(ids, loss))
    return found


def batch() -> Batch:
    many = pieces(6)
    (made,) = PackedBatches(Listed([(many[i], many[i + 1]) for i in (0, 2, 4)]), rows=3, length=16, epochs=1)
    assert sorted(sum(made.units, [])) == [0, 1, 2] and len(made.units) == 3
    return made


@pytest.mark.parametrize("changes", [{}, {"distinct_layers": 1}, {"norm_place": "post"}], ids=str)
def test_layer_states_are_those_that_the_model_captures(changes: dict[str, object]):
    net, given = model(**changes), batch()
    hidden, states = layer_states(net, given)
    wanted, seen = net(given.ids, positions=given.positions, documents=given.documents, capture=["hidden"])
    used = given.documents > 0
    assert len(states) == 3
    torch.testing.assert_close(hidden[used], wanted[used])
    for mine, theirs in zip(states[:-1], seen["decoder"].hidden[1:-1], strict=True):
        torch.testing.assert_close(mine[used], theirs[used])
    last = states[-1] if net.decoder.norm is None else net.decoder.norm(states[-1])
    torch.testing.assert_close(last[used], wanted[used])
    layer_states(net, given)
    assert len(states) == 3, "no hook stays behind"


def test_a_model_without_layers_gives_its_states():
    class Bare:
        def __call__(self, ids, *, positions, documents):
            return ids[..., None] * 1.0

    hidden, states = layer_states(Bare(), batch())
    assert len(states) == 1 and states[0] is hidden


def test_a_mask_is_what_its_equation_says():
    mask, generator = SparseMask.create(8, 3, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mask.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    states = [torch.randn(20, 8, generator=generator) for _ in range(3)]
    found = mask.eval()(states)
    for t in range(20):
        total = 0.0
        for layer in range(3):
            x = states[layer][t]
            x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * mask.norm.weight + mask.norm.bias
            total += float(mask.mix[layer].detach()) * max(
                0.0, float((mask.weight[layer] @ x + mask.bias[layer]).detach())
            )
        assert found[t].item() == pytest.approx(max(0.0, total), abs=1e-5)
    assert (found == 0).any() and (found > 0).any()


def test_masks_begin_near_one_and_drop_in_training_only():
    mask, states = SparseMask.create(64, 12, seed=0, dropout=0.5), [torch.randn(500, 64) for _ in range(12)]
    quiet = mask.eval()(states).detach()
    assert 0.9 < quiet.mean() < 1.2 and 0.1 < quiet.std() < 0.6 and (quiet > 0).float().mean() > 0.97
    assert torch.equal(quiet, mask(states)) and not torch.equal(mask.train()(states), quiet)
    again, other = SparseMask.create(64, 12, seed=0), SparseMask.create(64, 12, seed=1)
    for name in ("weight", "mix"):
        mine = getattr(mask, name).detach()
        assert torch.equal(mine, getattr(again, name)) and not torch.equal(mine, getattr(other, name))
    assert mask.weight.abs().max() <= 1 / 8 and mask.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
    assert mask.mix.sum().item() == pytest.approx(1) and (mask.mix < 0).any()
    assert mask.mix.std().item() == pytest.approx(12**-0.5 / 3**0.5, rel=0.4)
    assert SparseMask.create(8, 1, seed=3).mix.tolist() == [1]


def test_masks_learn_and_the_reference_does_not():
    mask, x = SparseMask.create(8, 2, seed=0), torch.randn(4, 8, requires_grad=True)
    mask([x, x * 2]).sum().backward()
    assert x.grad is None and all(p.grad is not None and p.grad.abs().sum() > 0 for p in mask.parameters())


def test_masks_are_kept_in_a_file(tmp_path: Path):
    file = tmp_path / "masks.safetensors"
    masks = {name: SparseMask.create(8, 2, seed=i) for i, name in enumerate(("reward", "divergence"))}
    save_masks(masks, file)
    states = [torch.randn(4, 8) for _ in range(2)]
    found = load_masks(file)
    assert set(found) == set(masks)
    for name, mask in masks.items():
        assert torch.equal(found[name](states), mask.eval()(states))
    for damage in (file.read_bytes()[:50], b""):
        file.write_bytes(damage)
        with pytest.raises(ModelError, match=r"masks\.safetensors"):
            load_masks(file)
    save_masks({"reward": masks["reward"]}, file)
    assert set(load_masks(file)) == {"reward"}
    save_masks({"other": masks["reward"]}, file)
    with pytest.raises(ModelError):
        load_masks(file)
    with pytest.raises(ModelError):
        load_masks(tmp_path / "none")


def naive_mapo(net: Transformer, piece: Piece) -> np.ndarray:
    """By the paper's words, from what the model captures and from its weights; each activation whole."""
    ids = torch.from_numpy(piece.ids[:-1])[None]
    hidden, seen = net(ids, capture=["hidden", "heads"])
    kept, K = seen["decoder"], net.spec.head
    types: dict[str, list[torch.Tensor]] = {}
    for layer, block in net.decoder.each():
        x = kept.hidden[layer]
        qkv = block.attention.qkv(block.attention_norm(x))
        heads = kept.heads[layer].flatten(2)
        between = x + block.attention.out(heads)
        gate, up = block.feedforward.up(block.feedforward_norm(between)).chunk(2, -1)
        inner = gate * torch.sigmoid(gate) * up
        H, G = net.spec.heads, net.spec.groups
        for name, value in {
            "q": qkv[..., : H * K], "k": qkv[..., H * K : (H + G) * K], "v": qkv[..., (H + G) * K :], "heads": heads,
            "before": x, "between": between, "inner": inner, "after": between + block.feedforward.down(inner),
        }.items():  # fmt: skip
            types.setdefault(name, []).append(value)
    types["logits"] = [net.logits(hidden)]
    wanted = torch.from_numpy(piece.loss)
    total = torch.zeros(int(wanted.sum()), dtype=torch.float64)
    for layers in types.values():
        mean = torch.zeros_like(total)
        for value in layers:
            a = value[0, wanted].double().mean(-1)
            z = (a - a.mean()) / a.std()
            mean += (z - z.min()) / (z.max() - z.min()) / len(layers)
        total += mean / len(types)
    out = np.zeros(len(piece.loss))
    out[piece.loss] = total.detach().numpy()
    return out


def test_mapo_masks_are_those_of_each_answer_alone():
    net, many = model(gated=True, activation="silu", norm="rms"), pieces()
    found = mapo_masks(net, many, rows=2)
    for piece, mask in zip(many, found, strict=True):
        np.testing.assert_allclose(mask, naive_mapo(net, piece), atol=1e-4)
        assert mask.min() >= 0 and mask.max() <= 1


def test_mapo_masks_where_there_is_little_to_rescale():
    ids = np.array([1, 2, 3, 4])
    one, none = Piece(ids, np.array([False, False, True])), Piece(ids, np.zeros(3, dtype=bool))
    whole, post = mapo_masks(model(), [one, none]), mapo_masks(model(norm_place="post"), [Piece(ids)])
    assert [mask.tolist() for mask in whole] == [[0, 0, 1], [0, 0, 0]]
    assert 0 <= post[0].min() < post[0].max() <= 1 and len(set(post[0].tolist())) == 3


def test_values_lie_where_their_pieces_lie():
    given, many = batch(), pieces(6)
    values = [[np.full(len(many[2 * u + k].ids) - 1, 10 * u + k + 1, np.float32) for k in (0, 1)] for u in range(3)]
    out = laid(values, given)
    assert out.shape == given.ids.shape
    for r, row in enumerate(given.units):
        for k, unit in enumerate(row):
            for side in (0, 1):
                assert set(out[r][given.documents[r] == 2 * k + side + 1].tolist()) == {10.0 * unit + side + 1}
        assert set(out[r][given.documents[r] == 0].tolist()) <= {0.0}
    assert laid(values, Batch(*[torch.zeros(1, 4, dtype=torch.long)] * 4, units=[[]])).tolist() == [[0] * 4]
