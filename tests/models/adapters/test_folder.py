"""An adapter's folder: which base it was made for, new tokens, what is refused, and every way to open it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import amauta
from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.hub import Found, find_model
from amauta.models import exchange
from amauta.models.adapters import add_tokens, added, attach, attached, counts, detach, merged, put_added, switch
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import generation_of, open_model, read_weights, spec_of, tokenizer_of, weight_files
from amauta.models.reshape import reshaped, with_head
from tests.models.adapters.toys import close, ids_of, logits, made, moved, new_model, small_tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return small_tokenizer()


@pytest.fixture
def base(tokenizer: Any, tmp_path: Path) -> Found:
    write_model(new_model(tokenizer), tokenizer, tmp_path / "base", generation={"temperature": 0.5})
    return find_model(tmp_path / "base")


def test_an_adapter_opens_wherever_a_model_does(base: Found, tokenizer: Any, tmp_path: Path):
    model, _ = made(base, tmp_path / "adapter", "lora")
    ids = ids_of(tokenizer)
    found = find_model(tmp_path / "adapter")
    assert (found.kind, found.source) == ("adapter", "path")
    assert spec_of(found) == spec_of(base) and tokenizer_of(found).fingerprint == tokenizer.fingerprint
    assert generation_of(found)["temperature"] == 0.5
    assert [file.name for file in weight_files(found)] == ["model.safetensors", "adapter_model.safetensors"]
    opened, _ = open_model(found)
    assert not attached(opened) and not opened.training
    assert list(read_weights(found, None, merge=False).adapters) == ["base"]
    close(logits(opened, ids), logits(model, ids))
    lm = amauta.load(tmp_path / "adapter")
    close(lm.logits(ids), logits(model, ids))
    assert lm.generation_config["temperature"] == 0.5
    lm.save(tmp_path / "merged")
    close(amauta.load(tmp_path / "merged").logits(ids), logits(model, ids))


def test_both_may_move_together(base: Found, tokenizer: Any, tmp_path: Path):
    model, _ = made(base, tmp_path / "adapter", "lora")
    wanted = logits(model, ids_of(tokenizer))
    (tmp_path / "there").mkdir()
    for name in ("base", "adapter"):
        (tmp_path / name).rename(tmp_path / "there" / name)
    close(logits(open_model(find_model(tmp_path / "there" / "adapter"))[0], ids_of(tokenizer)), wanted)
    (tmp_path / "there" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="was made for .*base.*, which is not here"):
        open_model(find_model(tmp_path / "there" / "adapter"))


def test_an_adapter_for_another_base_is_refused(base: Found, tokenizer: Any, tmp_path: Path):
    made(base, tmp_path / "adapter", "lora")
    before = json.loads((tmp_path / "adapter" / "adapter.json").read_text())["base"]["weights"][0]["sha256"]
    write_model(new_model(tokenizer, seed=2), tokenizer, tmp_path / "base")
    with pytest.raises(ModelError) as caught:
        open_model(find_model(tmp_path / "adapter"))
    assert before[:12] in str(caught.value) and caught.value.key == "adapters.other-base"


def test_an_adapter_of_an_adapter(base: Found, tokenizer: Any, tmp_path: Path):
    made(base, tmp_path / "one", "lora")
    model, _ = made(find_model(tmp_path / "one"), tmp_path / "two", "dora")
    ids = ids_of(tokenizer)
    found = find_model(tmp_path / "two")
    close(logits(open_model(found)[0], ids), logits(model, ids))
    made(base, tmp_path / "three", "houlsby")
    model, _ = made(find_model(tmp_path / "three"), tmp_path / "four", "lora")
    opened, _ = open_model(find_model(tmp_path / "four"))
    assert len(opened.adapters) == 2
    close(logits(opened, ids), logits(model, ids))


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"kind": "encoder", "outputs": ("masked",)}], ids=str)
@pytest.mark.parametrize("kinds", [(), ("lora",), ("ia3",), ("lora", "houlsby")], ids="+".join)
def test_new_tokens_are_part_of_the_adapter(
    kinds: tuple[str, ...], changes: dict[str, Any], tokenizer: Any, tmp_path: Path
):
    """Saved, read back and merged, a token that the base never saw has the same ids, rows and probabilities."""
    first = new_model(tokenizer, **changes)
    write_model(first, tokenizer, tmp_path / "base")
    base = find_model(tmp_path / "base")
    model, grown = made(base, tmp_path / "adapter", *kinds, tokens=("<tool>", "<end>"))
    assert grown.encode("<end><tool>") == [tokenizer.size + 1, tokenizer.size]
    assert model.spec.vocabulary == tokenizer.size + 2
    ids = torch.tensor(
        [[*tokenizer.encode("the weaver"), tokenizer.size, *tokenizer.encode("sells"), tokenizer.size + 1]]
    )
    wanted = logits(model, ids)
    assert wanted.shape[-1] == tokenizer.size + 2

    found = find_model(tmp_path / "adapter")
    assert spec_of(found).vocabulary == tokenizer.size + 2
    assert tokenizer_of(found).fingerprint == grown.fingerprint != tokenizer.fingerprint
    for merge in (True, False):
        close(logits(read_weights(found, tokenizer_of(found), merge=merge), ids), wanted)
    if "houlsby" not in kinds:
        plain = merged(model)
        assert plain.embedding.weight.shape[0] == tokenizer.size + 2 and not attached(plain)
        write_model(plain, grown, tmp_path / "merged")
        close(logits(exchange.load(tmp_path / "merged"), ids), wanted)
    if "houlsby" in kinds:  # ours, not peft's; off, the rows that were read stay
        opened = read_weights(found, None, merge=False)
        switch(opened, ())
        assert torch.equal(opened.embedding.weight, model.embedding.weight)
    switch(model, ())  # the base never knew them: rows as they were first
    old = ids_of(tokenizer)
    close(logits(model, old)[..., : tokenizer.size], logits(first, old))
    detach(model)
    assert torch.equal(logits(model, old), logits(first, old)) and model.spec == spec_of(base)


def test_the_first_row_of_a_new_token_is_the_mean_of_its_pieces(base: Found, tokenizer: Any):
    model, grown = open_model(base)
    old = model.embedding.weight.detach().clone()
    pieces = tokenizer.encode("<weaver>")
    grown = add_tokens(model, tokenizer, ["<weaver>", "<t>"])
    told = attach(model, Adapters(new_tokens=("<weaver>", "<t>")), seed=0)
    assert told["trained"] == 2 * 32 and grown.encode("<weaver>") == [tokenizer.size]
    torch.testing.assert_close(model.embedding.weight[tokenizer.size], old[pieces].mean(0))
    assert torch.equal(model.embedding.weight[: tokenizer.size], old)
    model.logits(model(torch.tensor([[tokenizer.size, 5]]))).sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ["embedding.rows"]


def test_values_that_are_put_back_leave_the_first_ones(base: Found, tokenizer: Any):
    """So a run that goes on has the reference that it began with."""
    model, _ = open_model(base)
    add_tokens(model, tokenizer, ["<t>"])
    attach(model, Adapters(new_tokens=("<t>",)), seed=0)
    first = model.embedding.weight.detach().clone()
    put_added(model, {name: value + 1.0 for name, value in added(model).items()})
    assert not torch.equal(model.embedding.weight, first)
    switch(model, ())
    assert torch.equal(model.embedding.weight, first)


def test_a_padded_table_has_room(tokenizer: Any, tmp_path: Path):
    write_model(new_model(tokenizer, vocabulary=tokenizer.size + 5), tokenizer, tmp_path / "base")
    model, _ = made(find_model(tmp_path / "base"), tmp_path / "adapter", "lora", tokens=("<a>", "<b>"))
    assert model.spec.vocabulary == tokenizer.size + 5
    ids = torch.tensor([[4, tokenizer.size, tokenizer.size + 1, tokenizer.size + 4]])
    for merge in (True, False):
        close(logits(read_weights(find_model(tmp_path / "adapter"), None, merge=merge), ids), logits(model, ids))


def test_token_refusals(base: Found, tokenizer: Any):
    model, _ = open_model(base)
    with pytest.raises(ModelError, match="already"):
        add_tokens(model, tokenizer, ["<new>", next(iter(tokenizer.names.values()))])
    add_tokens(model, tokenizer, ["<new>"])
    with pytest.raises(ModelError, match="brings tokens of its own"):
        add_tokens(model, tokenizer, ["<other>"], name="other")


def test_peft_reads_new_tokens(tokenizer: Any, tmp_path: Path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    for tied in (True, False):
        folder, adapter = tmp_path / f"base{tied}", tmp_path / f"adapter{tied}"
        write_model(new_model(tokenizer, tied=tied), tokenizer, folder)
        model, grown = made(find_model(folder), adapter, "lora", tokens=("<tool>", "<end>"))
        ids = torch.tensor([[4, tokenizer.size, 9, tokenizer.size + 1, 7]])
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
        theirs.resize_token_embeddings(grown.size)
        theirs = peft.PeftModel.from_pretrained(theirs, adapter).eval()
        with torch.no_grad():
            wanted = theirs(ids).logits
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-4, rtol=1e-4)
        theirs.save_pretrained(tmp_path / "again")
        config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
        (tmp_path / "again" / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": str(folder)})
        )
        close(logits(read_weights(find_model(tmp_path / "again"), None), ids), logits(model, ids))


def test_whole_tables_of_a_larger_vocabulary(tokenizer: Any, tmp_path: Path):
    """As peft keeps them where the base was resized and the tables are trained whole."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    write_model(new_model(tokenizer, tied=False), tokenizer, tmp_path / "base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs.resize_token_embeddings(tokenizer.size + 3, mean_resizing=False)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"
    )
    theirs = moved(peft.get_peft_model(theirs, config), 0.2).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[4, tokenizer.size, 9, tokenizer.size + 2, 7]])
    with torch.no_grad():
        wanted = theirs(ids).logits
    for merge in (True, False):
        model = read_weights(find_model(tmp_path / "adapter"), None, merge=merge)
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["prefix", "prompt", "prefix-layer"])
def test_what_stands_ahead_takes_of_the_context(kind: str, base: Found, tmp_path: Path):
    model, _ = made(base, tmp_path / "adapter", kind)
    found = find_model(tmp_path / "adapter")
    assert spec_of(found).context == model.spec.context == spec_of(base).context - 2
    assert read_weights(found, None).spec == spec_of(found)


def test_a_new_output_needs_plain_weights(base: Found, tmp_path: Path):
    made(base, tmp_path / "adapter", "houlsby")
    model = read_weights(find_model(tmp_path / "adapter"), None)
    with pytest.raises(ModelError, match="another output"):
        reshaped(model, with_head(model.spec, ("classifier",)), seed=1)


def test_damage_is_named(base: Found, tokenizer: Any, tmp_path: Path):
    folder = tmp_path / "adapter"
    made(base, folder, "lora")
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:200])
    with pytest.raises(ModelError, match="adapter_model.safetensors"):
        open_model(find_model(folder))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        open_model(find_model(folder))
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(ModelError, match="adapter_config.json"):
        open_model(find_model(folder))


def test_a_model_with_adapters_is_not_written_as_if_it_were_plain(base: Found, tokenizer: Any, tmp_path: Path):
    model, _ = made(base, tmp_path / "adapter", "lora")
    with pytest.raises(ModelError, match="its weights alone are not the model"):
        write_model(model, tokenizer, tmp_path / "model")
    assert added(model) and counts(model.spec, Adapters(adapter=("lora",))) == sum(
        v.numel() for v in added(model).values()
    )
