"""amauta adapter: what an adapter is told to be, and the models that come of writing it into its base."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amauta.cli import main
from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.adapters import attached
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import read_weights
from amauta.models.transformer import Transformer
from amauta.nn.quantized import Quantized
from tests.models.adapters.toys import close, ids_of, logits, made, new_model, small_tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return small_tokenizer()


@pytest.fixture
def base(tokenizer: Any, tmp_path: Path) -> Path:
    write_model(new_model(tokenizer), tokenizer, tmp_path / "base")
    return tmp_path / "base"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["adapter", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(["adapter", *map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_show(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made(find_model(base), tmp_path / "one", "lora", tokens=("<tool>",))
    numbers = sum(value.numel() for value in load_file(tmp_path / "one" / "adapter_model.safetensors").values())
    told = call(capsys, "show", tmp_path / "one")
    plain = sum(value.numel() for value in exchange.load(base).parameters())
    assert told["kinds"] == ["lora"] and told["layout"] == "peft" and (told["rank"], told["alpha"]) == (8, 16)
    assert told["numbers"] == numbers and told["share"] == pytest.approx(numbers / plain)
    assert told["base_fits"] is True and told["new_tokens"] == ["<tool>"]
    assert main(["models", "show", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vocabulary"] == small_tokenizer().size + 1
    made(find_model(base), tmp_path / "two", "houlsby", "norms")
    told = call(capsys, "show", tmp_path / "two")
    assert told["kinds"] == ["houlsby", "norms"] and told["layout"] == "amauta"
    (tmp_path / "two" / "adapter.json").unlink()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    (tmp_path / "one" / "adapter.json").unlink()
    (tmp_path / "one" / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    told = call(capsys, "show", tmp_path / "one")
    assert told["kinds"] == ["dora"] and told["base_fits"] is None
    base.rename(tmp_path / "gone")
    assert call(capsys, "show", tmp_path / "one")["base_fits"] is False
    assert "holds no adapter" in refused(capsys, "show", tmp_path / "gone")


def test_a_base_that_changed_does_not_fit(
    base: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made(find_model(base), tmp_path / "one", "lora")
    write_model(new_model(tokenizer, seed=2), tokenizer, base)
    assert call(capsys, "show", tmp_path / "one")["base_fits"] is False
    said = refused(capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged")
    assert "was made for other weights" in said and not (tmp_path / "merged").exists()


def test_merge(base: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, _ = made(find_model(base), tmp_path / "one", "dora", tokens=("<tool>",))
    told = call(capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged")
    assert not told["labelled"] and told["kl"] < 1e-6 and told["step"] == "merge" and told["top1_agreement"] == 1.0
    found = find_model(tmp_path / "merged")
    assert found.kind == "folder"
    ids = torch.tensor([[*tokenizer.encode("the weaver"), tokenizer.size]])
    close(logits(read_weights(found, None), ids), logits(model, ids))
    assert "exists already" in refused(capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged")
    half = call(
        capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged", "--force", "--dtype", "bf16"
    )
    assert half["bytes"] < 0.6 * told["bytes"]
    assert "cannot be written" in _refused_kind(base, "houlsby", tmp_path, capsys)
    assert "cannot be written" in _refused_kind(base, "prompt", tmp_path, capsys)


def _refused_kind(base: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    made(find_model(base), tmp_path / kind, kind)
    return refused(capsys, "merge", "--model", tmp_path / kind, "--out", tmp_path / f"not-{kind}")


def test_adapters_are_added_up_by_their_weights(
    base: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made(find_model(base), tmp_path / "one", "lora")
    made(find_model(base), tmp_path / "two", "ia3", "norms")
    places = (tmp_path / name for name in ("base", "one", "two"))
    plain, one, two = (dict(read_weights(find_model(place), None).named_parameters()) for place in places)
    call(capsys, "merge", "--model", tmp_path / "one", "--adapters", tmp_path / "two", "--weights", 0.5, -2.0,
         "--out", tmp_path / "both")  # fmt: skip
    for name, value in exchange.load(tmp_path / "both").named_parameters():
        wanted = plain[name] + 0.5 * (one[name] - plain[name]) - 2.0 * (two[name] - plain[name])
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
    call(capsys, "merge", "--model", tmp_path / "one", "--weights", 0, "--out", tmp_path / "none")
    close(logits(exchange.load(tmp_path / "none"), ids_of(tokenizer)), logits(exchange.load(base), ids_of(tokenizer)))
    said = refused(capsys, "merge", "--model", tmp_path / "one", "--weights", 1, 2, "--out", tmp_path / "x")
    assert "2 weights were given for 1 adapters" in said
    write_model(new_model(tokenizer, seed=2), tokenizer, tmp_path / "other")
    made(find_model(tmp_path / "other"), tmp_path / "three", "lora")
    said = refused(
        capsys, "merge", "--model", tmp_path / "one", "--adapters", tmp_path / "three", "--out", tmp_path / "x"
    )
    assert "another base" in said
    made(find_model(base), tmp_path / "four", "lora", tokens=("<t>",))
    said = refused(
        capsys, "merge", "--model", tmp_path / "one", "--adapters", tmp_path / "four", "--out", tmp_path / "x"
    )
    assert "embedding.weight" in said and not (tmp_path / "x").exists()


def forms(model: Transformer) -> dict[str, tuple[Any, ...]]:
    """How each layer of few bits holds its weights."""
    return {
        name: (part.kind, part.group, part.zeros is None, part.doubled is None)
        for name, part in model.named_modules()
        if isinstance(part, Quantized)
    }


@pytest.mark.parametrize("scheme", ["int8", "int4", "nf4"])
def test_a_base_of_few_bits_is_not_merged_into_unasked(
    scheme: str,
    base: Path,
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """The adapter works on it attached; merging needs --requantize, and tells the KL (what it cost)."""
    assert main(["compress", "quantize", "--model", str(base), "--scheme", scheme, "--group", "32", "--out",
                 str(tmp_path / "small"), "--accept"]) == 0  # fmt: skip
    model, _ = made(find_model(tmp_path / "small"), tmp_path / "one", "lora")
    opened = read_weights(find_model(tmp_path / "one"), None)
    assert attached(opened)
    close(logits(opened, ids_of(tokenizer)), logits(model, ids_of(tokenizer)))
    said = refused(capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged")
    assert "--requantize" in said and "few bits" in said and not (tmp_path / "merged").exists()
    told = call(capsys, "merge", "--model", tmp_path / "one", "--out", tmp_path / "merged", "--requantize", "--accept")
    assert told["step"] == "requantize" and 0 < told["kl"] < (0.05 if scheme == "int8" else 1.0)
    again = exchange.load(tmp_path / "merged")
    assert not attached(again) and forms(again) == forms(exchange.load(tmp_path / "small"))
    assert scheme in {kind for kind, *_ in forms(again).values()}
    assert not torch.equal(logits(model, ids_of(tokenizer)), logits(again, ids_of(tokenizer)))


def test_an_adapter_is_exported_with_its_base(base: Path, tokenizer: Any, tmp_path: Path):
    model, _ = made(find_model(base), tmp_path / "one", "lora")
    for place, flag in (("m.gguf", "--gguf"), ("folder", "--folder")):
        more = ["--type", "f32"] if flag == "--gguf" else []
        assert main(["export", "--model", str(tmp_path / "one"), flag, str(tmp_path / place), *more]) == 0
        found = read_weights(find_model(tmp_path / place), None)
        torch.testing.assert_close(
            logits(found, ids_of(tokenizer)), logits(model, ids_of(tokenizer)), atol=1e-4, rtol=1e-4
        )
    made(find_model(base), tmp_path / "two", "houlsby")
    for place, flag in (("n.gguf", "--gguf"), ("other", "--folder")):
        assert main(["export", "--model", str(tmp_path / "two"), flag, str(tmp_path / place)]) == 2
        assert not (tmp_path / place).exists()
