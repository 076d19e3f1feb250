"""Written files answer in llama.cpp with our greedy tokens.

llama-cpp-python is found in this environment, or in that whose Python ``AMAUTA_LLAMA_CPP`` names (it takes minutes to
build, and is wanted for nothing else).
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.models.exchange import gguf as reading
from amauta.models.exchange.gguf import write as ours
from amauta.models.sizes import GPT2
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.settings import Split
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from tests.models.gguf_files import real

SCRIPT = """
import json, sys
from llama_cpp import Llama
path, asked = sys.argv[1], json.loads(sys.argv[2])
model = Llama(path, n_ctx=asked["context"], n_threads=1, verbose=False, logits_all=False)
found = []
for text in asked["texts"]:
    ids = model.tokenize(text.encode(), add_bos=True, special=False)
    made = []
    for id in model.generate(ids, temp=0.0, repeat_penalty=1.0):
        made.append(int(id))
        if len(made) == asked["count"]:
            break
    found.append([ids, made])
print("\\n" + json.dumps({"found": found, "metadata": model.metadata}))
"""
TEXTS = ("The capital of France is", "Once upon a time there was a small girl", "¿Dónde está el puente de 1204?")
COUNT = 24


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that has llama_cpp, or skip."""
    if find_spec("llama_cpp") is not None:
        return sys.executable
    found = os.environ.get("AMAUTA_LLAMA_CPP")
    if not found:
        pytest.skip("llama-cpp-python is not installed, and AMAUTA_LLAMA_CPP names no Python that has it")
    return found


def llama_cpp(python: str, path: Path, context: int) -> dict[str, Any]:
    asked = json.dumps({"texts": TEXTS, "count": COUNT, "context": context})
    done = subprocess.run([python, "-c", SCRIPT, str(path), asked], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@torch.inference_mode()
def greedy(model: Transformer, ids: list[int]) -> list[int]:
    row = list(ids)
    for _ in range(COUNT):
        row.append(int(model.logits(model(torch.tensor([row]))[:, -1:])[0, -1].argmax()))
    return row[len(ids) :]


SMALL: dict[str, Any] = {"context": 128, "width": 64, "layers": 2, "heads": 4, "feedforward": 128}
SPECS: dict[str, tuple[dict[str, Any], Split]] = {
    "llama": ({"kv_heads": 2, "tied": False}, "gpt2"),
    "llama-biased": ({"bias": True, "head_width": 32}, "cl100k"),
    "qwen2": ({"kv_heads": 2, "qkv_bias": True}, "single-digits"),
    "qwen3": ({"kv_heads": 2, "qk_norm": True, "head_width": 32}, "cl100k"),
    "gpt2": (GPT2, "gpt2"),
}


@pytest.fixture(scope="module")
def tokenizers(amauta_data: Path) -> dict[Split, Tokenizer]:
    text = (amauta_data / "corpora" / "gutenberg" / "es_marianela.txt").read_text(encoding="utf-8")
    texts = [text[at : at + 1000] for at in range(0, 200_000, 1000)] + ["1204 1969 384,400 it's they'd"] * 20
    splits: tuple[Split, ...] = ("gpt2", "cl100k", "single-digits")
    return {split: train_bpe(texts, 600, split=split) for split in splits}


@pytest.mark.parametrize("name", SPECS)
def test_random_models_with_our_own_tokenizer(
    name: str, python: str, tokenizers: dict[Split, Tokenizer], tmp_path: Path
):
    fields, split = SPECS[name]
    tokenizer = tokenizers[split]
    model = Transformer.create(Spec(**SMALL | {"vocabulary": 610} | fields), seed=2).eval()
    with torch.no_grad():  # far from the first weights, so that no two tokens are nearly as likely
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) * 0.2)
    ours.write(model, tokenizer, tmp_path / "model.gguf", type="f32")
    made = llama_cpp(python, tmp_path / "model.gguf", 128)
    for text, (ids, answer) in zip(TEXTS, made["found"], strict=True):
        assert ids == tokenizer.prompt(text)
        assert answer == greedy(model, ids)


@torch.inference_mode()
def shortfalls(model: Transformer, ids: list[int], answer: list[int]) -> torch.Tensor:
    """By how many nats each token of an answer is less likely to us than our own best, after the same tokens."""
    row = torch.tensor([[*ids, *answer]])
    found = model.logits(model(row))[0, len(ids) - 1 : -1].log_softmax(-1)  # (T, V)
    return found.amax(-1) - found.gather(1, torch.tensor(answer)[:, None])[:, 0]


@pytest.mark.parametrize("kind", ("f16", "q8_0"))
def test_the_real_model(kind: Any, python: str, tmp_path: Path):
    """With q8_0 llama.cpp rounds the activations to 8 bits too, which we do not: where two tokens are nearly as likely
    (0.2 nats were seen) it may take the other one."""
    path = real()
    model, tokenizer = reading.load(path), reading.load_tokenizer(path)
    assert tokenizer is not None
    ours.write(model, tokenizer, tmp_path / "model.gguf", type=kind)
    again = reading.load(tmp_path / "model.gguf")
    made = llama_cpp(python, tmp_path / "model.gguf", 128)
    for text, (ids, answer) in zip(TEXTS, made["found"], strict=True):
        assert ids == tokenizer.prompt(text)
        if kind == "f16":
            assert answer == greedy(again, ids)
        assert shortfalls(again, ids, answer).max() < 0.4
        assert (shortfalls(again, ids, answer) == 0).float().mean() > 0.8
    if kind == "q8_0":
        assert made["found"][0][1] == greedy(again, made["found"][0][0])
