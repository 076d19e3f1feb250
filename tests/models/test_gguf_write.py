"""GGUF written: bit for bit the gguf package's numbers, opened by transformers, and never said done when it differs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.contract.probes import TEXTS
from amauta.models.exchange import gguf as reading
from amauta.models.exchange.gguf import tokenizer as gguf_tokenizer
from amauta.models.exchange.gguf import write as ours
from amauta.models.sizes import GPT2
from amauta.models.spec import RopeScaling, Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.settings import Split
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.models.gguf_files import IDS, Kind, V, gguf, logits, real, stored, transformers

SMALL: dict[str, Any] = {"vocabulary": V, "context": 64, "width": 64, "layers": 2, "heads": 4, "feedforward": 96}
SPECS = {
    "llama": Spec(**SMALL, kv_heads=2, tied=False, rope_theta=3e4),
    "llama-biased": Spec(**SMALL, bias=True),
    "qwen2": Spec(**SMALL, kv_heads=2, qkv_bias=True, norm_eps=1e-6),
    "qwen3": Spec(**SMALL, kv_heads=2, qk_norm=True, head_width=32),
    "gpt2": Spec(**SMALL, **GPT2),
}
TEXT = ["The old bridge of 1204 had 3 arches; it's gone.", "¿Dónde está el puente? Allí, señora.\n\n  Sí."] * 20


def made(spec: Spec) -> Transformer:
    model = Transformer.create(spec, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizers() -> dict[Split, Tokenizer]:
    splits: tuple[Split, ...] = ("gpt2", "cl100k", "single-digits")
    return {split: train_bpe(TEXT, 300, split=split) for split in splits}


def kind_of(name: str, shape: tuple[int, ...], asked: str, *, tied: bool) -> str:
    """The type that llama.cpp's tools would choose."""
    if len(shape) == 1 or name.startswith("position_embd"):
        return "F32"
    if asked == "q4_0" and name == ("token_embd.weight" if tied else "output.weight"):
        return "Q8_0"
    return asked.upper()


@pytest.mark.parametrize("asked", ours.FILE_TYPES)
@pytest.mark.parametrize("name", ("llama", "qwen2", "qwen3", "gpt2"))
def test_every_tensor_is_the_gguf_packages_bit_for_bit(name: str, asked: Any, tmp_path: Path):
    """The tensors by way of a model folder, transformers, and llama.cpp's rules."""
    model = made(SPECS[name])
    figures = ours.write(model, None, tmp_path / "model.gguf", type=asked)
    exchange.save(model, tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(number, 2)
    wanted = {names.get_name(key, try_suffixes=(".weight", ".bias")): stored(key, value, theirs.config)
              for key, value in theirs.state_dict().items()}  # fmt: skip
    if model.spec.tied:
        wanted.pop("output.weight", None)
    held = {one.name: one for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert set(held) == set(wanted)
    for key, value in wanted.items():
        kind = kind_of(key, value.shape, asked, tied=model.spec.tied)
        assert held[key].tensor_type.name == kind, key
        expected = gguf.quants.quantize(value, Kind[kind]).view(np.uint8).reshape(-1)
        assert np.array_equal(held[key].data.view(np.uint8).reshape(-1), expected), key
    assert figures["bytes"] == (tmp_path / "model.gguf").stat().st_size
    assert (figures["type"], figures["tokenizer"]) == (asked, False)


@pytest.mark.parametrize("name", ("llama", "qwen2", "gpt2"))
def test_transformers_computes_the_same_from_the_file(name: str, tokenizers: dict[Split, Tokenizer], tmp_path: Path):
    pytest.importorskip("accelerate")
    sizes: dict[str, Any] = {"vocabulary": 300}
    if name == "gpt2":  # transformers takes no other sizes than these
        sizes |= {"context": 1024, "feedforward": 256}
    model = made(Spec(**vars(SPECS[name]) | sizes))
    ours.write(model, tokenizers["gpt2"], tmp_path / "model.gguf", type="f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_what_was_written_is_read_exactly(name: str, tmp_path: Path):
    model = made(SPECS[name])
    figures = ours.write(model, None, tmp_path / "model.gguf", type="f32")
    again = reading.load(tmp_path / "model.gguf")
    assert not ours.gguf_spec.differences(model.spec, again.spec)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert (figures["kl"], figures["largest_difference"], figures["top1_agreement"]) == (0.0, 0.0, 1.0)


def test_figures_are_those_of_the_file(tmp_path: Path):
    model = made(SPECS["llama"])
    figures = ours.write(model, None, tmp_path / "model.gguf", type="q4_0")
    ids = torch.randint(0, V, (4, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.logits(model(ids)).log_softmax(-1)
        again = reading.load(tmp_path / "model.gguf")
        seen = again.logits(again(ids)).log_softmax(-1)
    kl = torch.nn.functional.kl_div(seen, wanted, log_target=True, reduction="none").sum(-1).mean()
    assert figures["kl"] == pytest.approx(float(kl), rel=1e-3)
    assert figures["largest_difference"] == pytest.approx(float((wanted - seen).abs().max()), rel=1e-3)
    assert figures["top1_agreement"] == pytest.approx(float((wanted.argmax(-1) == seen.argmax(-1)).float().mean()))
    assert 0.001 < figures["kl"] < 1 and figures["top1_agreement"] < 1


def test_rope_scaling_and_other_types_of_weights(tmp_path: Path):
    spec = Spec(**SMALL | {"context": 20_000}, head_width=32, rope_theta=5e5,
                rope_scaling=RopeScaling("llama3", 32.0))  # fmt: skip
    ours.write(made(spec).bfloat16(), None, tmp_path / "a.gguf", type="bf16")
    assert reading.read_spec(tmp_path / "a.gguf").rope_scaling == spec.rope_scaling
    linear = Spec(**SMALL, rope_scaling=RopeScaling("linear", 2.0))
    ours.write(made(linear), None, tmp_path / "b.gguf", type="f16")
    assert reading.read_spec(tmp_path / "b.gguf").rope_scaling == linear.rope_scaling


def test_rows_that_are_no_whole_blocks_become_f16(tmp_path: Path):
    ours.write(made(Spec(**SMALL | {"feedforward": 72})), None, tmp_path / "model.gguf", type="q8_0")
    kinds = {one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"  # rows of 72
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == "Q8_0"


# Tokenizers.


@pytest.mark.parametrize("split", ("gpt2", "cl100k", "single-digits"))
def test_a_tokenizer_of_ours_comes_back_as_it_was(split: Split, tokenizers: dict[Split, Tokenizer], tmp_path: Path):
    one = tokenizers[split]
    ours.write(made(Spec(**SMALL | {"vocabulary": 310})), one, tmp_path / "model.gguf", type="f16", name="small")
    again = reading.load_tokenizer(tmp_path / "model.gguf")
    assert isinstance(again, Tokenizer)
    assert again.fingerprint == one.fingerprint and again.stops == one.stops
    fields = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "model.gguf").fields.items()}
    names = {"gpt2": "gpt-2", "cl100k": "dbrx", "single-digits": "stablelm2"}
    expected = {
        "general.architecture": "llama", "general.name": "small", "general.file_type": 1, "llama.vocab_size": 310,
        "llama.context_length": 64, "llama.embedding_length": 64, "llama.block_count": 2, "llama.rope.freq_base": 1e4,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 4, "llama.rope.dimension_count": 16,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": names[split], "tokenizer.ggml.bos_token_id": one.begin,
        "tokenizer.ggml.eos_token_id": one.end, "tokenizer.ggml.eot_token_id": one.turn,
        "tokenizer.ggml.padding_token_id": one.pad, "tokenizer.ggml.add_bos_token": True,
    }  # fmt: skip
    assert {key: fields[key] for key in expected} == expected
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD309]" and len(fields["tokenizer.ggml.tokens"]) == 310
    assert fields["tokenizer.ggml.token_type"] == [3] * 8 + [1] * (one.size - 8) + [5] * (310 - one.size)
    assert "<|assistant|>" in fields["tokenizer.chat_template"]


def test_transformers_reads_the_tokenizer_alike(tokenizers: dict[Split, Tokenizer], tmp_path: Path):
    one = tokenizers["gpt2"]
    ours.write(made(Spec(**SMALL | {"vocabulary": one.size})), one, tmp_path / "model.gguf", type="f32")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in TEXT[:2]:
        assert theirs(text, add_special_tokens=False).input_ids == one.encode(text)
    dialogue = [{"role": "user", "content": "¿Dónde está?"}, {"role": "assistant", "content": "Allí."}]
    assert theirs.apply_chat_template(dialogue, tokenize=False).startswith("<|begin|><|user|>¿Dónde está?<|turn|>")


def foreign(pre: dict[str, Any] | None = None, normalizer: dict[str, Any] | None = None, **model: Any) -> Any:
    """A byte-level tokenizer of others, with another splitting."""
    import tokenizers as library

    inner = library.Tokenizer(library.models.BPE())
    inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<s>", "</s>", "<x>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXT, trainer)
    whole = json.loads(inner.to_str())
    whole |= {"pre_tokenizer": pre or whole["pre_tokenizer"], "normalizer": normalizer}
    whole["model"] |= model
    inner = library.Tokenizer.from_str(json.dumps(whole))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    return ForeignTokenizer(inner, config, generation={"eos_token_id": [1, 2]}, template="{{ messages[0].content }}")


DIGITS = {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]}  # fmt: skip
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip
PLAIN = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_by(pattern: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, PLAIN]}


@pytest.mark.parametrize(
    ("tokenizer", "pre"),
    [
        (foreign(), "gpt-2"),
        (foreign(DIGITS), "smollm"),
        (foreign(split_by(CL100K), ignore_merges=True), "llama-bpe"),
        (foreign(split_by(CL100K)), "dbrx"),
        (foreign(split_by(CL100K.replace("{1,3}", "")), {"type": "NFC"}), "qwen2"),
    ],
)
def test_splittings_have_the_names_of_llama_cpp(tokenizer: ForeignTokenizer, pre: str, tmp_path: Path):
    ours.write(made(Spec(**SMALL | {"vocabulary": 290})), tokenizer, tmp_path / "model.gguf", type="f32")
    fields = reading.GgufFile(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"] == pre
    assert fields["tokenizer.ggml.add_bos_token"] is False
    again = reading.load_tokenizer(tmp_path / "model.gguf")
    assert isinstance(again, ForeignTokenizer)
    assert (again.begin, again.end, again.pad, again.stops) == (0, 1, None, (1, 2))
    assert again.encode(TEXT[0] + TEXT[1]) == tokenizer.encode(TEXT[0] + TEXT[1])
    assert again.template is not None and again.template.source == "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("tokenizer", "what"),
    [
        (foreign(split_by(r"\p{L}+|\s+")), r"p\{L\}"),
        (foreign(ignore_merges=True), "'s"),
        (foreign({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}), "prefix"),
        (foreign({"type": "Whitespace"}), "Whitespace"),
        (foreign(None, {"type": "Lowercase"}), "Lowercase"),
    ],
)
def test_a_splitting_that_has_no_name_is_refused(tokenizer: ForeignTokenizer, what: str, tmp_path: Path):
    with pytest.raises(ModelError, match=f"no name for what this tokenizer does: .*{what}"):
        ours.write(made(Spec(**SMALL | {"vocabulary": 290})), tokenizer, tmp_path / "model.gguf", type="f32")
    assert not list(tmp_path.iterdir())


def test_sentencepiece_there_and_back(tmp_path: Path):
    from amauta.tokenize import pieces as sp

    letters = ["▁", *"abcdeé"]
    made_up = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{i:02X}>", 0.0, 6) for i in range(256)),
               ("▁a", -0.0, 1), ("bc", -1.0, 1), ("▁abc", -2.0, 1), ("de", -3.0, 1),
               *((letter, -9.0 - i, 1) for i, letter in enumerate(letters))]  # fmt: skip
    tokens, scores, types = (list(column) for column in zip(*made_up, strict=True))
    inner = sp.sentencepiece_bpe(tokens, scores, types)
    sp.ends(inner, "<s>")
    one = ForeignTokenizer(inner, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    ours.write(made(Spec(**SMALL | {"vocabulary": len(tokens)})), one, tmp_path / "model.gguf", type="f32")
    fields = reading.GgufFile(tmp_path / "model.gguf").fields
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.add_space_prefix"]) == ("llama", True)
    assert fields["tokenizer.ggml.tokens"] == tokens and fields["tokenizer.ggml.token_type"] == types
    order = sorted(("▁a", "bc", "▁abc", "de"), key=lambda one: -fields["tokenizer.ggml.scores"][tokens.index(one)])
    assert order == ["▁a", "bc", "▁abc", "de"]
    again = reading.load_tokenizer(tmp_path / "model.gguf")
    assert again is not None
    for text in ("abc de", "a é\n😀 abcde"):
        assert again.prompt(text) == one.prompt(text) and again.prompt(text)[0] == 1
        assert again.decode(again.encode(text)) == text


def test_the_real_tokenizer_as_transformers_reads_it():
    path = real()
    made, theirs = reading.load_tokenizer(path), transformers.AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name
    )  # fmt: skip
    assert isinstance(made, ForeignTokenizer)
    for text in (*TEXT[:2], "1234 café\n\n\t x", *TEXTS):
        assert made.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert made.prompt(text) == made.encode(text)  # the file says: no first token
    dialogue = [{"role": "user", "content": "Hi"}]
    text = theirs.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
    assert made.template is not None and made.template.render(dialogue, reply=True, where="x") == text
    assert (made.begin, made.end, made.stops) == (1, 2, (2,))


# What is refused, and what is left behind.


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (Spec(**SMALL, kind="encoder", outputs=("masked",)), "kind=encoder"),
        (Spec(**SMALL, outputs=("classifier",)), "outputs=classifier"),
        (Spec(**SMALL, window=8), "window=8"),
        (Spec(**SMALL, activation="gelu"), "activation=gelu"),
        (Spec(**SMALL, norm="layer"), "norm=layer"),
        (Spec(**SMALL, qk_norm=True, bias=True), "bias=True"),
        (Spec(**SMALL, embedding_scale=8.0), "embedding_scale=8.0"),
        (Spec(**SMALL, norm_place="both"), "norm_place=both"),
        (Spec(**SMALL, positions="learned"), "positions=learned|norm=rms"),
    ],
)
def test_a_model_that_gguf_has_no_words_for(spec: Spec, what: str, tmp_path: Path):
    with pytest.raises(ModelError, match=f"no words for this model: .*({what})"):
        ours.write(Transformer.create(spec, seed=1), None, tmp_path / "model.gguf", type="f32")
    assert not list(tmp_path.iterdir())


def test_more_tokens_than_rows(tokenizers: dict[Split, Tokenizer], tmp_path: Path):
    with pytest.raises(ModelError, match=r"has 300 entries, and the model only 96 rows"):
        ours.write(made(SPECS["llama"]), tokenizers["gpt2"], tmp_path / "model.gguf", type="f32")


def test_a_file_that_differs_is_not_left_and_the_older_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, path = made(SPECS["llama"]), tmp_path / "model.gguf"
    ours.write(model, None, path, type="q8_0")
    before = path.read_bytes()
    # q and k not turned: the fault that makes gibberish of a Llama.
    monkeypatch.setattr(ours, "interleaved", lambda source, heads: source)
    with pytest.raises(ModelError, match=r"does not compute what the model does: KL .* nats"):
        ours.write(model, None, path, type="q8_0")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_tolerance_that_is_given_holds(tmp_path: Path):
    with pytest.raises(ModelError, match="tolerance of q4_0: 1e-06"):
        ours.write(made(SPECS["llama"]), None, tmp_path / "model.gguf", type="q4_0", tolerance=1e-6)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_comes_back_different_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    numbers = train_bpe(["12345 67890"] * 9, 270)  # five digits in one piece
    monkeypatch.setattr(gguf_tokenizer, "_pre", lambda whole: "dbrx")  # which would cut them by threes
    with pytest.raises(ModelError, match="its tokenizer gives other ids"):
        ours.write(made(Spec(**SMALL | {"vocabulary": 270})), numbers, tmp_path / "model.gguf", type="f32")
    assert not list(tmp_path.iterdir())
