"""Every kind of adapter on every manner of model: the identity at first, what is trained, off, merged, saved, taken
off; several at once; and requests that cannot be met."""

import copy

import pytest
import torch

from amauta.adapt.around import Around
from amauta.adapt.settings import KINDS, Adapters
from amauta.base.errors import ConfigError, ModelError
from amauta.models.adapters import added, attach, counts, detach, merge, merged, put_added, switch, unmerge
from amauta.models.adapters.parts import plain
from tests.models.adapters.toys import BEFORE, MERGED, SPECS, adapted, close, model_of, moved, says

BIASED = ("gpt1", "bert", "albert", "bart", "untied", "reformer")


def fits(kind: str, family: str) -> bool:
    return not (kind in BEFORE and family == "reformer") and (kind != "bitfit" or family in BIASED)


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("kind", KINDS)
def test_life(kind: str, family: str):
    """What holds for every adapter, from attaching it to taking it off."""
    model = model_of(family)
    if not fits(kind, family):
        with pytest.raises((ConfigError, ModelError)):
            attach(model, Adapters(adapter=(kind,)), seed=4)
        assert not model.adapters and not any(isinstance(part, Around) for part in model.modules())
        return
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    base, spec = says(model), model.spec
    settings = Adapters(adapter=(kind,), adapter_length=3)
    told = attach(model, settings, seed=4)
    if kind not in BEFORE:
        assert torch.equal(says(model), base)  # nothing changes at first
    trained = {plain(name) for name, value in model.named_parameters() if value.requires_grad}
    assert sum(value.numel() for value in added(model).values()) == told["trained"] == counts(spec, settings)
    assert told["parameters"] == sum(value.numel() for value in model.parameters())

    says(model.train(), grad=True).square().mean().backward()
    reached = {plain(name) for name, value in model.named_parameters() if value.grad is not None}
    assert reached <= trained and reached, "a gradient where nothing is trained"
    dead = {plain(n) for n, p in model.named_parameters() if p.grad is not None and not p.grad.abs().sum()}
    assert len(dead) < len(reached)
    model.zero_grad()

    changed = says(moved(model.eval(), 0.1))
    assert not torch.allclose(changed, base, atol=1e-4)
    switch(model, ())
    assert torch.equal(says(model), base)
    switch(model, ["default"])
    assert torch.equal(says(model), changed)

    again = model_of(family)
    attach(again, settings, seed=9)
    put_added(again, copy.deepcopy(added(model)))
    assert torch.equal(says(again), changed)

    if kind in MERGED:
        plain_copy = merged(model)
        assert not plain_copy.adapters and [n for n, _ in plain_copy.named_parameters()] == list(before)
        close(says(plain_copy), changed)
        with torch.no_grad():
            for value in plain_copy.parameters():
                value.zero_()
        assert torch.equal(says(model), changed), "the copy shares memory with the model"
        merge(model)
        close(says(model), changed)
        unmerge(model)
        assert torch.equal(says(model), changed)
        merge(model)  # switching takes what was merged out of the weights
        switch(model, ())
        assert torch.equal(says(model), base)
        switch(model, ["default"])
        assert torch.equal(says(model), changed)
        merge(model)
    else:
        for refused in (merge, merged):
            with pytest.raises(ModelError, match="cannot be written into the weights"):
                refused(model)
        assert torch.equal(says(model), changed)

    detach(model)
    assert torch.equal(says(model), base) and model.spec == spec and not model.adapters
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


COMBINED = [("houlsby", "norms"), ("embeddings", "lora"), ("lora", "pfeiffer", "bitfit"), ("dora", "ia3"),
            ("lora", "prompt")]  # fmt: skip


@pytest.mark.parametrize("kinds", COMBINED, ids="+".join)
@pytest.mark.parametrize("family", ["untied", "bert", "bart"])
def test_combinations(kinds: tuple[str, ...], family: str):
    model = model_of(family)
    base = says(model)
    whole = counts(model.spec, Adapters(adapter=kinds, adapter_length=3))
    parts = [set(added(adapted(model_of(family), kind))) for kind in kinds]
    adapted(model, *kinds)
    assert set(added(model)) == set().union(*parts)
    assert whole == sum(value.numel() for value in added(model).values())
    changed = says(model)
    again = model_of(family)
    attach(again, Adapters(adapter=kinds, adapter_length=3), seed=1)
    put_added(again, added(model))
    assert torch.equal(says(again), changed)
    detach(model)
    assert torch.equal(says(model), base)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "houlsby", "prefix", "prompt", "prefix-layer"])
def test_several_adapters_in_one_batch(kind: str):
    """Each row of a batch under its own adapter says what it says alone; and they can be added up."""
    model = model_of("gemma")
    base = says(model)
    adapted(model, kind, name="one", seed=5)
    one = says(model)
    switch(model, ())
    adapted(model, kind, name="two", seed=6)
    switch(model, ["two"])
    two = says(model)
    assert not torch.allclose(one, two, atol=1e-3)
    if kind not in BEFORE:
        switch(model, {"one": torch.tensor([1, 0]), "two": torch.tensor([0, 1])})
        mixed = says(model)
        torch.testing.assert_close(mixed[0], one[0])
        torch.testing.assert_close(mixed[1], two[1])
        with pytest.raises(ModelError, match="some rows of the batch only"):
            merged(model)
        switch(model, {"one": torch.tensor([0, 1]), "two": torch.tensor([0, 0])})
        torch.testing.assert_close(says(model)[0], base[0])
        torch.testing.assert_close(says(model)[1], one[1])
    switch(model, ["one"])
    torch.testing.assert_close(says(model), one)
    if kind in MERGED:
        switch(model, ["one", "two"])
        both = says(model)
        close(says(merged(model)), both)
        merge(model)
        close(says(model), both)
        unmerge(model)
        assert torch.equal(says(model), both)
    detach(model, "one")
    switch(model, ["two"])
    torch.testing.assert_close(says(model), two)
    detach(model, "two")
    assert torch.equal(says(model), base)


def test_two_adapters_of_the_same_weights_take_turns():
    model = model_of("bart")
    base = says(model)
    one = says(adapted(model, "norms", name="one"))
    with pytest.raises(ModelError, match="both train"):
        attach(model, Adapters(adapter=("bitfit",)), seed=0, name="two")
    assert list(model.adapters) == ["one"]
    switch(model, ())
    two = says(adapted(model, "bitfit", name="two"))
    with pytest.raises(ModelError, match="both train"):
        switch(model, ["one", "two"])
    with pytest.raises(ModelError, match="whole batch"):
        switch(model, {"two": torch.tensor([1, 0])})
    for names, said in ((["one"], one), (["two"], two), ([], base)):
        switch(model, names)
        assert torch.equal(says(model), said)


def test_only_the_new_adapter_and_new_outputs_are_trained():
    model = model_of("bert", outputs=("classifier",), labels=3)
    attach(model, Adapters(adapter=("lora",)), seed=1, name="one")
    attach(model, Adapters(adapter=("houlsby",)), seed=1, name="two", also=("outputs.classifier.",))
    trained = {plain(name) for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {key.replace(".houlsby", "") for key in added(model, "two")}
    assert {name for name in trained if name.startswith("outputs.")} == {
        "outputs.classifier.weight", "outputs.classifier.bias",
    }  # fmt: skip
    base = model.outputs.classifier.weight.detach().clone()
    with torch.no_grad():
        model.outputs.classifier.weight.add_(1.0)
    switch(model, ["one"])
    assert torch.equal(model.outputs.classifier.weight, base)
    switch(model, ["one", "two"])
    assert torch.equal(model.outputs.classifier.weight, base + 1.0)


def test_a_seed_gives_the_same_adapter():
    one, two, three = (adapted(model_of("llama"), "lora", seed=seed) for seed in (4, 4, 5))
    assert all(torch.equal(value, added(two)[name]) for name, value in added(one).items())
    assert not torch.equal(added(one)[next(iter(added(one)))], added(three)[next(iter(added(one)))])


def test_dropout_acts_on_the_branch_alone_and_in_training_alone():
    model = adapted(model_of("llama"), "lora", adapter_dropout=0.5)
    there = says(model)
    model.train()
    assert not torch.equal(says(model), there)
    switch(model, ())
    torch.testing.assert_close(says(model), says(model.eval()))


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_bf16_weights_keep_f32_adapters(name: str):
    model = model_of(name).to(torch.bfloat16)
    attach(model, Adapters(adapter=("lora", "dora", "ia3", "houlsby")), seed=0)
    assert {value.dtype for value in added(model).values()} == {torch.float32}
    assert says(model).dtype == torch.bfloat16 and says(model).isfinite().all()


def test_refusals():
    model = model_of("llama")
    attach(model, Adapters(adapter=("lora",)), seed=0)
    with pytest.raises(ModelError, match="already"):
        attach(model, Adapters(adapter=("ia3",)), seed=0)
    with pytest.raises(ModelError, match="Did you mean 'default'"):
        switch(model, ["defalt"])
    other = adapted(model_of("llama"), "lora", adapter_rank=4)
    with pytest.raises(ModelError, match=r"the shape \(12, 32\); this model needs \(24, 32\)"):
        put_added(model, added(other))
    with pytest.raises(ModelError, match=r"Missing: decoder\.blocks\.0\.attention\.out"):
        put_added(model, added(adapted(model_of("llama"), "lora", adapter_targets=("q", "k", "v"))))
    with pytest.raises(ConfigError, match=r"nothing to train here.*It has some of: norms, embeddings"):
        attach(model_of("llama"), Adapters(adapter=("bitfit",)), seed=0)
    with pytest.raises(ModelError):
        attach(model, Adapters(adapter=("lora", "prefix", "prompt")), seed=0, name="other")
    assert list(model.adapters) == ["default"] and not model.decoder.ahead and model.spec == model_of("llama").spec
