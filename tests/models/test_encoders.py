"""Encoders: what transformers computes from ours, and we from theirs, in f32, with every head and with padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amauta.models import exchange
from amauta.models.count import parameters
from amauta.models.transformer import Transformer
from tests.models.test_exchange import disturbed

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "intermediate_size": 70, "max_position_embeddings": 32}  # fmt: skip
CONFIGS = {
    "bert": transformers.BertConfig(**SMALL),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=90, dim=48, n_layers=4, n_heads=4, hidden_dim=70, max_position_embeddings=32
    ),
    "roberta": transformers.RobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1),
    "xlm-roberta": transformers.XLMRobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1),
    "electra": transformers.ElectraConfig(**SMALL, embedding_size=20),
    "albert": transformers.AlbertConfig(**SMALL, embedding_size=20, num_hidden_groups=2),
}
AUTO = {  # the outputs of each class, and where it puts them
    "AutoModel": {},
    "AutoModelForMaskedLM": {"masked": "logits"},
    "AutoModelForPreTraining": {"masked": "prediction_logits", "pair": "seq_relationship_logits"},
    "AutoModelForNextSentencePrediction": {"pair": "logits"},
    "AutoModelForSequenceClassification": {"classifier": "logits"},
    "AutoModelForQuestionAnswering": {"span": "start_logits"},
}
OTHERS = {  # of the families that differ
    ("albert", "AutoModelForPreTraining"): {"masked": "prediction_logits", "pair": "sop_logits"},
    ("electra", "AutoModelForPreTraining"): {"detector": "logits"},
}
ONLY_BERT = ("AutoModelForPreTraining", "AutoModelForNextSentencePrediction")
CASES = [
    (family, auto)
    for family in CONFIGS
    for auto in AUTO
    if family == "bert" or auto not in ONLY_BERT or (family, auto) in OTHERS
]
POOLED = {"bert", "roberta", "xlm-roberta", "albert"}  # base models with a pooler

IDS = torch.randint(3, 90, (2, 13), generator=torch.Generator().manual_seed(0))  # 0 and 1 are padding ids
SEGMENTS = (torch.arange(13) > 5).long().expand(2, 13)
RIGHT = torch.arange(13) < torch.tensor([[13], [9]])
LEFT = RIGHT.flip(1)


def read_as(auto: str, family: str) -> dict[str, str]:
    return OTHERS.get((family, auto), AUTO[auto])


def new(family: str, auto: str, **changes: Any) -> Any:
    """A model of transformers with disturbed weights."""
    config = type(CONFIGS[family]).from_dict(CONFIGS[family].to_dict() | changes)
    return disturbed(getattr(transformers, auto).from_config(config))


def inputs(family: str, mask: Tensor | None, segments: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    """Ids with padding in them, and all else that transformers is given."""
    pad = CONFIGS[family].pad_token_id
    given: dict[str, Any] = {"input_ids": IDS if mask is None else IDS.where(mask, pad), "output_hidden_states": True}
    if mask is not None:
        given["attention_mask"] = mask.long()
        if pad == 0:  # RoBERTa counts positions over real tokens by itself, the others count padding unless told
            given["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
    if segments is not None:
        given["token_type_ids"] = segments
    return given["input_ids"], given


def their_outputs(theirs: Any, outputs: dict[str, str], given: dict[str, Any]) -> dict[str, Tensor]:
    with torch.no_grad():
        made = theirs(**given)
    found = {"hidden": made.hidden_states[-1]}
    if getattr(made, "pooler_output", None) is not None:
        found["pooled"] = made.pooler_output
    for output, place in outputs.items():
        value = getattr(made, place)
        found[output] = torch.stack((value, made.end_logits), -1) if output == "span" else value
    return found


@torch.no_grad()
def our_outputs(
    ours: Transformer, outputs: dict[str, str], ids: Tensor, mask: Tensor | None, segments: Tensor | None
) -> dict[str, Tensor]:
    hidden = ours(ids, mask=mask, segments=segments)
    found = {"hidden": hidden} | {output: ours.logits(hidden, mask=mask, output=output) for output in outputs}
    if not outputs and ours.spec.pooler != "none":
        found["pooled"] = ours.pool(hidden, mask)
    return found


def assert_same(
    theirs: Any, ours: Transformer, family: str, auto: str, mask: Tensor | None = None, segments: Tensor | None = None
) -> None:
    """Equal hidden states and outputs at every real token."""
    outputs = read_as(auto, family)
    ids, given = inputs(family, mask, segments)
    wanted = their_outputs(theirs, outputs, given)
    found = our_outputs(ours, outputs, ids, mask, segments)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        tokenwise = value.shape[:2] == IDS.shape
        kept = mask if mask is not None and tokenwise else torch.ones(value.shape[:1], dtype=torch.bool)
        torch.testing.assert_close(
            found[name][kept], value[kept], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("family", "auto"), CASES)
def test_we_compute_what_transformers_does(family: str, auto: str, tmp_path: Path):
    theirs = new(family, auto)
    theirs.save_pretrained(tmp_path)
    ours = exchange.load(tmp_path)
    assert ours.spec.outputs == tuple(read_as(auto, family))
    assert_same(theirs, ours, family, auto)
    assert_same(theirs, ours, family, auto, mask=RIGHT)
    if family in ("bert", "electra", "albert"):
        assert_same(theirs, ours, family, auto, segments=SEGMENTS)
        assert_same(theirs, ours, family, auto, mask=RIGHT, segments=SEGMENTS)


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_at_the_left(family: str, tmp_path: Path):
    theirs = new(family, "AutoModelForMaskedLM")
    theirs.save_pretrained(tmp_path)
    assert_same(theirs, exchange.load(tmp_path), family, "AutoModelForMaskedLM", mask=LEFT)


@pytest.mark.parametrize(("family", "auto"), CASES)
def test_transformers_computes_what_we_do(family: str, auto: str, tmp_path: Path):
    theirs = new(family, auto)
    config = theirs.config.to_dict() | {"architectures": [type(theirs).__name__]}
    spec = exchange.read_spec(config)
    assert exchange.family(family).to_spec(exchange.family(family).to_config(spec)) == spec
    ours = disturbed(Transformer.create(spec, seed=1))
    exchange.save(ours, tmp_path, special={"bos_token_id": 2, "eos_token_id": [3], "pad_token_id": 0})
    theirs, said = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    assert theirs.config.model_type == exchange.family(family).MODEL_TYPE
    assert_same(theirs.eval(), ours, family, auto, mask=RIGHT)
    again = exchange.load(tmp_path)
    assert again.spec == spec
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("family", CONFIGS)
def test_an_untied_table_and_its_bias(family: str, tmp_path: Path):
    theirs = new(family, "AutoModelForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = exchange.load(tmp_path / "theirs")
    assert not ours.spec.tied
    assert_same(theirs, ours, family, "AutoModelForMaskedLM")
    exchange.save(ours, tmp_path / "ours")
    again, said = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"]
    assert_same(again.eval(), ours, family, "AutoModelForMaskedLM")


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_new", "gelu_pytorch_tanh"])
@pytest.mark.parametrize(("family", "auto"), [("bert", "AutoModelForMaskedLM"), ("electra", "AutoModelForPreTraining"),
                                              ("albert", "AutoModelForMaskedLM")])  # fmt: skip
def test_the_activation_of_a_head_is_the_layers(family: str, auto: str, activation: str, tmp_path: Path):
    theirs = new(family, auto, hidden_act=activation)
    theirs.save_pretrained(tmp_path)
    assert_same(theirs, exchange.load(tmp_path), family, auto)


@pytest.mark.parametrize("family", CONFIGS)
def test_classes_by_name_and_a_regressor(family: str, tmp_path: Path):
    auto = "AutoModelForSequenceClassification"
    names = {0: "bad", 1: "so-so", 2: "good"}
    theirs = new(family, auto, id2label=names, label2id={name: i for i, name in names.items()})
    theirs.save_pretrained(tmp_path / "three")
    ours = exchange.load(tmp_path / "three")
    assert ours.spec.label_names == ("bad", "so-so", "good")
    assert_same(theirs, ours, family, auto, mask=RIGHT)
    exchange.save(ours, tmp_path / "ours")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "ours").id2label == names
    theirs = new(family, auto, id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    theirs.save_pretrained(tmp_path / "one")
    ours = exchange.load(tmp_path / "one")
    assert ours.spec.labels == 1 and ours.outputs.classifier.weight.shape == (1, 48)
    assert_same(theirs, ours, family, auto, mask=RIGHT)


PUBLISHED = {  # parameters, as each class of transformers counts them in its published size
    ("bert", "BertModel"): ({}, 109_482_240),
    ("bert", "BertForPreTraining"): ({}, 110_106_428),
    ("distilbert", "DistilBertModel"): ({}, 66_362_880),
    ("roberta", "RobertaForMaskedLM"): (
        {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}, 124_697_433,
    ),
    ("electra", "ElectraForPreTraining"): ({}, 13_549_057),
    ("electra", "ElectraForMaskedLM"): (
        {"hidden_size": 256, "embedding_size": 768, "intermediate_size": 1024}, 33_740_602,
    ),
    ("albert", "AlbertModel"): ({}, 222_595_584),
}  # fmt: skip


@pytest.mark.parametrize(("family", "architecture"), PUBLISHED)
def test_published_sizes(family: str, architecture: str):
    changes, wanted = PUBLISHED[family, architecture]
    config = transformers.AutoConfig.for_model(family, **changes, architectures=[architecture]).to_dict()
    assert parameters(exchange.read_spec(config)) == wanted
