"""llama2.c: the published greedy text, what transformers computes from the same weights, and what is refused."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models.exchange import llama2c
from amauta.models.transformer import Transformer


@pytest.fixture(scope="module")
def stories(amauta_data: Path) -> Path:
    return amauta_data / "weights" / "stories260K"


def test_the_published_greedy_text_word_for_word(stories: Path):
    model = llama2c.load(stories / "stories260K.bin")
    tokenizer = llama2c.load_tokenizer(stories / "tok512.bin")
    ids = tokenizer.prompt("")
    assert ids == [1]
    with torch.inference_mode():
        while len(ids) < 257:
            ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
    expected = (stories / "expected_greedy_256.txt").read_text()
    assert tokenizer.decode(ids).split() == expected.split()


def test_the_tokenizer_is_sentencepieces(stories: Path):
    """``tok512.model``, of which the file was made. It also makes one space of several, which the file does not say."""
    sentencepiece = pytest.importorskip("sentencepiece")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(stories / "tok512.model"))
    made = llama2c.load_tokenizer(stories / "tok512.bin")
    for text in ("Once upon a time, there was a girl.", "¡Ñandú! 😀", 'Lily\'s mom said, "No".', ""):
        assert made.encode(text) == theirs.encode(text)
        assert made.decode(made.encode(text)) == theirs.decode(theirs.encode(text))


def test_the_tokenizers_own_ids(stories: Path):
    made = llama2c.load_tokenizer(stories / "tok512.bin")
    assert (made.size, made.begin, made.end, made.unknown, made.stops) == (512, 1, 2, 0, (2,))
    assert made.encode("the") == [265]  # b" the", the 265th of the file
    assert made.encode("😀")[-4:] == [3 + byte for byte in "😀".encode()]
    assert made.decode(made.encode("a b\n😀")) == "a b\n😀"


def test_an_older_file_names_bytes_by_their_characters(stories: Path, tmp_path: Path):
    raw, at, out = (stories / "tok512.bin").read_bytes(), 4, [b"\x00" * 4]
    for id in range(512):
        score, length = struct.unpack_from("<fi", raw, at)
        piece = {1: b"\n<s>\n", 2: b"\n</s>\n"}.get(id, raw[at + 8 : at + 8 + length])
        piece = chr(id - 3).encode() if 3 <= id < 259 else piece
        out.append(struct.pack("<fi", score, len(piece)) + piece)
        at += 8 + length
    (tmp_path / "tokenizer.bin").write_bytes(b"".join(out))
    newer, older = (llama2c.load_tokenizer(path) for path in (stories / "tok512.bin", tmp_path / "tokenizer.bin"))
    for text in ("Once upon a time, there was a girl.", "¡Ñandú! 😀\n"):
        assert older.encode(text) == newer.encode(text)
    assert older.fingerprint == newer.fingerprint


SIZES: dict[str, Any] = {
    "vocab_size": 90, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 20, "rms_norm_eps": 1e-5,
}  # fmt: skip
KINDS = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")  # fmt: skip


def checkpoint(path: Path, *, tied: bool) -> Any:
    """A model of transformers, and its weights as llama2.c's legacy export writes them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    state = model.eval().state_dict()
    listed = [state["model.embed_tokens.weight"]]
    for kind in KINDS:
        for layer in range(2):
            value = state[f"model.layers.{layer}.{kind}.weight"]
            if "q_proj" in kind or "k_proj" in kind:  # as Meta's rows stand
                heads = 4 if "q_proj" in kind else 2
                value = value.view(heads, 2, 6, 48).transpose(1, 2).reshape(value.shape)
            listed.append(value)
    listed += [state["model.norm.weight"], torch.full((20, 6), 7.0), torch.full((20, 6), 7.0)]
    if not tied:
        listed.append(state["lm_head.weight"])
    raw = struct.pack("<7i", 48, 80, 2, 4, 2, 90 if tied else -90, 20)
    path.write_bytes(raw + b"".join(value.contiguous().numpy().tobytes() for value in listed))
    return model


@torch.no_grad()
def logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


@pytest.mark.parametrize("tied", (True, False))
def test_logits_are_those_of_transformers(tied: bool, tmp_path: Path):
    theirs = checkpoint(tmp_path / "model.bin", tied=tied)
    ids = torch.randint(0, 90, (2, 15), generator=torch.Generator().manual_seed(0))
    made = llama2c.load(tmp_path / "model.bin")
    assert made.spec.tied == tied and made.spec.context == 20 and not made.training
    with torch.no_grad():
        torch.testing.assert_close(logits(made, ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_part_of_a_file(stories: Path, tmp_path: Path):
    weights, tokens = ((stories / name).read_bytes() for name in ("stories260K.bin", "tok512.bin"))
    path = tmp_path / "all.data"
    path.write_bytes(b"before" + weights + tokens)
    assert llama2c.size_of(path, first=6) == len(weights)
    ids = torch.tensor([[1, 265, 300]])
    expected = logits(llama2c.load(stories / "stories260K.bin"), ids)
    assert torch.equal(logits(llama2c.load(path, first=6, last=6 + len(weights)), ids), expected)
    again = llama2c.load_tokenizer(path, first=6 + len(weights))
    assert again.fingerprint == llama2c.load_tokenizer(stories / "tok512.bin").fingerprint
    with pytest.raises(ModelError, match=f"holds bytes {6 + len(weights)} to {path.stat().st_size} after"):
        llama2c.load(path, first=6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint(tmp_path / "model.bin", tied=True)
    return tmp_path / "model.bin"


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(ModelError, match=pattern):
        llama2c.load(path)


def test_cut_off_names_the_tensor_and_the_offset(path: Path):
    whole = path.read_bytes()
    path.write_bytes(whole[: 28 + 90 * 48 * 4 + 10])
    at = 28 + 90 * 48 * 4
    refused(path, rf"tensor 'attention_norm' stands at bytes {at} to {at + 2 * 48 * 4}, and the file ends .* {at + 10}")
    path.write_bytes(whole[:20])
    refused(path, "cut off: 'header' at byte 0")
    path.write_bytes(whole + b"1234")
    refused(path, f"holds bytes {len(whole)} to {len(whole) + 4} after the last tensor")
    refused(path.parent / "absent.bin", "cannot be read")


@pytest.mark.parametrize(("at", "value"), [(0, 0), (0, -48), (12, 5), (16, 3), (20, 0), (24, 1 << 30)])
def test_a_header_that_cannot_be(path: Path, at: int, value: int):
    whole = bytearray(path.read_bytes())
    whole[at : at + 4] = struct.pack("<i", value)
    path.write_bytes(whole)
    refused(path, "no llama2.c checkpoint: the seven numbers")


def test_the_later_formats_are_named(path: Path):
    path.write_bytes(struct.pack("<Ii", 0x616B3432, 2) + bytes(300))
    refused(path, "checkpoint of version 2; only the legacy format")


def test_what_is_no_tokenizer(path: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="no llama2.c tokenizer at byte"):
        llama2c.load_tokenizer(path)
    (tmp_path / "empty.bin").write_bytes(b"\x07\0\0\0")
    with pytest.raises(ModelError, match="no llama2.c tokenizer"):
        llama2c.load_tokenizer(tmp_path / "empty.bin")


def test_a_tokenizer_that_is_cut_off(stories: Path, tmp_path: Path):
    (tmp_path / "tok.bin").write_bytes((stories / "tok512.bin").read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"no llama2.c tokenizer at byte 62\d\d"):
        llama2c.load_tokenizer(tmp_path / "tok.bin")
