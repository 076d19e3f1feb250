"""Pruned weights in the loop: they stay at zero, and count for nothing, under both optimisers."""

import copy

import numpy as np
import pytest
import torch

from amauta.data.batches import Listed, PackedBatches, Piece
from amauta.device import pick
from amauta.optim.groups import Optimizers
from amauta.optim.settings import Optim
from amauta.train.loop import Work, _one_step
from amauta.train.pretrain import causal_step
from tests.compress.small import V, model_of

CPU = pick("cpu", "f32")


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_masked_weights_stay_and_count_for_nothing(optimizer: str):
    model = model_of("llama")
    weight = model.decoder.blocks[1].feedforward.up.weight
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        weight.mul_(mask)
    alone, before = copy.deepcopy(model), weight.detach().clone()
    ids = np.random.default_rng(0).integers(3, V, 17)
    batch = next(PackedBatches(Listed([(Piece(ids),)]), rows=1, length=16))
    step = causal_step(CPU)
    work = Work(model, step, None, 1, CPU, 0.0, model.packed_rows(), str, masks={weight: mask})  # type: ignore[arg-type]
    optimizers = Optimizers(model, Optim(optimizer=optimizer), splits=work.splits, muon_dtype=torch.float32)  # type: ignore[arg-type]
    told = _one_step(model, work, optimizers, [batch], seed=0, step=0, rate=1.0, clip=1.0)

    total, count, _ = step(alone, batch)
    (total / count).backward()
    own = alone.decoder.blocks[1].feedforward.up.weight
    own.grad *= mask  # type: ignore[operator]
    norm = torch.stack([p.grad.norm() for p in alone.parameters() if p.grad is not None]).norm()
    assert told["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert (weight[~mask] == 0).all() and (weight[mask] != before[mask]).any()
