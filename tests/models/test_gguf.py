"""GGUF read: what transformers computes from the same weights, and what is refused."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models.exchange import gguf as ours
from amauta.models.exchange.gguf.file import READABLE, GgufFile
from amauta.models.exchange.gguf.names import parts
from amauta.models.spec import RopeScaling
from amauta.models.transformer import Transformer
from tests.models.gguf_files import (
    CONFIGS,
    IDS,
    V,
    architecture,
    gguf,
    llama,
    logits,
    model_of,
    real,
    transformers,
    write,
)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path):
    theirs = model_of(CONFIGS[name])
    made = ours.load(write(theirs, tmp_path / "model.gguf"))
    assert not made.training and made.spec == ours.read_spec(tmp_path / "model.gguf")
    with torch.no_grad():
        torch.testing.assert_close(logits(made), theirs(IDS).logits, atol=1e-4, rtol=1e-4)


def test_every_type_in_one_file_as_transformers_reads_it(tmp_path: Path):
    pytest.importorskip("accelerate")
    wide = llama(hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    kinds = iter(READABLE * 2)
    chosen: dict[str, str] = {}
    path = write(model_of(wide), tmp_path / "model.gguf", lambda name: chosen.setdefault(name, next(kinds)))
    assert set(chosen.values()) == set(READABLE)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    with torch.no_grad():
        expected = theirs(IDS).logits
    torch.testing.assert_close(logits(ours.load(path)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", READABLE)
def test_the_numbers_are_those_of_the_gguf_package(kind: str, tmp_path: Path):
    wide = llama(hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    path = write(model_of(wide), tmp_path / "model.gguf", lambda _: kind)
    made = ours.load(path)
    theirs = {one.name: gguf.dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}
    state = made.state_dict()
    assert np.array_equal(state["embedding.weight"].numpy(), theirs["token_embd.weight"])
    gate_and_up = np.concatenate([theirs["blk.0.ffn_gate.weight"], theirs["blk.0.ffn_up.weight"]])
    assert torch.equal(state["decoder.blocks.0.feedforward.up.weight"], torch.from_numpy(gate_and_up))


def test_a_table_that_is_read_in_several_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf", lambda _: "Q8_0")
    whole = ours.load(path).state_dict()
    monkeypatch.setattr("amauta.models.exchange.gguf.file.CHUNK", 64 * 7)  # seven rows at a time
    for name, value in ours.load(path).state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_the_type_and_the_place_that_were_asked_for(tmp_path: Path):
    path = write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf")
    made, whole = ours.load(path, dtype=torch.bfloat16), ours.load(path)
    for name, value in made.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name].bfloat16())


def test_specs(tmp_path: Path):
    found = {name: ours.read_spec(write(model_of(config), tmp_path / name)) for name, config in CONFIGS.items()}
    assert found["llama-3"].rope_scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    assert found["llama-3"].rope_theta == 5e5 and found["llama-3"].context == 131072
    assert found["llama-linear"].rope_scaling == RopeScaling("linear", 4.0)
    assert found["llama"].norm_eps == 1e-6  # not 9.99999997e-07
    assert found["llama-biased"].bias and found["qwen2"].biased_qkv and not found["qwen2"].bias
    assert found["gpt2"].context == 40 and found["gpt2"].tied and not found["llama"].tied
    gemma = found["gemma3"]
    assert [gemma.windowed(i) for i in range(7)] == [True] * 5 + [False, True]
    assert (gemma.window, gemma.local_theta, gemma.rope_theta) == (5, 1e4, 1e6)
    assert found["qwen3"].family == "qwen3" and gemma.family == "gemma3_text"


def test_metadata_equal_those_of_the_gguf_package(tmp_path: Path):
    def more(writer: Any) -> None:
        writer.add_token_list(["a", "ñandú", "", "▁x" * 50])
        writer.add_token_scores([0.5, -1.0, 0.0, 3.25])
        writer.add_token_types([1, 2, 3, 6])
        writer.add_array("x.flags", [True, False])
        for method, value in (("uint8", 250), ("int8", -3), ("uint16", 65000), ("int16", -300), ("uint64", 1 << 60),
                              ("int64", -(1 << 60)), ("float64", 0.1), ("int32", -7), ("bool", True)):  # fmt: skip
            getattr(writer, f"add_{method}")(f"x.{method}", value)
        writer.add_custom_alignment(4096)

    path = write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf", more=more)
    same_as_the_package(path)


def same_as_the_package(path: Path) -> None:
    made, theirs = GgufFile(path), gguf.GGUFReader(path)
    wanted = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert made.fields == wanted
    assert list(made.tensors) == [one.name for one in theirs.tensors]
    for one in theirs.tensors:
        info = made.tensors[one.name]
        assert (info.shape, info.kind) == (tuple(reversed(one.shape.tolist())), one.tensor_type.name)
        assert (info.offset, info.size) == (one.data_offset, one.n_bytes)
        assert np.array_equal(made.raw(info).reshape(-1), one.data.view(np.uint8).reshape(-1))


def test_the_real_file_is_read_as_the_gguf_package_does():
    same_as_the_package(real())


def test_the_real_model_computes_what_transformers_does():
    pytest.importorskip("accelerate")
    path = real()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ids = torch.randint(0, 49152, (2, 40), generator=torch.Generator().manual_seed(0))
    made = ours.load(path)
    with torch.inference_mode():
        expected = theirs(ids).logits.log_softmax(-1)
        torch.testing.assert_close(made.logits(made(ids)).log_softmax(-1), expected, atol=5e-4, rtol=0)


# What is refused.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf")


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(ModelError, match=pattern):
        ours.load(path)


def test_what_is_no_gguf(tmp_path: Path):
    refused(tmp_path / "absent.gguf", "absent.gguf cannot be read")
    (tmp_path / "short.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "short.gguf", "no GGUF file")
    (tmp_path / "other.gguf").write_bytes(b"GGML" + bytes(100))
    refused(tmp_path / "other.gguf", "no GGUF file")


def patched(path: Path, at: int, raw: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(raw)] = raw
    path.write_bytes(whole)
    return path


def test_another_version_or_byte_order(path: Path):
    refused(patched(path, 4, struct.pack("<I", 1)), "version 1 .*read here: 2, 3")
    refused(patched(path, 4, struct.pack(">I", 3)), "big-endian")


def test_cut_off_within_the_data_names_the_tensor_and_the_offset(path: Path):
    last = list(GgufFile(path).tensors.values())[-1]
    path.write_bytes(path.read_bytes()[: last.offset + last.size - 1])
    refused(path, rf"'{last.name}' stands at bytes {last.offset} to {last.offset + last.size}, and the file ends")


def test_cut_off_within_the_metadata_names_the_offset(path: Path):
    whole = path.read_bytes()
    for length in (23, 24, 60, 200, 700, 1500):
        path.write_bytes(whole[:length])
        refused(path, "no GGUF" if length < 24 else r"cut off: '.+' at byte \d+")


def test_counts_and_lengths_beyond_reason_end_in_an_error(path: Path):
    whole = path.read_bytes()
    for at in (8, 16, 24):  # tensors, entries, the length of the first name
        refused(patched(path, at, struct.pack("<Q", 1 << 62)), r"cut off|damaged")
        path.write_bytes(whole)


def test_a_damaged_table(path: Path):
    info = GgufFile(path).tensors["blk.0.attn_norm.weight"]
    at = path.read_bytes().index(b"blk.0.attn_norm.weight") + len("blk.0.attn_norm.weight")
    whole = path.read_bytes()
    refused(patched(path, at, struct.pack("<I", 9)), r"blk\.0\.attn_norm\.weight.*dimensions 9")
    path.write_bytes(whole)
    refused(patched(path, at + 12, struct.pack("<I", 30_000)), r"blk\.0\.attn_norm\.weight.*type 30000.*Q4_K")
    path.write_bytes(whole)
    refused(patched(path, at + 16, struct.pack("<Q", 32)), rf"blk\.0\.attn_norm\.weight.*where {info.offset} follows")


def test_damaged_metadata(path: Path):
    whole = path.read_bytes()
    at = whole.index(b"llama.block_count") + len("llama.block_count")
    refused(patched(path, at, struct.pack("<I", 77)), "block_count.*type of value 77")
    path.write_bytes(whole)
    refused(patched(path, at + 4, struct.pack("<I", 0)), "llama.block_count' is 0")
    path.write_bytes(whole)
    refused(patched(path, at - 5, b"k\xff\xffnt"), "no UTF-8")


def test_the_same_name_twice(path: Path):
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"llama.context_length", b"general.architecture"))
    refused(path, "holds 'general.architecture' twice")
    path.write_bytes(whole.replace(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight"))
    refused(path, r"holds 'blk\.0\.attn_k\.weight' twice")


def test_missing_entries_and_tensors(tmp_path: Path):
    model = model_of(CONFIGS["llama"])
    refused(write(model, tmp_path / "a", without="blk.1.ffn_up.weight"), r"lacks tensors.*blk\.1\.ffn_up\.weight")
    path = write(model, tmp_path / "b")
    path.write_bytes(path.read_bytes().replace(b"llama.embedding_length", b"llama.embedding_lxngth"))
    refused(path, r"embedding_lxngth' is 64; computed here: 0")
    path = write(model, tmp_path / "c")
    path.write_bytes(path.read_bytes().replace(b"llama.embedding_length", b"other.embedding_length"))
    refused(path, "lacks the entry 'llama.embedding_length'")


def test_tensors_that_nothing_computes_with(tmp_path: Path):
    def more(writer: Any) -> None:
        writer.add_tensor("blk.0.ffn_gate_inp.weight", np.zeros((4, 64), np.float32))

    refused(write(model_of(CONFIGS["llama"]), tmp_path / "a", more=more), r"nothing here.*blk\.0\.ffn_gate_inp")


def test_shapes_that_disagree_with_the_metadata(path: Path):
    at = path.read_bytes().index(b"llama.feed_forward_length") + len("llama.feed_forward_length") + 4
    whole = path.read_bytes()
    refused(patched(path, at, struct.pack("<I", 80)), r"ffn_gate\.weight' has the shape \(96, 64\).*must be \(80, 64\)")
    path.write_bytes(whole)
    at = whole.index(b"llama.vocab_size") + len("llama.vocab_size") + 4
    refused(patched(path, at, struct.pack("<I", V + 1)), rf"has {V} rows, and the metadata speak of {V + 1}")


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        (lambda writer: writer.add_expert_count(8), r"llama\.expert_count' is 8"),
        (lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN), r"rope\.scaling\.type' is 'yarn'"),
        (lambda writer: writer.add_rope_dimension_count(8), r"rope\.dimension_count' is 8; computed here: 16"),
        (lambda writer: writer.add_final_logit_softcapping(30.0), r"final_logit_softcapping' is 30"),
        (lambda writer: writer.add_type("adapter"), r"general\.type' is 'adapter'"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.linspace(1, 3, 8, dtype=np.float32)), "rope_freqs"),
    ],
)
def test_what_would_be_another_model(more: Callable[[Any], None], pattern: str, tmp_path: Path):
    refused(write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf", more=more), pattern)


def test_experts_that_are_none_and_notes_that_carry_nothing_are_read(tmp_path: Path):
    def more(writer: Any) -> None:
        writer.add_expert_count(0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_dimension_count(16)
        writer.add_description("a note")

    ours.load(write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf", more=more))


def vocabulary(writer: Any, **changes: Any) -> None:
    """Byte-level tokens: one special, the letters a and b, and their merge."""
    given = {"tokens": ["<s>", "a", "b", "ab"], "types": [3, 1, 1, 1], "merges": ["a b"], "model": "gpt2", "bos": 0,
             "pre": "gpt-2"} | changes  # fmt: skip
    writer.add_tokenizer_model(given["model"])
    writer.add_tokenizer_pre(given["pre"])
    writer.add_token_list(given["tokens"])
    writer.add_token_types(given["types"])
    writer.add_bos_token_id(given["bos"])
    if given["merges"]:
        writer.add_token_merges(given["merges"])


def test_a_tokenizer(tmp_path: Path):
    made = ours.load_tokenizer(write(model_of(CONFIGS["llama"]), tmp_path / "model.gguf", more=vocabulary))
    assert made is not None and (made.size, made.begin, made.end, made.has_chat) == (4, 0, None, False)
    assert made.encode("abb") == made.prompt("abb") == [3, 2] and made.decode([0, 3, 2]) == "abb"


def test_a_file_without_a_tokenizer(path: Path):
    assert ours.load_tokenizer(path) is None


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"model": "bert"}, r"tokenizer\.ggml\.model' is 'bert'; computed here: gpt2, llama"),
        ({"pre": "tekken"}, "tekken"),
        ({"types": [3, 1, 1]}, "4 tokens and 3 types"),
        ({"tokens": ["<s>", "a", "b", "ab", *map(str, range(V))], "types": [1] * (V + 4)}, rf"{V} rows.* {V + 4} tok"),
        ({"bos": 4}, r"bos_token_id' is 4"),
        ({"merges": []}, r"lacks the entry 'tokenizer\.ggml\.merges'"),
        ({"merges": ["a x"]}, "'a x'"),
        ({"tokens": ["<s>", "a", "a", "ab"]}, "'a' twice"),
    ],
)
def test_a_tokenizer_that_cannot_be(changes: dict[str, Any], pattern: str, tmp_path: Path):
    made = write(model_of(CONFIGS["llama"]), tmp_path / "m.gguf", more=lambda writer: vocabulary(writer, **changes))
    with pytest.raises(ModelError, match=pattern):
        ours.load_tokenizer(made)


def test_another_architecture(path: Path):
    raw = path.read_bytes().replace(struct.pack("<Q", 5) + b"llama", struct.pack("<Q", 5) + b"rwkv6")
    path.write_bytes(raw)
    refused(path, "architecture 'rwkv6'; read here: llama, qwen2, qwen3, gpt2, gemma3")


def test_every_part_of_ours_is_named_once(tmp_path: Path):
    for name, config in CONFIGS.items():
        spec = ours.read_spec(write(model_of(config), tmp_path / name))
        listed = list(parts(spec, architecture(config)))
        assert len({part.theirs for part in listed}) == len(listed)
        assert {part.ours for part in listed} == set(Transformer(spec).state_dict())
