"""``amauta.load`` on a random folder of every family: the README's calls, with transformers as the oracle."""

import json
from pathlib import Path

import pytest
import torch

import amauta
from amauta.base.errors import ModelError
from amauta.language_model.rows import buckets

transformers = pytest.importorskip("transformers")

BERT = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 40}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 2}
GPT = {"vocab_size": 90, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
CONFIGS = {
    "openai-gpt": ("AutoModelForCausalLM", GPT),
    "gpt2": ("AutoModelForCausalLM", GPT),
    "llama": ("AutoModelForCausalLM", LLAMA),
    "mistral": ("AutoModelForCausalLM", LLAMA | {"sliding_window": 5}),
    "qwen2": ("AutoModelForCausalLM", LLAMA),
    "qwen3": ("AutoModelForCausalLM", LLAMA | {"head_dim": 16}),
    "gemma3_text": ("AutoModelForCausalLM", LLAMA | {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16}),
    "bert": ("AutoModelForMaskedLM", BERT),
    "distilbert": ("AutoModelForMaskedLM", {"vocab_size": 90, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
                                            "max_position_embeddings": 40}),
    "roberta": ("AutoModelForMaskedLM", BERT | {"pad_token_id": 1}),
    "electra": ("AutoModelForMaskedLM", BERT | {"embedding_size": 16}),
    "albert": ("AutoModelForMaskedLM", BERT | {"embedding_size": 16}),
    "t5": ("AutoModelForSeq2SeqLM", {"vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
                                     "num_heads": 4, "decoder_start_token_id": 0}),
    "bart": ("AutoModelForSeq2SeqLM", {"vocab_size": 90, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
                                       "encoder_attention_heads": 4, "decoder_attention_heads": 4,
                                       "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 40}),
    "reformer": ("AutoModelForCausalLM", {"vocab_size": 90, "hidden_size": 32, "attention_head_size": 8,
                                          "num_attention_heads": 4, "feed_forward_size": 64, "is_decoder": True,
                                          "attn_layers": ["local", "lsh"], "axial_pos_shape": [8, 8],
                                          "axial_pos_embds_dim": [8, 24], "max_position_embeddings": 64,
                                          "hash_seed": 3, "num_buckets": 4, "local_attn_chunk_length": 8,
                                          "lsh_attn_chunk_length": 8}),
}  # fmt: skip
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
SHORT = torch.tensor([[True] * 12, [True] * 8 + [False] * 4])  # the second row is padded


def build(name: str) -> torch.nn.Module:
    auto, fields = CONFIGS[name]
    config = transformers.AutoConfig.for_model(name, **fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, auto).from_config(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if name != "reformer" or key != "lm_head.bias":  # which transformers 5 keeps and forgets to add
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_load_logits_embed_save(name: str, tmp_path: Path):
    theirs = build(name)
    theirs.save_pretrained(tmp_path / "theirs")
    lm = amauta.load(tmp_path / "theirs")
    given = {"decoder_input_ids": IDS[:, :5]} if lm.kind == "encoder-decoder" else {}
    wanted = theirs(IDS, attention_mask=SHORT.long(), **given).logits
    found = lm.logits(IDS, mask=SHORT, decoder_ids=IDS[:, :5] if given else None)
    real = torch.ones(2, 5, dtype=torch.bool) if given else SHORT
    torch.testing.assert_close(found[real], wanted[real], atol=1e-4, rtol=1e-4)

    vectors = lm.embed([IDS[0].tolist(), IDS[1, :8].tolist()])
    for row, vector in zip([IDS[0].tolist(), IDS[1, :8].tolist()], vectors, strict=True):
        torch.testing.assert_close(vector[None], lm.embed(row), atol=1e-5, rtol=1e-4)

    lm.save(tmp_path / "ours")
    again, told = getattr(transformers, CONFIGS[name][0]).from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert again.config.model_type == theirs.config.model_type
    torch.testing.assert_close(again(IDS, attention_mask=SHORT.long(), **given).logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "t5", "bart"])
@torch.no_grad()
def test_greedy_continuations_of_ids(name: str, tmp_path: Path):
    theirs = build(name)
    theirs.generation_config.eos_token_id = None
    if name == "bart":
        theirs.generation_config.forced_eos_token_id = None
    theirs.save_pretrained(tmp_path)
    lm = amauta.load(tmp_path)
    rows = [IDS[0].tolist(), IDS[1, :8].tolist()]
    found = lm.generate(rows, temperature=0, max_tokens=8)
    for row, one in zip(rows, found, strict=True):
        made = theirs.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False, num_beams=1)[0].tolist()
        assert one.tokens == made[-8:] and one.finish == "length" and one.text == ""


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "t5"])
@torch.no_grad()
def test_classes_of_padded_sequences(name: str, tmp_path: Path):
    config = transformers.AutoConfig.for_model(name, **CONFIGS[name][1], num_labels=3, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = IDS.where(SHORT, torch.tensor(0))
    ids[0, 11] = ids[1, 7] = 1
    wanted = theirs(ids, attention_mask=SHORT.long()).logits
    torch.testing.assert_close(amauta.load(tmp_path).logits(ids, mask=SHORT), wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_classifier_of_two_stacks_may_be_told_what_its_decoder_reads(tmp_path: Path):
    config = transformers.AutoConfig.for_model("bart", **CONFIGS["bart"][1], num_labels=3, eos_token_id=1)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    lm = amauta.load(tmp_path)
    assert torch.equal(lm.logits(IDS, decoder_ids=[[2, *row[:-1]] for row in IDS.tolist()]), lm.logits(IDS))
    short = lm.logits(IDS, mask=SHORT, decoder_ids=IDS[:, :3])  # pooled over the decoder's three
    assert torch.equal(short, lm.model.logits(lm.hidden(IDS, mask=SHORT, decoder_ids=IDS[:, :3])))


@torch.no_grad()
def test_what_must_be_written_first_is(tmp_path: Path):
    theirs = build("bart")
    theirs.generation_config.forced_bos_token_id, theirs.generation_config.eos_token_id = 7, None
    theirs.generation_config.forced_eos_token_id = None
    theirs.save_pretrained(tmp_path)
    made = theirs.generate(IDS[:1], max_new_tokens=6, do_sample=False, num_beams=1)[0].tolist()
    assert made[1] == 7
    assert amauta.load(tmp_path).generate([IDS[0].tolist()], temperature=0, max_tokens=5)[0].tokens == made[2:]


def test_a_model_is_saved_in_the_family_that_it_came_in(tmp_path: Path):
    config = transformers.AutoConfig.for_model("mistral", **LLAMA, sliding_window=None)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "theirs")
    amauta.load(tmp_path / "theirs").save(tmp_path / "ours")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "ours").model_type == "mistral"


def test_groups_of_like_length():
    assert buckets([9, 2, 8, 2, 3, 9], 32) == [[1, 3], [4], [2, 0, 5]]
    assert buckets([5] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert buckets([1, 100], 32, padding=1.0) == [[0, 1]]


def test_an_output_table_that_is_not_the_embeddings_is_never_dropped(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    build("llama").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    edited = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(edited))
    with pytest.raises(ModelError, match=r"holds another one: lm_head\.weight"):
        amauta.load(tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert amauta.load(tmp_path).model.spec.tied


def test_a_folder_without_tokenizer_takes_ids_and_says_so(tmp_path: Path):
    build("bert").save_pretrained(tmp_path)
    lm = amauta.load(tmp_path)
    with pytest.raises(ModelError, match=r"without a tokenizer.*tokenizer\.json"):
        lm.embed(["a text"])
    with pytest.raises(ModelError, match="does not write text"):
        lm.generate([[1, 2]])
    with pytest.raises(ModelError, match="gives no probability"):
        lm.score(["a"])


def test_inputs_are_checked_before_the_model_sees_them(tmp_path: Path):
    build("bart").save_pretrained(tmp_path)
    lm = amauta.load(tmp_path)
    with pytest.raises(ModelError, match="Row 2 of 2, position 3: token id 90"):
        lm.logits([[1, 2, 3, 4], [1, 2, 3, 90]], decoder_ids=[[2], [2]])
    with pytest.raises(ModelError, match="Row 1 of 1, position 1: token id -1"):
        lm.logits([[1, 2]], decoder_ids=[[2, -1]])
    with pytest.raises(ModelError, match=r"has 41 ids.*from 1 to 40"):
        lm.logits([[5] * 41], decoder_ids=[[2]])
    with pytest.raises(ModelError, match="needs decoder_ids"):
        lm.logits([[5] * 4])
    with pytest.raises(ModelError, match="Text 1 of 1 has 41 tokens"):
        lm.embed([[5] * 41])
    assert lm.embed([[5] * 41], truncate="right").equal(lm.embed([[5] * 40]))
