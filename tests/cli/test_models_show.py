"""``amauta models show``: what a size, a folder and a file are, quickly and with nothing loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amauta.cli import main
from amauta.hub.installed import folder_of
from amauta.hub.known import known_model
from amauta.models.transformer import Transformer

LLAMA_70B: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32_000, "hidden_size": 8192,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28_672,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
SECONDS, MEGABYTES = 2.0, 300

MEASURE = """
import re, resource, sys, time
from amauta.cli import main
code = main(sys.argv[1:])
seconds = time.process_time()
try:  # the largest of this program alone: ru_maxrss begins with that of the process that started it
    most = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
except OSError:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(code, seconds, most / 1024, "torch" in sys.modules, file=sys.stderr)
"""


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["models", "show", *words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of 70 billion parameters without its weights."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    return tmp_path


def test_a_named_size(capsys: pytest.CaptureFixture[str]):
    seen = shown(capsys, "llama-2-70b")
    assert list(seen)[:4] == ["name", "found", "kind", "parameters"]
    assert seen["parameters"] == sum(seen["parts"].values()) == 68_976_648_192
    assert (seen["layers"], seen["width"], seen["heads"], seen["kv_heads"], seen["context"]) == (80, 8192, 64, 8, 4096)
    flops = seen["flops_per_token"]  # 2N + 4·L·H·K·T with N all but the embedding and the norms
    assert flops["forward"] == 2 * (68_976_648_192 - 262_144_000 - 1_318_912) + 4 * 80 * 8192 * 4096
    assert flops["training"] == 3 * flops["forward"] and flops["length"] == 4096
    memory = seen["memory"]
    assert memory["weights"]["bf16"] == 2 * seen["parameters"] and memory["cache"]["per_token"] == 327_680
    assert memory["training"]["adamw"]["mixed"]["total"] == 16 * seen["parameters"]


def test_length_and_rows(capsys: pytest.CaptureFixture[str]):
    seen = shown(capsys, "t5-small", "--length", "10", "--source", "30", "--rows", "4")
    assert (seen["encoder_layers"], seen["decoder_layers"], seen["context"]) == (6, 6, None)
    cache, flops = seen["memory"]["cache"], seen["flops_per_token"]
    assert cache["bytes"] == 4 * (10 * cache["per_token"] + 30 * cache["per_source_token"])
    # six layers of 14·D² (self-attention 4, q and out of the cross-attention 2, feed-forward 8), the table, the keys
    wanted = 2 * (6 * 14 * 512**2 + 32_128 * 512) + 4 * 6 * 512 * (10 + 30)
    assert flops["stacks"]["decoder"] == {"forward": wanted, "training": 3 * wanted}
    assert seen["memory"]["activations"]["rows"] == 4


def test_a_size_of_ours_needs_a_vocabulary(capsys: pytest.CaptureFixture[str]):
    assert "--vocabulary" in failed(capsys, "models", "show", "nano")
    assert shown(capsys, "nano", "--vocabulary", "1000")["parts"]["embedding"] == 128_000


def test_a_folder_without_its_weights(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch):
    monkeypatch.setattr(Transformer, "__init__", lambda *_: pytest.fail("a model was built"))
    seen, size = shown(capsys, str(folder)), shown(capsys, "llama-2-70b")
    assert (seen.pop("name"), seen.pop("found")) == (str(folder), "path")
    assert seen == {name: value for name, value in size.items() if name not in ("name", "found")}
    assert shown(capsys, str(folder), "--vocabulary", "1000")["parts"]["embedding"] == 1000 * 8192


def test_a_known_model(capsys: pytest.CaptureFixture[str]):
    known = known_model("smollm2")
    assert known is not None
    if folder_of(known) is None:
        pytest.skip("smollm2 is not installed: amauta models add smollm2")
    seen = shown(capsys, "smollm2")
    assert seen["parameters"] == known.parameters == 134_515_008 and known.source == seen["found"]


def test_people_get_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert main(["models", "show", "gemma3-270m"]) == 0
    text = capsys.readouterr().out
    lines = (
        "gemma3-270m: decoder, 268,098,176 parameters",
        "  embedding            167,772,160  62.6%",
        "  2.1 GB  1.1 GB  536 MB  268 MB  134 MB",
        "  if layers kept no more than their window  109 MB",
    )
    for line in lines:
        assert line in text.splitlines()
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert main(["models", "show", "bert-base"]) == 0
    assert "Sin caché de claves y valores" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["a named size", "a folder"])
def test_70_billion_are_shown_in_two_seconds_and_300_megabytes(source: str, folder: Path):
    """In seconds of the processor, so that a busy machine changes nothing."""
    name = "llama-2-70b" if source == "a named size" else str(folder)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "models", "show", name, "--json"], capture_output=True, text=True, check=True
    )
    code, seconds, megabytes, torch = done.stderr.split()
    assert json.loads(done.stdout)["parameters"] == 68_976_648_192
    assert code == "0" and float(seconds) < SECONDS and float(megabytes) < MEGABYTES
    assert torch == "False"


def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str], folder: Path):
    assert "The nearest named size is 'bert-base'" in failed(capsys, "models", "show", "bert-bas")
    assert "5000 tokens are more than this model takes: 4096" in failed(
        capsys, "models", "show", "llama-2-70b", "--length", "5000"
    )
    (folder / "config.json").write_text(json.dumps(LLAMA_70B | {"num_attention_heads": 60, "num_key_value_heads": 60}))
    assert "8192/60 is not whole" in failed(capsys, "models", "show", str(folder))


def test_pretraining_refuses_a_size_that_is_no_shape(capsys: pytest.CaptureFixture[str]):
    words = ["pretrain", "--text", "a.txt", "--tokenizer", "t", "--out", "o", "--size", "bert-base"]
    assert "'bert-base' cannot be trained here yet: it has kind, segments" in failed(capsys, *words)
