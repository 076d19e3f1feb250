"""Decoder families in both directions: transformers and we compute the same from each other's folders, in f32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from amauta.base.errors import ModelError
from amauta.models import exchange
from amauta.models.count import parameters
from amauta.models.transformer import Transformer
from tests.models.parity import PAD, V, close, disturbed, loaded, made, opened, padded, tokens

transformers = pytest.importorskip("transformers")
T = 40  # longer than the windows, and than the length that llama3's frequencies were made for
IDS = tokens(2, T)
SHORT, MASK = padded(IDS, [T, 23])
LLAMA = {
    "vocab_size": V, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": PAD,
}  # fmt: skip
GPT = {"vocab_size": V, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, "pad_token_id": PAD}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 500.0}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 2.0}
SCALED_WINDOWS = {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}
GEMMA = LLAMA | {"head_dim": 8, "query_pre_attn_scalar": 20, "sliding_window": 7, "sliding_window_pattern": 2}
CONFIGS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(**LLAMA, rope_theta=3e4, rms_norm_eps=1e-3),
    "llama-tied-biased": transformers.LlamaConfig(
        **LLAMA, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama-llama3": transformers.LlamaConfig(**LLAMA, rope_parameters=LLAMA3),
    "llama-linear": transformers.LlamaConfig(**LLAMA, rope_parameters=LINEAR | {"rope_theta": 1e3}, head_dim=16),
    "qwen3": transformers.Qwen3Config(**LLAMA, head_dim=16),
    "mistral": transformers.MistralConfig(**LLAMA, sliding_window=7),
    "mistral-full": transformers.MistralConfig(**LLAMA, sliding_window=None),
    "qwen2": transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen2-windowed": transformers.Qwen2Config(**LLAMA, use_sliding_window=True, sliding_window=5, max_window_layers=0),
    "gemma3_text": transformers.Gemma3TextConfig(**GEMMA, rms_norm_eps=1e-3),
    "gemma3_text-scaled": transformers.Gemma3TextConfig(**GEMMA, rope_scaling=LINEAR, rope_local_base_freq=50.0),
    "gemma3_text-windows": transformers.Gemma3TextConfig(**GEMMA | {"sliding_window_pattern": 6}),
    "gpt2": transformers.GPT2Config(**GPT, n_inner=70, layer_norm_epsilon=1e-3),
    "openai-gpt": transformers.OpenAIGPTConfig(**GPT, layer_norm_epsilon=1e-3),
}
CLASSIFIERS = ("llama", "mistral", "qwen2", "gemma3_text", "gpt2", "openai-gpt")


def theirs_of(name: str, head: str = "CausalLM", **changes: Any) -> Any:
    """A small random model of theirs."""
    config = type(CONFIGS[name]).from_dict(CONFIGS[name].to_dict() | changes)
    kind = transformers.AutoModel if head == "" else getattr(transformers, f"AutoModelFor{head}")
    return made(kind, config)


def ours_of(name: str, **changes: Any) -> Transformer:
    """Our own random model with the same spec."""
    module = exchange.family(CONFIGS[name].model_type)
    spec = module.to_spec(json.loads(CONFIGS[name].to_json_string(use_diff=False)) | changes)
    return disturbed(Transformer.create(spec, seed=1))


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_we_compute_what_transformers_computes(name: str, tmp_path: Path):
    theirs = theirs_of(name)
    ours = loaded(theirs, tmp_path)
    expected = theirs(IDS, output_hidden_states=True)
    hidden, seen = ours(IDS, capture={"hidden"})
    close(ours.logits(hidden), expected.logits)
    assert len(seen["decoder"].hidden) == len(expected.hidden_states) == 4
    for mine, other in zip(seen["decoder"].hidden, expected.hidden_states, strict=True):
        close(mine, other)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(name: str, tmp_path: Path):
    theirs = theirs_of(name)
    ours = loaded(theirs, tmp_path)
    expected = theirs(SHORT, attention_mask=MASK.long()).logits
    close(ours.logits(ours(SHORT, mask=MASK)), expected, MASK)
    alone = ours.logits(ours(IDS[1:, :23]))
    close(expected[1:, :23], alone)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_what_we_compute(name: str, tmp_path: Path):
    ours = ours_of(name)
    exchange.save(ours, tmp_path, special={"pad_token_id": PAD})
    theirs = opened(transformers.AutoModelForCausalLM, tmp_path)
    # a Mistral without a window is a Llama
    assert theirs.config.model_type == ("llama" if name == "mistral-full" else CONFIGS[name].model_type)
    close(ours.logits(ours(IDS)), theirs(IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_base_model_has_no_output(name: str, tmp_path: Path):
    theirs = theirs_of(name, "")
    ours = loaded(theirs, tmp_path / "theirs")
    assert ours.spec.outputs == ()
    close(ours(IDS), theirs(IDS).last_hidden_state)
    exchange.save(ours, tmp_path / "ours")
    close(ours(IDS), opened(transformers.AutoModel, tmp_path / "ours")(IDS).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, tmp_path: Path):
    theirs = theirs_of(name, "SequenceClassification", id2label={0: "no", 1: "maybe", 2: "yes"})
    ours = loaded(theirs, tmp_path / "theirs")
    assert ours.spec.label_names == ("no", "maybe", "yes")
    logits = ours.logits(ours(SHORT, mask=MASK), mask=MASK)
    close(logits, theirs(SHORT, attention_mask=MASK.long()).logits)
    exchange.save(ours, tmp_path / "ours", special={"pad_token_id": PAD})
    again = opened(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    assert again.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    close(logits, again(SHORT, attention_mask=MASK.long()).logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_spec_survives_its_config(name: str):
    ours = ours_of(name)
    module = exchange.family(CONFIGS[name].model_type)
    config = module.to_config(ours.spec)
    assert config is not None
    assert module.to_spec(json.loads(json.dumps(config))) == ours.spec


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_cache_changes_nothing(name: str):
    """Rows of 11 and 20 tokens in one padded pass, then one token a step for both."""
    ours = ours_of(name)
    whole = ours.logits(ours(IDS))
    cache = ours.new_cache(2, T)
    first, second = 11, 20
    places = torch.arange(second).expand(2, -1)
    given = ours.logits(ours(IDS[:, :second], positions=places, cache=cache))
    close(given[0, :first], whole[0, :first])
    close(given[1], whole[1, :second])
    for step in range(T - second):
        at = torch.tensor([[first + step], [second + step]])
        given = ours.logits(ours(IDS.gather(1, at), positions=at, cache=cache))
        close(given[:, 0], whole[torch.arange(2), at[:, 0]])


def test_a_window_counts_the_query_itself(tmp_path: Path):
    """Token 0 is seen by query 6 and not by query 7 through a window of 7, in one layer."""
    ours = ours_of("mistral", num_hidden_layers=1)
    other = IDS.clone()
    other[:, 0] = (IDS[:, 0] + 1) % V
    moved = (ours(IDS) - ours(other)).abs().amax(-1)[0]
    assert (moved[:7] > 1e-6).all()
    assert (moved[7:] == 0).all()


@torch.no_grad()
def test_shards(tmp_path: Path):
    theirs = theirs_of("llama")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 3
    ours = exchange.load(tmp_path)
    close(ours.logits(ours(IDS)), theirs(IDS).logits)
    shards[1].unlink()
    with pytest.raises(ModelError, match=shards[1].name):
        exchange.load(tmp_path)


@torch.no_grad()
def test_older_names_of_gpt2(tmp_path: Path):
    """No prefix, masks among the weights, and the head's copy of the embedding."""
    theirs = theirs_of("gpt2")
    theirs.save_pretrained(tmp_path)
    weights = {
        name.removeprefix("transformer."): value for name, value in load_file(tmp_path / "model.safetensors").items()
    }
    for i in range(3):
        weights[f"h.{i}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        weights[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    weights["lm_head.weight"] = weights["wte.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    ours = exchange.load(tmp_path)
    close(ours.logits(ours(IDS)), theirs(IDS).logits)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type.*dynamic"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
    ("llama", {"architectures": ["LlamaForQuestionAnswering"]}, "architectures.*LlamaForQuestionAnswering"),
    ("qwen3", {"use_sliding_window": True}, "use_sliding_window"),
    ("mistral", {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ("qwen2-windowed", {"layer_types": None, "max_window_layers": 1}, "layer_types.*full_attention"),
    ("gemma3_text", {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}, "layer_types"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma3_text", {"attention_bias": True}, "attention_bias"),
    ("gemma3_text", {"hidden_activation": "quick_gelu"}, "hidden_act.*quick_gelu"),
    ("gemma3_text", {"rope_parameters": SCALED_WINDOWS}, "sliding_attention.rope_type"),
    ("gemma3_text", {"model_type": "gemma3", "text_config": {}}, "text and images"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("openai-gpt", {"afn": "gelu_new"}, "afn.*gelu_new"),
    ("openai-gpt", {"tie_word_embeddings": False}, "tie_word_embeddings"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes", "said"), REFUSED, ids=[f"{name}-{next(iter(c))}" for name, c, _ in REFUSED]
)
def test_what_we_do_not_compute_is_refused_by_name(name: str, changes: dict[str, Any], said: str):
    config = json.loads(CONFIGS[name].to_json_string(use_diff=False)) | changes
    with pytest.raises(ModelError, match=said):
        exchange.family(config["model_type"]).to_spec(config)


def test_older_configs_of_gemma3():
    """A step in place of the list of layers, and the frequencies' bases under their first names."""
    new = json.loads(CONFIGS["gemma3_text-scaled"].to_json_string(use_diff=False))
    old = {key: value for key, value in new.items() if key not in ("layer_types", "rope_parameters")}
    old |= {"rope_local_base_freq": 50.0, "rope_theta": 1e6, "rope_scaling": LINEAR}
    module = exchange.family("gemma3_text")
    assert module.to_spec(old) == module.to_spec(new)
    assert module.to_spec(old).full_every == 2 and module.to_spec(old).rope_scaling.factor == 2.0


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "openai-gpt": (
        {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"], "vocab_size": 40_478, "n_embd": 768,
         "n_layer": 12, "n_head": 12, "n_positions": 512, "n_ctx": 512, "afn": "gelu"},
        116_534_784,
    ),
    "gpt2-xl": (
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50_257, "n_embd": 1600,
         "n_layer": 48, "n_head": 25, "n_positions": 1024, "n_ctx": 1024},
        1_557_611_200,
    ),
    "tinyllama": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32_000, "hidden_size": 2048,
         "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
         "max_position_embeddings": 2048, "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False},
        1_100_048_384,
    ),
    "llama-3.2-1b": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128_256, "hidden_size": 2048,
         "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 64, "max_position_embeddings": 131_072, "rope_theta": 5e5, "tie_word_embeddings": True,
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                          "original_max_position_embeddings": 8192}},
        1_235_814_400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str):
    """Parameters that the published models have, tied ones once; configs as they were published."""
    config, size = PUBLISHED[name]
    assert parameters(exchange.read_spec(config)) == size
