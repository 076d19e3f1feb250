"""Model folders: what transformers computes from ours, and we from theirs, in f32."""

import json
from pathlib import Path

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.sizes import GPT2
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer

transformers = pytest.importorskip("transformers")
IDS = torch.randint(0, 90, (2, 13), generator=torch.Generator().manual_seed(0))
SMALL = {"context": 64, "width": 48, "layers": 2, "heads": 4}
SPECS = {
    "llama": Spec(vocabulary=90, kv_heads=2, **SMALL),
    "llama-untied-biased": Spec(vocabulary=90, bias=True, tied=False, activation="gelu_tanh", **SMALL),
    "qwen3": Spec(vocabulary=90, kv_heads=2, head_width=16, qk_norm=True, rope_theta=5e4, **SMALL),
    "gpt2": Spec(vocabulary=90, **SMALL, **GPT2),
}
THEIRS = {
    "llama": transformers.LlamaConfig(
        vocab_size=90, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rope_theta=3e4,
    ),
    "qwen3": transformers.Qwen3Config(
        vocab_size=90, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, max_position_embeddings=64, tie_word_embeddings=True,
    ),
    "gpt2": transformers.GPT2Config(
        vocab_size=90, n_embd=48, n_layer=2, n_head=4, n_positions=64, n_inner=70, bos_token_id=0, eos_token_id=0
    ),
}  # fmt: skip


def disturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from its first value, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def logits(model: Transformer) -> torch.Tensor:
    return model.logits(model(IDS)).detach()


@pytest.mark.parametrize("name", SPECS)
def test_transformers_computes_our_logits(name: str, tmp_path: Path):
    ours = disturbed(Transformer.create(SPECS[name], seed=1))
    exchange.save(ours, tmp_path, special={"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.model_type == name.split("-")[0]
    assert theirs.generation_config.eos_token_id == [2, 3]
    torch.testing.assert_close(theirs(IDS).logits, logits(ours), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_the_logits_of_transformers(name: str, tmp_path: Path):
    theirs = disturbed(transformers.AutoModelForCausalLM.from_config(THEIRS[name]))
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(exchange.load(tmp_path)), theirs(IDS).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_saved_and_loaded_is_the_same_bit_for_bit(name: str, tmp_path: Path):
    ours = disturbed(Transformer.create(SPECS[name], seed=1))
    exchange.save(ours, tmp_path)
    again = exchange.load(tmp_path)
    assert torch.equal(logits(again), logits(ours))
    assert again.spec.inner == ours.spec.inner and again.spec.head == ours.spec.head


def test_a_spec_that_no_family_expresses_keeps_to_our_own_layout(tmp_path: Path):
    ours = disturbed(Transformer.create(Spec(vocabulary=90, norm="layer", **SMALL), seed=1))
    exchange.save(ours, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "amauta"
    assert torch.equal(logits(exchange.load(tmp_path)), logits(ours))


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_what_cannot_be_computed_is_refused_and_named(tmp_path: Path):
    exchange.save(Transformer.create(SPECS["llama"], seed=1), tmp_path)
    edit(tmp_path, rope_parameters={"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(ModelError, match="rope_type.*yarn"):
        exchange.load(tmp_path)
    edit(tmp_path, rope_parameters=None, hidden_act="xielu")
    with pytest.raises(ModelError, match="hidden_act.*xielu"):
        exchange.load(tmp_path)
    edit(tmp_path, model_type="qwen33")
    with pytest.raises(ModelError, match="qwen33.*qwen3"):
        exchange.load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path):
    exchange.save(Transformer.create(SPECS["llama"], seed=1), tmp_path)
    edit(tmp_path, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"layers\.1"):
        exchange.load(tmp_path)


def test_pickled_cut_off_and_missing_weights(tmp_path: Path):
    exchange.save(Transformer.create(SPECS["llama"], seed=1), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(
        ModelError, match=rf"tensor model\.norm\.weight .* bytes \d+–{len(whole)}.*has {len(whole) - 100}"
    ):
        exchange.load(tmp_path)
    weights.write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="damaged"):
        exchange.load(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match="no model.safetensors"):
        exchange.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pytorch_model.bin"):
        exchange.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="config.json"):
        exchange.load(tmp_path)
