"""A prefix and a prompt give peft's logits, for the same numbers."""

from pathlib import Path

import pytest
import torch

from amauta.adapt.prefix import Ahead
from amauta.adapt.settings import Adapters
from amauta.models import exchange
from amauta.models.ahead import put_ahead
from amauta.models.transformer import Transformer

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

P = 5
BERT = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 40}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 2}
CONFIGS = {
    "gpt2": {"vocab_size": 90, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": 4},
    "qwen3": LLAMA | {"head_dim": 16},
    "gemma3_text": LLAMA | {"head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 16, "num_hidden_layers": 3,
                            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "bert": BERT,
    "t5": {"vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
           "decoder_start_token_id": 0},
}  # fmt: skip
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
REAL = torch.tensor([[1] * 12, [1] * 8 + [0] * 4])


def theirs_of(name: str, kind: str, folder: Path) -> torch.nn.Module:
    """A random model of the library's, saved in ``folder``, with peft's adapter around it, its numbers large."""
    config = transformers.AutoConfig.for_model(name, **CONFIGS[name])
    config._attn_implementation = "eager"
    auto = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}.get(name, "AutoModelForCausalLM")
    model = getattr(transformers, auto).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
    model.save_pretrained(folder)
    if kind == "prefix":
        return peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)).eval()
    sizes = {} if auto.endswith("CausalLM") else {"token_dim": 32, "num_attention_heads": 4, "num_layers": 2}
    asked = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P, num_transformer_submodules=1, **sizes)
    # peft's own class for encoder-decoders looks for what transformers 5 no longer has
    return (peft.PeftModelForFeatureExtraction if sizes else peft.get_peft_model)(model, asked).eval()


def ours_of(theirs: torch.nn.Module, kind: str, folder: Path) -> Transformer:
    model = exchange.load(folder)
    settings = Adapters(adapter=(kind,), adapter_length=P)  # type: ignore[arg-type]
    put_ahead(model, kind, settings, name="default", generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    [one] = [part for part in model.modules() if isinstance(part, Ahead)]
    weight = theirs.prompt_encoder["default"].embedding.weight  # type: ignore[index, union-attr]
    assert one.table.shape == weight.shape
    one.table.data.copy_(weight)
    trained = sum(part.numel() for part in one.parameters())
    assert trained == theirs.get_nb_trainable_parameters()[0]  # type: ignore[operator]
    return model


@torch.inference_mode()
@pytest.mark.parametrize("kind", ("prefix", "prompt"))
@pytest.mark.parametrize("name", ("gpt2", "llama", "mistral", "qwen3", "gemma3_text"))
def test_a_decoders_logits(name: str, kind: str, tmp_path: Path):
    theirs = theirs_of(name, kind, tmp_path)
    model = ours_of(theirs, kind, tmp_path)
    wanted = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    torch.testing.assert_close(model.logits(model(IDS)), wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - theirs.get_base_model()(IDS).logits).abs().max() > 0.01  # type: ignore[operator]


@torch.inference_mode()
def test_an_encoders_states(tmp_path: Path):
    theirs = theirs_of("bert", "prompt", tmp_path)
    model = ours_of(theirs, "prompt", tmp_path)
    wanted = theirs(input_ids=IDS, attention_mask=REAL).logits[:, P:]
    found = model.logits(model(IDS, mask=REAL.bool()))
    torch.testing.assert_close(found[REAL.bool()], wanted[REAL.bool()], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_an_encoder_decoders_logits(tmp_path: Path):
    theirs = theirs_of("t5", "prompt", tmp_path)
    model = ours_of(theirs, "prompt", tmp_path)
    wanted = theirs(input_ids=IDS, attention_mask=REAL, decoder_input_ids=IDS).logits
    found = model.logits(model(IDS, mask=REAL.bool(), decoder_ids=IDS))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
