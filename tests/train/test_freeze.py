"""Pretraining that changes some weights of a model and no others: what is frozen stays what it was, bit by bit."""

# ruff: noqa: F811  # a fixture comes in by its name

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import config, metrics
from amauta.base.errors import ConfigError, Interrupted
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.train.freeze import freeze
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.settings import Pretrain
from tests.train.conftest import Tiny
from tests.train.test_loop import equal, losses, stopping_after, weights
from tests.train.test_objectives import asked, world  # noqa: F401

TABLES = {"embedding.weight", "encoder.positions.weight", "decoder.positions.weight", "outputs.language.table.weight"}
CHANGES = {"train_only": "embeddings", "loop": {"steps": 6, "save_every": 1, "keep": 10}}


def going_on(world: Tiny, out: str, manner: str, **changes: Any) -> Pretrain:
    """Settings that go on from the model which ``manner`` left in the folder of its name."""
    values = config.to_dict(asked(world, out, manner))
    for key in ("tokenizer", "as", "shape"):
        values.pop(key)
    text = [world.file("other.jsonl", [{"text": f"El sombrero es rojo. La puerta es {n}."} for n in range(24)])]
    start = {"start": str(world.folder / manner / "model"), "text": text}
    return config.build(Pretrain, values, start | CHANGES | changes)


@pytest.mark.parametrize(
    ("manner", "optimizer"),
    [("llama", "adamw"), ("llama", "muon"), ("bert", "muon"), ("albert", "adamw"), ("t5", "muon"), ("electra", "muon")],
)
def test_only_the_embeddings_change(world: Tiny, manner: str, optimizer: str):
    pretrain(asked(world, manner, manner))
    settings = going_on(world, "adapted", manner, optim={"optimizer": optimizer, "weight_decay": 0.1})
    result = pretrain(settings)
    before, after = (exchange.load(Path(world.folder / name / "model")) for name in (manner, "adapted"))
    old, new = before.state_dict(), after.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    inputs = {name for name in old if name in TABLES or name.startswith("encoder.embedding_map.")}
    assert moved == inputs and old.keys() == new.keys()
    own = sum(old[name].numel() for name in inputs)
    if manner == "electra":  # its generator is a new model, which shares the tables
        generator = exchange.load(Run(world.folder / "adapted").generator)
        shared = ("embedding.", "encoder.positions.", "encoder.segments.")
        own += sum(value.numel() for name, value in generator.named_parameters() if not name.startswith(shared))
    assert (result["trained"], result["parameters"]) == (own, sum(p.numel() for p in before.parameters()))


def test_the_tables_of_every_stack():
    shape = {"vocabulary": 20, "context": 8, "width": 16, "layers": 1, "heads": 2, "tied": False}
    both = Spec(**shape, kind="encoder-decoder", positions="learned")
    narrow = Spec(**shape, embedding_width=8)
    for spec, wanted in (
        (both, {"embedding.weight", "encoder.positions.weight", "decoder.positions.weight"}),
        (narrow, {"embedding.weight", "decoder.embedding_map.weight", "decoder.embedding_map.bias"}),
    ):
        model = Transformer.create(spec, 0)
        count = freeze(model, "embeddings")
        trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
        assert trained.keys() == wanted | {"outputs.language.table.weight"}
        assert count == sum(trained.values())


def test_all_of_a_start_is_trained_where_nothing_is_said(world: Tiny):
    first = pretrain(asked(world, "llama", "llama"))
    result = pretrain(going_on(world, "more", "llama", train_only="all"))
    assert first["trained"] == first["parameters"] == result["trained"]
    before, after = (exchange.load(world.folder / name / "model").state_dict() for name in ("llama", "more"))
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("manner", ["llama", "roberta"])
def test_resumed_is_uninterrupted_and_replay_has_its_losses(
    world: Tiny, manner: str, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    pretrain(asked(world, manner, manner))
    pretrain(going_on(world, "whole", manner))
    with monkeypatch.context() as patch:
        stopping_after(patch, 3, signal.SIGINT)
        with pytest.raises(Interrupted, match="step 3 of 6"):
            pretrain(going_on(world, "parts", manner))
    pretrain(going_on(world, "parts", manner, loop=CHANGES["loop"] | {"resume": True}))
    assert equal(weights(world, "whole"), weights(world, "parts")) and losses(world, "whole") == losses(world, "parts")
    told = [row for row in metrics.read(Run(world.folder / "parts").metrics) if "loss" in row]
    for step in (1, 3, 4, 6):  # with dropout 0 the loss can be had again
        again = replay(Replay(world.folder / "parts", step))["recomputed"]
        assert again == pytest.approx(told[step - 1]["loss"], rel=1e-5)


def test_a_new_model_has_nothing_to_keep(world: Tiny):
    with pytest.raises(ConfigError, match="--train-only embeddings .*--start MODEL"):
        pretrain(asked(world, "new", "llama", train_only="embeddings"))
    assert not (world.folder / "new").exists()
    with pytest.raises(ConfigError, match="'train_only' is .output.. Allowed: all, embeddings"):
        asked(world, "new", "llama", train_only="output")
