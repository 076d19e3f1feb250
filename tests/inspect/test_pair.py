"""Every figure of a token against whole rows of logits; which models are taken, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amauta import config
from amauta.base.errors import DataError, ModelError
from amauta.cli.inspect import app
from amauta.data.batches import Piece
from amauta.inspect import pair as looking
from amauta.inspect.pair import Pair, inspect_pair, look
from amauta.inspect.settings import InspectPair
from amauta.inspect.table import as_text
from amauta.models.exchange.folder import write_model
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.tokenwise import SparseMask, mapo_masks, save_masks

ROWS = [
    {"prompt": "One or two?", "chosen": "Two, of course.", "rejected": "One"},
    {"prompt": "Red?", "chosen": "Yes", "rejected": "No, blue"},
]


def net(seed: int, vocabulary: int = 30, **changes: Any) -> Transformer:
    shape = {"context": 48, "width": 16, "layers": 3, "heads": 2} | changes
    made = Transformer.create(Spec(vocabulary=vocabulary, **shape), seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


PIECE = Piece(np.array([3, 1, 4, 1, 5, 9, 2, 6, 7]), np.array([False, False, True, True, True, False, True, True]))
WANTED = np.flatnonzero(PIECE.loss)


def seen(**more: Any) -> Any:
    return look(PIECE, net(1), net(2), texts=[str(id) for id in PIECE.ids], **more)


def test_log_probs_ratio_reward_and_divergence():
    side = seen(beta=0.4)
    ids = torch.from_numpy(PIECE.ids)[None]
    ours, theirs = (model.logits(model(ids[:, :-1]))[0].detach().double().log_softmax(-1) for model in (net(1), net(2)))
    for i, t in enumerate(WANTED):
        a, b = float(ours[t, PIECE.ids[t + 1]]), float(theirs[t, PIECE.ids[t + 1]])
        kl = float((theirs[t].exp() * (theirs[t] - ours[t])).sum())
        wanted = {"logprob": a, "reference": b, "ratio": a - b, "reward": 0.4 * (a - b), "kl": kl}
        assert {name: side.figures[name][i] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    assert side.places == (WANTED + 1).tolist() and side.tokens == [str(id) for id in PIECE.ids]
    assert set(side.figures) == {*wanted, "mapo"}
    totals = side.totals()
    assert totals["tokens"] == 5 and totals["kl_sum"] == pytest.approx(sum(side.figures["kl"]))


def test_sepos_scores_and_its_choice():
    for lowest in (False, True):
        side = seen(oracle=net(3), share=0.4, lowest=lowest)
        wanted = (net(3).score(PIECE.ids.tolist()) - net(2).score(PIECE.ids.tolist()))[torch.from_numpy(PIECE.loss)]
        np.testing.assert_allclose(side.figures["score"], wanted, atol=1e-4)
        order = np.argsort(wanted.numpy() if lowest else -wanted.numpy())[:2]
        assert np.flatnonzero(side.figures["selected"]).tolist() == sorted(order.tolist())


@pytest.mark.parametrize("names", [("both",), ("reward", "divergence"), ("divergence",)])
def test_masks_are_read_from_the_references_states(names: tuple[str, ...]):
    masks = {name: SparseMask.create(16, 3, seed=i).eval() for i, name in enumerate(names)}
    side = seen(masks=masks)
    kept: list[torch.Tensor] = []
    reference = net(2)
    for block in reference.decoder.blocks:
        block.register_forward_hook(lambda _m, _g, out: kept.append(out[0]))
    reference(torch.from_numpy(PIECE.ids[:-1])[None])
    for place in ("reward", "divergence"):
        mask = masks.get("both", masks.get(place))
        wanted = [1.0] * 5 if mask is None else mask([x[PIECE.loss] for x in kept]).tolist()
        assert side.figures[f"mask_{place}"] == pytest.approx(wanted, abs=1e-5)
    np.testing.assert_allclose(side.figures["mapo"], mapo_masks(net(2), [PIECE])[0][PIECE.loss], atol=1e-6)
    assert side.totals()["sparsity_divergence"] == np.mean(np.array(side.figures["mask_divergence"]) == 0)


def test_attention_is_the_mean_over_heads_where_the_token_is_predicted(monkeypatch: pytest.MonkeyPatch):
    side = seen()
    _, found = net(1)(torch.from_numpy(PIECE.ids[:-1])[None], capture=["attention"])
    layers = [weights[0].mean(0) for weights in found["decoder"].attention]
    layers.append(torch.stack(layers).mean(0))
    assert len(side.attention) == 4
    for mine, theirs in zip(side.attention, layers, strict=True):
        for row, t in zip(mine, WANTED, strict=True):
            weights = theirs[t].detach()
            assert [weight for _, weight in row] == sorted((w for _, w in row), reverse=True)
            assert dict(row) == pytest.approx({s: float(w) for s, w in enumerate(weights) if w >= 0.01}, abs=1e-5)
    monkeypatch.setattr(looking, "STRONGEST", 2)
    assert {len(row) for row in seen().attention[0][1:]} == {2}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """base, a run ``tuned`` from it with masks and an oracle, a stranger with another tokenizer, pairs."""
    texts = [" ".join(row.values()) for row in ROWS] * 3
    train_bpe(texts, 290, allow_smaller=True).save(tmp_path / "tokenizer")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    for seed, name in enumerate(("base", "tuned/model", "tuned/oracle/model", "narrow"), start=1):
        (tmp_path / name).mkdir(parents=True)
        write_model(net(seed, tokenizer.size, width=16 if name != "narrow" else 8), tokenizer, tmp_path / name)
    card = {"parent": {"name": str(tmp_path / "base")}, "settings": {"beta": 0.7}}
    (tmp_path / "tuned" / "model" / "card.json").write_text(json.dumps(card))
    (tmp_path / "tuned" / "config.toml").write_text("")
    save_masks({"both": SparseMask.create(16, 3, seed=5)}, Run(tmp_path / "tuned").masks)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def asked(world: Path, model: str = "tuned", **changes: Any) -> InspectPair:
    values = {"model": str(world / model), "data": [str(world / "pairs.jsonl")], "device": "cpu"}
    return config.build(InspectPair, values, changes)


def test_a_run_brings_its_reference_oracle_masks_and_beta(world: Path):
    found = inspect_pair(asked(world, row=2))
    assert found.names == {
        "model": str(world / "tuned"), "reference": str(world / "base"), "oracle": str(world / "tuned" / "oracle"),
        "masks": str(world / "tuned" / "masks.safetensors"),
    }  # fmt: skip
    assert found.beta == 0.7 and found.where.endswith("pairs.jsonl:2")
    assert {"score", "selected", "mask_reward", "mapo"} <= found.chosen.figures.keys()
    texts = ["".join(side.tokens[place] for place in side.places) for side in (found.chosen, found.rejected)]
    assert texts == ["Yes<|turn|>", "No, blue<|turn|>"]
    assert found.margin == pytest.approx(sum(found.chosen.figures["reward"]) - sum(found.rejected.figures["reward"]))
    # of the rejected answer SePO learns the lowest scores, of the chosen the highest
    for side, best in ((found.chosen, max), (found.rejected, min)):
        score, chosen = side.figures["score"], side.figures["selected"]
        assert chosen[score.index(best(score))] == 1


def test_what_is_given_wins(world: Path):
    other = {"reference": str(world / "tuned"), "oracle": str(world / "base"), "beta": 0.2}
    found = inspect_pair(asked(world, "base", **other))
    assert "masks" not in found.names and "mask_reward" not in found.chosen.figures and found.beta == 0.2
    turned = inspect_pair(asked(world, reference=str(world / "base"), beta=0.2))
    assert found.margin == pytest.approx(-turned.margin, abs=1e-4)


def test_what_cannot_be_compared_is_refused(world: Path):
    with pytest.raises(ModelError, match="--reference"):
        inspect_pair(asked(world, "base"))
    train_bpe(["quite other words"] * 3, 280, allow_smaller=True).save(world / "t2")
    strange = Tokenizer.load(world / "t2")
    (world / "stranger").mkdir()
    write_model(net(1, strange.size), strange, world / "stranger")
    for role in ("reference", "oracle"):
        with pytest.raises(ModelError, match="stranger.*tokenizer"):
            inspect_pair(asked(world, **{role: str(world / "stranger")}))
    with pytest.raises(ModelError, match="3×16.*3×8"):
        inspect_pair(asked(world, reference=str(world / "narrow")))
    with pytest.raises(ModelError, match="nothing"):
        inspect_pair(asked(world, masks=str(world / "nothing")))
    with pytest.raises(DataError, match="record 3: .* 2"):
        inspect_pair(asked(world, row=3))
    long = {"prompt": "One", "chosen": "xyz" * 40, "rejected": "no"}
    (world / "long.jsonl").write_text(json.dumps(long) + "\n")
    with pytest.raises(DataError, match="48"):
        inspect_pair(asked(world, data=[str(world / "long.jsonl")]))


def test_the_command(world: Path):
    settings = asked(world, out=str(world / "p.html"))
    told = app.commands["pair"](settings)
    assert told is not None and json.loads(json.dumps(told))["page"] == str(world / "p.html")
    assert "<h1>" in (world / "p.html").read_text(encoding="utf-8")
    assert len(told["chosen"]["texts"]) == told["chosen"]["tokens"] == len(told["chosen"]["kl"])
    shown = as_text(told)
    assert f"{told['margin']:.4g}" in shown and f"{told['rejected']['score'][0]:.4f}" in shown
    assert sum(line[:25].rstrip().endswith("*") for line in shown.splitlines()) == sum(
        sum(told[side]["selected"]) for side in ("chosen", "rejected")
    )
    widths = {len(line) for line in shown.splitlines() if line[-1:].isdigit() and line.count(".") > 4}
    assert len(widths) == 1, "columns stand one under another"
    assert isinstance(inspect_pair(settings), Pair)
