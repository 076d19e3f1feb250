"""Beam search against transformers, token for token, on random small models of four kinds."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from amauta.decode.search.run import search
from amauta.decode.search.settings import Search
from amauta.decode.settings import Sampling
from tests.models.parity import loaded

transformers = pytest.importorskip("transformers")
V = 40
SIZES = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48},
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "bart": {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 48,
        "forced_eos_token_id": None,
    },
}  # fmt: skip
EARLY = {"true": True, "false": False, "never": "never"}
START = {"t5": 0, "bart": 1}  # what a decoder begins with


def theirs_of(kind, seed):
    """A random model whose distributions are far from flat and whose end tokens are neither rare nor certain."""
    names = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration",
             "bart": "BartForConditionalGeneration"}  # fmt: skip
    model = getattr(transformers, names[kind])
    tokens = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0} | (
        {"decoder_start_token_id": START[kind]} if kind in START else {}
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model(model.config_class(**SIZES[kind], **tokens)).eval()
        with torch.no_grad():
            for name, value in made.named_parameters():
                value.add_(torch.randn(value.shape) * 0.25)
                if name.endswith(("lm_head.weight", "wte.weight", "shared.weight")):
                    value[1] += 0.5 * torch.randn(1)
    made.generation_config = transformers.GenerationConfig(bos_token_id=0, decoder_start_token_id=START.get(kind))
    return made


def drawn(rng, kind):
    """Settings and prompts at random."""
    beams = rng.choice([2, 3, 5, 8])
    one = Search(
        beams, rng.randint(1, beams), rng.choice([0.0, 0.5, 1.0, 2.0, -0.7]), rng.choice(["true", "false", "never"])
    )
    stops = rng.choice([[1], [1, 2, 3], [1, 5, 6, 7, 8, 9], []])
    penalty, most = rng.choice([1.0, 1.0, 1.3]), rng.choice([1, 2, 5, 9, 14])
    least = rng.choice([0, 0, 3])
    lengths = [rng.randint(1, 7) for _ in range(rng.randint(1, 4))]
    if penalty != 1 and kind not in START:
        lengths = [lengths[0]] * len(lengths)  # with the penalty their padding counts as text
    prompts = [[rng.randrange(2, V) for _ in range(length)] for length in lengths]
    sampling = Sampling(max_tokens=most, min_tokens=min(least, most), repetition_penalty=penalty, seed=5)
    return one, stops, sampling, prompts


def their_answers(theirs, kind, prompts, stops, sampling, one):
    """(ids after the prompt, score) of each returned sequence, in a list a prompt."""
    longest = max(map(len, prompts))
    left = kind not in START
    pads = [[0] * (longest - len(prompt)) for prompt in prompts]
    ids = [pad + prompt if left else prompt + pad for pad, prompt in zip(pads, prompts, strict=True)]
    mask = [[0 * p for p in pad] + [1] * len(prompt) if left else [1] * len(prompt) + [0 * p for p in pad]
            for pad, prompt in zip(pads, prompts, strict=True)]  # fmt: skip
    out = theirs.generate(
        torch.tensor(ids), attention_mask=torch.tensor(mask), num_beams=one.beams, num_return_sequences=one.returned,
        length_penalty=one.length_penalty, early_stopping=EARLY[one.early_stopping],
        max_new_tokens=sampling.max_tokens, min_new_tokens=sampling.min_tokens or None, do_sample=False,
        eos_token_id=stops or None, pad_token_id=0, repetition_penalty=sampling.repetition_penalty,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows = out.sequences[:, longest if left else 1 :].tolist()
    pairs = list(zip(rows, out.sequences_scores.tolist(), strict=True))
    return [pairs[i : i + one.returned] for i in range(0, len(pairs), one.returned)]


@pytest.mark.parametrize("kind", SIZES)
def test_beams_are_those_of_transformers(kind, tmp_path: Path):
    rng = random.Random(kind)
    ends = Counter()
    for seed in range(3):
        theirs = theirs_of(kind, seed)
        ours = loaded(theirs, tmp_path / str(seed))
        for _ in range(6):
            one, stops, sampling, prompts = drawn(rng, kind)
            expected = their_answers(theirs, kind, prompts, stops, sampling, one)
            sources = prompts if kind in START else None
            starts = [[START[kind]]] * len(prompts) if kind in START else prompts
            for cached in (True, False):
                found = search(ours, starts, sampling, one, stop_ids=stops, sources=sources, cached=cached)
                for mine, rows in zip(found, expected, strict=True):
                    assert len(mine) == one.returned
                    for hypothesis, (row, score) in zip(mine, rows, strict=True):
                        ids = hypothesis.ids
                        assert row[: len(ids)] == ids and set(row[len(ids) :]) <= {0, *stops[:1]}
                        assert hypothesis.score == pytest.approx(score, abs=1e-4, rel=1e-4)
                        ends[hypothesis.finish] += 1
    assert set(ends) == {"stop", "length"} and min(ends.values()) > 10
