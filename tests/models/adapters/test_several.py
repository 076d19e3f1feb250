"""Adapters on a language model that is open: added, used by name, for one call or until told otherwise."""

from pathlib import Path
from typing import Any

import pytest
import torch

import amauta
from amauta.base.errors import ModelError
from amauta.decode.native import step
from amauta.hub import find_model
from amauta.models.exchange.folder import write_model
from tests.models.adapters.toys import close, ids_of, made, new_model, small_tokenizer


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A base, two adapters of it, and one of another base."""
    tokenizer = small_tokenizer()
    for seed, name in ((1, "base"), (2, "other")):
        write_model(new_model(tokenizer, seed=seed), tokenizer, tmp_path / name)
    made(find_model(tmp_path / "base"), tmp_path / "one", "lora")
    made(find_model(tmp_path / "base"), tmp_path / "two", "norms", "prompt")
    made(find_model(tmp_path / "base"), tmp_path / "tokens", "ia3", tokens=("<tool>",))
    made(find_model(tmp_path / "other"), tmp_path / "foreign", "lora")
    return tmp_path


def test_adapters_are_switched_by_name(folders: Path):
    ids = ids_of(small_tokenizer())
    alone = {name: amauta.load(folders / name).logits(ids) for name in ("base", "one", "two")}
    lm = amauta.load(folders / "base")
    assert (
        lm.adapters == {} and lm.add_adapter(folders / "one") == "one" and lm.add_adapter(folders / "two", "b") == "b"
    )
    assert lm.adapters == {"one": False, "b": True}
    close(lm.logits(ids), alone["two"])
    lm.use("one")
    close(lm.logits(ids), alone["one"])
    lm.use()
    close(lm.logits(ids), alone["base"])
    assert not lm.model.training and not any(value.requires_grad for value in lm.model.parameters())


def test_one_call_with_an_adapter(folders: Path):
    prompt = {"max_tokens": 6, "temperature": 0}
    wanted: dict[Any, list[int]] = {}
    for name in ("base", "one", "two"):
        wanted[name] = amauta.load(folders / name).generate("the weaver", **prompt)[0].tokens
    lm = amauta.load(folders / "base")
    assert lm.generate("the weaver", **prompt)[0].tokens == wanted["base"]  # by the native step, where there is one
    lm.add_adapter(folders / "one")
    lm.add_adapter(folders / "two")
    lm.use("two")
    assert step.why_not(lm.model) is not None
    assert len({tuple(tokens) for tokens in wanted.values()}) > 1
    for given, name in (("one", "one"), (["two"], "two"), ((), "base"), (None, "two")):
        assert lm.generate("the weaver", adapter=given, **prompt)[0].tokens == wanted[name]
    with pytest.raises(ModelError, match="No adapter 'three'"):
        lm.generate("the weaver", adapter="three", **prompt)
    assert lm.adapters == {"one": False, "two": True}


def test_new_tokens_come_with_their_tokenizer(folders: Path):
    lm = amauta.load(folders / "base")
    lm.add_adapter(folders / "tokens")
    assert lm.tokenizer.encode("<tool>") == [small_tokenizer().size]
    ids = torch.tensor([[4, small_tokenizer().size, 9]])
    close(lm.logits(ids), amauta.load(folders / "tokens").logits(ids))
    assert step.why_not(lm.model) is not None
    with pytest.raises(ModelError, match="brings tokens of its own"):
        lm.add_adapter(folders / "tokens", "again")
    assert lm.adapters == {"tokens": True}
    close(lm.logits(ids), amauta.load(folders / "tokens").logits(ids))


def test_what_cannot_be_added(folders: Path):
    lm = amauta.load(folders / "base")
    with pytest.raises(ModelError, match="was made for other weights"):
        lm.add_adapter(folders / "foreign")
    with pytest.raises(ModelError, match="holds no adapter"):
        lm.add_adapter(folders / "other")
    (folders / "tokens" / "adapter.json").write_text('{"spec": {"outputs": ["classifier"]}}')
    with pytest.raises(ModelError, match="another output"):
        lm.add_adapter(folders / "tokens")
    lm.add_adapter(folders / "one")
    with pytest.raises(ModelError, match="already"):
        lm.add_adapter(folders / "one")
    assert lm.adapters == {"one": True}
    with pytest.raises(ModelError, match="its weights alone are not the model"):
        lm.save(folders / "saved")
    assert not (folders / "saved").exists()
