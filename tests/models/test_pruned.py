"""What a card says of pruning, and the masks that training keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.pruned import PRUNED, linears, masks_of, pruned_by
from tests.compress.small import SPECS, model_of

ROW = {"step": "prune wanda", "sparsity": 0.5}
LATER = {"step": "quantize int8", "kl": 0.0}


@pytest.mark.parametrize(("card", "says"), [
    (None, None), ({}, None), ({"contract": [LATER]}, None), ({"contract": [ROW]}, "prune wanda"),
    ({"contract": [ROW, LATER]}, "prune wanda"), ({"contract": [{"step": "prune heads", "left": 3}]}, None),
    ({PRUNED: "prune sparsegpt"}, "prune sparsegpt"), ({PRUNED: "prune sparsegpt", "contract": [ROW]}, "prune wanda"),
])  # fmt: skip
def test_what_the_card_says(tmp_path: Path, card: dict[str, Any] | None, says: str | None):
    model = model_of("llama")
    name = "decoder.blocks.1.feedforward.up"
    with torch.no_grad():
        model.get_submodule(name).weight[3:5] = 0
    exchange.save(model, tmp_path)
    if card is not None:
        (tmp_path / "card.json").write_text(json.dumps(card))
    found = find_model(tmp_path)
    assert pruned_by(found) == says
    masks = masks_of(found, model)
    if says is None:
        assert masks == {}
        return
    assert len(masks) == 12 and set(masks) == {one.weight for one in linears(model).values()}
    for key, linear in linears(model).items():
        mask = masks[linear.weight]
        assert mask.all() if key != name else (not mask[3:5].any() and mask[:3].all() and mask[5:].all())
    model.requires_grad_(False)
    model.get_submodule(name).weight.requires_grad_(True)
    assert len(masks_of(found, model)) == 1  # only what is trained


def test_a_new_model_was_never_pruned():
    assert pruned_by(None) is None and masks_of(None, model_of("llama")) == {}


@pytest.mark.parametrize("name", SPECS)
def test_the_linear_layers_of_every_family(name: str):
    model = model_of(name)
    found = linears(model)
    assert all(".blocks." in key for key in found) and len({id(one) for one in found.values()}) == len(found)
    assert sum("qkv" in key for key in found) > 0
