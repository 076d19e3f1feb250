"""A small Llama of transformers with a byte-level tokenizer and a ChatML template, as other people's folders are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tokenize.foreign_tokenizers import NAMES, TEMPLATES, byte_level, write

transformers = pytest.importorskip("transformers")

V = 520  # more than the 500 entries of the tokenizer, as in many published models
GENERATION = {"eos_token_id": 2, "temperature": 0.7, "top_p": 0.9}


def llama(folder: Path, *, template: str | None = TEMPLATES["chatml"], shard: str = "1GB", **more: Any) -> Path:
    """The folder, weights in files of at most ``shard``."""
    config = transformers.LlamaConfig(
        **{"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
           "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160,
           "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2} | more
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size=shard)
    write(folder, byte_level(), NAMES["byte-level"], template)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


def theirs(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer, opened by transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """Of ids[1:], by transformers: (T - 1,)."""
    logits = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    return logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
