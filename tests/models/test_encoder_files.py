"""Files of encoders as they are met: old names, heads that the config does not speak of, faults and refused options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from tests.models.test_encoders import CONFIGS, IDS, assert_same, new

FAMILIES = ("bert", "distilbert", "roberta", "electra", "albert")
MASKED = "AutoModelForMaskedLM"
Tensors = dict[str, Tensor]


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value.clone() for name, value in change(tensors).items()}, folder / "model.safetensors")


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {name: value for name, value in config.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", FAMILIES)
def test_old_names_buffers_and_tied_copies(family: str, tmp_path: Path):
    theirs = new(family, MASKED)
    theirs.save_pretrained(tmp_path)
    table = theirs.get_input_embeddings().weight
    copy, bias = {
        "bert": ("cls.predictions.decoder.weight", "cls.predictions.bias"),
        "distilbert": ("vocab_projector.weight", None),
        "roberta": ("lm_head.decoder.weight", "lm_head.bias"),
        "electra": ("generator_lm_head.weight", None),
        "albert": ("predictions.decoder.weight", "predictions.bias"),
    }[family]

    def aged(tensors: Tensors) -> Tensors:
        renamed = {name: value for name, value in tensors.items()}
        for name in tensors:
            if "norm" in name.lower():
                old = name.replace(".weight", ".gamma").replace(".bias", ".beta")
                renamed[old] = renamed.pop(name)
        renamed |= {f"{family}.embeddings.position_ids": torch.arange(32)[None], copy: table}
        return renamed | ({copy.replace("weight", "bias"): renamed[bias]} if bias else {})

    rewrite(tmp_path, aged)
    assert_same(theirs, exchange.load(tmp_path), family, MASKED)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_model_with_and_without_the_prefix(family: str, tmp_path: Path):
    theirs = new(family, "AutoModel")
    theirs.save_pretrained(tmp_path)
    assert_same(theirs, exchange.load(tmp_path), family, "AutoModel")
    rewrite(tmp_path, lambda tensors: {f"{family}.{name}": value for name, value in tensors.items()})
    assert_same(theirs, exchange.load(tmp_path), family, "AutoModel")
    edit(tmp_path, architectures="absent")
    assert_same(theirs, exchange.load(tmp_path), family, "AutoModel")


def test_a_file_may_hold_more_than_its_architecture_says(tmp_path: Path):
    """As bert-base-uncased does: it calls itself a BertForMaskedLM, and has the pooler and the other head too."""
    theirs = new("bert", "AutoModelForPreTraining")
    theirs.save_pretrained(tmp_path)
    edit(tmp_path, architectures=["BertForMaskedLM"])
    ours = exchange.load(tmp_path)
    assert ours.spec.outputs == ("masked", "pair") and ours.spec.pooler == "tanh"
    assert_same(theirs, ours, "bert", "AutoModelForPreTraining")
    theirs = new("bert", MASKED)
    theirs.save_pretrained(tmp_path)
    edit(tmp_path, architectures=["BertForPreTraining"])
    with pytest.raises(ModelError, match=r"Missing: bert\.pooler\.dense\.bias.*cls\.seq_relationship\.weight"):
        exchange.load(tmp_path)  # never a model that is silently without its head


def test_an_older_classifier_still_holds_the_pooler_that_it_does_not_use(tmp_path: Path):
    auto = "AutoModelForSequenceClassification"
    theirs = new("roberta", auto)
    theirs.save_pretrained(tmp_path)
    pooler = {"roberta.pooler.dense.weight": torch.ones(48, 48), "roberta.pooler.dense.bias": torch.ones(48)}
    rewrite(tmp_path, lambda tensors: tensors | pooler)
    assert_same(theirs, exchange.load(tmp_path), "roberta", auto)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_an_extra_and_a_misshapen_tensor_are_named(family: str, tmp_path: Path):
    theirs = new(family, MASKED)
    theirs.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    name = next(name for name in sorted(whole) if name.endswith((".key.weight", "k_lin.weight")))
    rewrite(tmp_path, lambda tensors: {n: value for n, value in tensors.items() if n != name})
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        exchange.load(tmp_path)
    rewrite(tmp_path, lambda _: whole | {"encoder.adapter.weight": torch.ones(2)})
    with pytest.raises(ModelError, match=r"encoder\.adapter\.weight"):
        exchange.load(tmp_path)
    norm = next(name for name in sorted(whole) if "norm" in name.lower())
    rewrite(tmp_path, lambda _: whole | {norm: torch.ones(7)})
    with pytest.raises(ModelError, match=r"\(7,\)"):
        exchange.load(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"is_decoder": True}),
        ("bert", {"add_cross_attention": True}),
        ("bert", {"hidden_act": "mish"}),
        ("bert", {"architectures": ["BertForTokenClassification"]}),
        ("bert", {"architectures": ["BertLMHeadModel"]}),
        ("distilbert", {"activation": "mish"}),
        ("distilbert", {"architectures": ["DistilBertForMultipleChoice"]}),
        ("roberta", {"position_embedding_type": "relative_key_query"}),
        ("roberta", {"hidden_act": "relu"}),
        ("roberta", {"architectures": ["RobertaForCausalLM"]}),
        ("electra", {"hidden_act": "relu"}),
        ("electra", {"architectures": ["ElectraForTokenClassification"]}),
        ("albert", {"inner_group_num": 2}),
        ("albert", {"net_structure_type": 1}),
    ],
    ids=str,
)
def test_an_option_that_we_do_not_compute_is_named(family: str, changes: dict[str, Any], tmp_path: Path):
    new(family, MASKED).save_pretrained(tmp_path)
    edit(tmp_path, **changes)
    (name, value), *_ = changes.items()
    value = value[0] if isinstance(value, list) else value
    with pytest.raises(ModelError, match=f"{name}.*{value}"):
        exchange.load(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_without_a_needed_option_names_it(family: str, tmp_path: Path):
    new(family, MASKED).save_pretrained(tmp_path)
    name = "dim" if family == "distilbert" else "hidden_size"
    edit(tmp_path, **{name: "absent"})
    with pytest.raises(ModelError, match=name):
        exchange.load(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropouts_are_kept_in_both_directions(family: str):
    module = exchange.family(family)
    names = ("dropout", "attention_dropout") if family == "distilbert" else (
        "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip
    spec = module.to_spec(CONFIGS[family].to_dict() | dict(zip(names, (0.25, 0.125), strict=True)))
    assert (spec.dropout, spec.embedding_dropout, spec.attention_dropout) == (0.25, 0.25, 0.125)
    assert [module.to_config(spec)[name] for name in names] == [0.25, 0.125]


ENCODER: dict[str, Any] = {
    "vocabulary": 90, "kind": "encoder", "context": 32, "width": 48, "layers": 2, "heads": 4, "feedforward": 70,
    "positions": "learned", "norm": "layer", "norm_place": "post", "norm_eps": 1e-12, "activation": "gelu",
    "gated": False, "bias": True, "embedding_norm": True, "segments": 2, "outputs": ("masked",),
}  # fmt: skip
ALBERT = {"embedding_width": 20, "distinct_layers": 1}


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "bert"),
        ({"outputs": ("masked", "pair"), "pooler": "tanh"}, "bert"),
        ({"segments": 0}, "distilbert"),
        ({"position_offset": 2}, "roberta"),
        ({"embedding_width": 20}, "electra"),
        ({"outputs": ("detector",)}, "electra"),
        ({"outputs": ("classifier",), "pooler": "gelu"}, "electra"),
        (ALBERT, "albert"),
        # what none of them is
        ({"positions": "rotary"}, "amauta"),
        ({"norm_place": "pre"}, "amauta"),
        ({"qkv_bias": False}, "amauta"),
        ({"position_offset": 2, "activation": "relu"}, "amauta"),
        ({"segments": 0, "norm_eps": 1e-5}, "amauta"),
        ({"outputs": ("pair",)}, "amauta"),
        ({"outputs": ("value",)}, "amauta"),
        ({"outputs": ("span", "classifier"), "pooler": "tanh", "labels": 5}, "amauta"),
        ({"embedding_dropout": 0.5}, "amauta"),
        ({"pooling": "mean"}, "amauta"),
        (ALBERT | {"embedding_width": None}, "amauta"),
    ],
    ids=str,
)
def test_the_family_that_an_encoder_is_saved_in(changes: dict[str, Any], family: str, tmp_path: Path):
    ours = Transformer.create(Spec(**ENCODER | changes), seed=1).eval()
    exchange.save(ours, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
    again = exchange.load(tmp_path)
    assert again.spec == ours.spec
    assert torch.equal(again(IDS), ours(IDS))
