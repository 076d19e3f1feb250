"""T5 and BART in both directions: transformers and we compute the same from each other's folders, in f32."""

import itertools
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
from tests.models.parity import END, PAD, V, close, disturbed, loaded, made, opened, padded, tokens

transformers = pytest.importorskip("transformers")
S, T = 40, 33  # both longer than the relative positions tell apart
SOURCE, TARGET = tokens(2, S), tokens(2, T, seed=1)
SHORT, REAL = padded(SOURCE, [S, 17])
TARGET_SHORT, TARGET_REAL = padded(TARGET, [21, T])
T5 = {
    "vocab_size": V, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20, "decoder_start_token_id": PAD,
    "layer_norm_epsilon": 1e-3, "initializer_factor": 0.3,
}  # fmt: skip
BART = {
    "vocab_size": V, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 64,
    "pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": END, "decoder_start_token_id": END,
    "forced_eos_token_id": None,
}  # fmt: skip
GATED = {"feed_forward_proj": "gated-gelu"}
SETTINGS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "t5-gated": T5 | GATED,
    "t5-unscaled": T5 | GATED | {"tie_word_embeddings": False},
    "bart": BART,
    "bart-scaled": BART | {"scale_embedding": True, "activation_function": "gelu_new"},
}


def their_config(name: str, **changes: Any) -> Any:
    kind = transformers.T5Config if name.startswith("t5") else transformers.BartConfig
    return kind(**SETTINGS[name] | changes)


def config_of(name: str) -> dict[str, Any]:
    """The config as they write it into config.json."""
    return json.loads(their_config(name).to_json_string(use_diff=False))


def theirs_of(name: str, head: str = "Seq2SeqLM", **changes: Any) -> Any:
    """A small random model of theirs."""
    kind = transformers.AutoModel if head == "" else getattr(transformers, f"AutoModelFor{head}")
    return made(kind, their_config(name, **changes))


def ours_of(name: str, **changes: Any) -> Transformer:
    """Our own random model with the same spec."""
    module = exchange.family(name.split("-")[0])
    return disturbed(Transformer.create(module.to_spec(config_of(name) | changes), seed=1))


def logits(model: Transformer) -> torch.Tensor:
    return model.logits(model(SOURCE, decoder_ids=TARGET))


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_we_compute_what_transformers_computes(name: str, tmp_path: Path):
    theirs = theirs_of(name)
    ours = loaded(theirs, tmp_path)
    expected = theirs(SOURCE, decoder_input_ids=TARGET, output_hidden_states=True)
    hidden, seen = ours(SOURCE, decoder_ids=TARGET, capture={"hidden"})
    close(ours.logits(hidden), expected.logits)
    for stack, states in (("encoder", expected.encoder_hidden_states), ("decoder", expected.decoder_hidden_states)):
        assert len(seen[stack].hidden) == len(states) > 2
        for mine, other in zip(seen[stack].hidden, states, strict=True):
            close(mine, other)


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_padding_on_both_sides_changes_nothing(name: str, tmp_path: Path):
    theirs = theirs_of(name)
    ours = loaded(theirs, tmp_path)
    expected = theirs(
        SHORT, attention_mask=REAL.long(), decoder_input_ids=TARGET_SHORT, decoder_attention_mask=TARGET_REAL.long()
    )
    close(ours.encode(SHORT, mask=REAL), expected.encoder_last_hidden_state, REAL)
    close(ours.logits(ours(SHORT, decoder_ids=TARGET_SHORT, mask=REAL)), expected.logits, TARGET_REAL)
    alone = ours.logits(ours(SOURCE[1:, :17], decoder_ids=TARGET[1:]))
    close(alone, expected.logits[1:])


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_transformers_computes_what_we_compute(name: str, tmp_path: Path):
    ours = ours_of(name)
    exchange.save(ours, tmp_path)
    theirs = opened(transformers.AutoModelForSeq2SeqLM, tmp_path)
    assert theirs.config.model_type == name.split("-")[0]
    close(logits(ours), theirs(SOURCE, decoder_input_ids=TARGET).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_transformers_writes_from_our_folder(name: str, tmp_path: Path):
    """Greedy writing needs the token that the decoder starts with, also where the folder says how to generate."""
    ours = ours_of(name)
    exchange.save(ours, tmp_path, special={"pad_token_id": PAD, "eos_token_id": END})
    theirs = opened(transformers.AutoModelForSeq2SeqLM, tmp_path)
    written = theirs.generate(SOURCE[:1], max_new_tokens=5, do_sample=False, num_beams=1)
    ids = torch.tensor([[ours.spec.decoder_start]])
    while ids.shape[1] < written.shape[1]:
        ids = torch.cat((ids, ours.logits(ours(SOURCE[:1], decoder_ids=ids))[:, -1:].argmax(-1)), dim=1)
    assert written.tolist() == ids.tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_a_base_model_has_no_output(name: str, tmp_path: Path):
    theirs = theirs_of(name, "")
    ours = loaded(theirs, tmp_path / "theirs")
    assert ours.spec.outputs == ()
    expected = theirs(SOURCE, decoder_input_ids=TARGET).last_hidden_state
    close(ours(SOURCE, decoder_ids=TARGET), expected)
    exchange.save(ours, tmp_path / "ours")
    again = opened(transformers.AutoModel, tmp_path / "ours")
    close(again(SOURCE, decoder_input_ids=TARGET).last_hidden_state, expected)


@torch.no_grad()
def test_the_encoder_of_t5_alone(tmp_path: Path):
    theirs = made(transformers.T5EncoderModel, their_config("t5-gated"))
    ours = loaded(theirs, tmp_path / "theirs")
    assert ours.spec.kind == "encoder" and ours.decoder is None
    expected = theirs(SHORT, attention_mask=REAL.long()).last_hidden_state
    close(ours(SHORT, mask=REAL), expected, REAL)
    exchange.save(ours, tmp_path / "ours")
    again = opened(transformers.T5EncoderModel, tmp_path / "ours")
    close(again(SHORT, attention_mask=REAL.long()).last_hidden_state, expected, REAL)


@torch.no_grad()
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_classifiers_read_the_decoder_at_the_end_of_the_text(name: str, tmp_path: Path):
    """The decoder is fed the text itself, one step late; the state at its last token is the text's."""
    theirs = theirs_of(name, "SequenceClassification", id2label={0: "no", 1: "maybe", 2: "yes"})
    ours = loaded(theirs, tmp_path / "theirs")
    assert ours.spec.label_names == ("no", "maybe", "yes")
    text, real = padded(SOURCE, [S, 17], end=True)
    start = torch.tensor([[ours.spec.decoder_start]]).expand(2, 1)
    late = torch.cat((start, text[:, :-1]), dim=1)
    given = ours.logits(ours(text, decoder_ids=late, mask=real), mask=real)
    close(given, theirs(text, attention_mask=real.long()).logits)
    exchange.save(ours, tmp_path / "ours", special={"pad_token_id": PAD, "eos_token_id": END})
    again = opened(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    assert again.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    close(given, again(text, attention_mask=real.long()).logits)


HEADS = ("ForConditionalGeneration", "Model", "ForSequenceClassification")


@pytest.mark.parametrize(("name", "head"), [*itertools.product(SETTINGS, HEADS), ("t5", "EncoderModel")])
def test_a_spec_survives_its_config(name: str, head: str):
    module = exchange.family(name.split("-")[0])
    family = "T5" if name.startswith("t5") else "Bart"
    spec = module.to_spec(config_of(name) | {"architectures": [family + head]})
    config = module.to_config(spec)
    assert config is not None and config["architectures"] == [family + head]
    assert module.to_spec(json.loads(json.dumps(config))) == spec


@torch.no_grad()
@pytest.mark.parametrize("name", SETTINGS)
def test_a_cache_changes_nothing(name: str):
    """Rows of 4 and 9 tokens in one padded pass, then one token a step; the encoder's states only at first."""
    ours = ours_of(name)
    whole = ours.logits(ours(SHORT, decoder_ids=TARGET, mask=REAL))
    cache = ours.new_cache(2, T)
    encoded = ours.encode(SHORT, mask=REAL)
    places = torch.arange(9).expand(2, -1)
    given = ours.decode(TARGET[:, :9], positions=places, cache=cache, encoded=encoded, encoded_mask=REAL)
    close(ours.logits(given[0, :4]), whole[0, :4])
    close(ours.logits(given[1]), whole[1, :9])
    for step in range(T - 9):
        at = torch.tensor([[4 + step], [9 + step]])
        given = ours.logits(ours.decode(TARGET.gather(1, at), positions=at, cache=cache))
        close(given[:, 0], whole[torch.arange(2), at[:, 0]])


def rewritten(folder: Path, config: dict[str, Any], **weights: torch.Tensor) -> None:
    """Other options and further tensors in a folder."""
    whole = json.loads((folder / "config.json").read_text()) | config
    whole = {key: value for key, value in whole.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(whole))
    file = folder / "model.safetensors"
    save_file(load_file(file) | weights, file, metadata={"format": "pt"})


@torch.no_grad()
def test_a_head_of_its_own(tmp_path: Path):
    """T5 1.1 as published: an untied head, and a config that says so in the old way."""
    theirs = theirs_of("t5-unscaled")
    theirs.save_pretrained(tmp_path)
    head = torch.randn(V, 32, generator=torch.Generator().manual_seed(3))
    shared = theirs.shared.weight
    copies = {"encoder.embed_tokens.weight": shared.clone(), "decoder.embed_tokens.weight": shared.clone()}
    config = {"tie_word_embeddings": False, "scale_decoder_outputs": "absent"}
    rewritten(tmp_path, config, **{"lm_head.weight": head}, **copies)
    ours = exchange.load(tmp_path)
    assert not ours.spec.tied and ours.spec.output_scale == 1.0
    expected = theirs(SOURCE, decoder_input_ids=TARGET, output_hidden_states=True).decoder_hidden_states[-1] @ head.T
    close(logits(ours), expected)
    exchange.save(ours, tmp_path / "ours")
    again = opened(transformers.AutoModelForSeq2SeqLM, tmp_path / "ours")
    close(logits(ours), again(SOURCE, decoder_input_ids=TARGET).logits)
    module = exchange.family("t5")
    assert module.to_spec(json.loads((tmp_path / "ours/config.json").read_text())) == ours.spec


@torch.no_grad()
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_files_with_copies_of_the_embedding(name: str, tmp_path: Path):
    """What older versions wrote beside it: the table again for each stack and the head, and what nobody reads."""
    theirs = theirs_of(name)
    theirs.save_pretrained(tmp_path)
    inner = "model." if name == "bart" else ""
    shared = load_file(tmp_path / "model.safetensors")[f"{inner}shared.weight"]
    more = {f"{inner}{stack}.embed_tokens.weight": shared.clone() for stack in ("encoder", "decoder")}
    if name == "bart":
        more |= {"model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1)}
    else:
        more["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(12, 4)
    rewritten(tmp_path, {}, **more, **{"lm_head.weight": shared.clone()})
    ours = exchange.load(tmp_path)
    close(logits(ours), theirs(SOURCE, decoder_input_ids=TARGET).logits)


@torch.no_grad()
def test_bart_without_a_prefix_and_without_the_bias(tmp_path: Path):
    theirs = theirs_of("bart")
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name.removeprefix("model."): value for name, value in load_file(file).items()}
    del weights["final_logits_bias"]
    save_file(weights, file)
    ours = exchange.load(tmp_path)
    close(logits(ours), theirs(SOURCE, decoder_input_ids=TARGET).logits)
    weights["encoder.layers.0.fc3.weight"] = torch.ones(1)
    del weights["decoder.layers.1.encoder_attn.k_proj.bias"]
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"decoder\.layers\.1\.encoder_attn\.k_proj\.bias.*encoder\.layers\.0\.fc3"):
        exchange.load(tmp_path)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("t5", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj.*gated-silu"),
    ("t5", {"feed_forward_proj": "gelu"}, "feed_forward_proj"),
    ("t5", {"architectures": ["T5ForQuestionAnswering"]}, "architectures.*T5ForQuestionAnswering"),
    ("bart", {"decoder_attention_heads": 2}, "decoder_attention_heads"),
    ("bart", {"decoder_ffn_dim": 44}, "decoder_ffn_dim"),
    ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("bart", {"activation_function": "quick_gelu"}, "activation_function.*quick_gelu"),
    ("bart", {"normalize_before": True}, "normalize_before"),
    ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm"),
    ("bart", {"normalize_embedding": False}, "normalize_embedding"),
    ("bart", {"static_position_embeddings": True}, "static_position_embeddings"),
    ("bart", {"architectures": ["BartForCausalLM"]}, "architectures.*BartForCausalLM"),
]


@pytest.mark.parametrize(
    ("name", "changes", "said"), REFUSED, ids=[f"{name}-{next(iter(c))}" for name, c, _ in REFUSED]
)
def test_what_we_do_not_compute_is_refused_by_name(name: str, changes: dict[str, Any], said: str):
    with pytest.raises(ModelError, match=said):
        exchange.family(name).to_spec(config_of(name) | changes)


def t5_published(width: int, heads: int, layers: int, inner: int, **more: Any) -> dict[str, Any]:
    """A config as it was published; the second version's has a gated feed-forward and a head of its own."""
    return {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": 32_128, "d_model": width,
        "d_kv": 64, "num_heads": heads, "num_layers": layers, "d_ff": inner, "n_positions": 512, "dropout_rate": 0.1,
        "relative_attention_num_buckets": 32, "decoder_start_token_id": 0, "layer_norm_epsilon": 1e-6, **more,
    }  # fmt: skip


SECOND = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART_BASE = {
    "model_type": "bart", "architectures": ["BartModel"], "vocab_size": 50_265, "d_model": 768, "encoder_layers": 6,
    "decoder_layers": 6, "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072, "max_position_embeddings": 1024, "add_final_layer_norm": False, "normalize_before": False,
    "normalize_embedding": True, "activation_function": "gelu", "scale_embedding": False, "forced_bos_token_id": 0,
}  # fmt: skip
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "t5-small": (t5_published(512, 8, 6, 2048), 60_506_624),
    "t5-base": (t5_published(768, 12, 12, 3072), 222_903_552),
    "t5-large": (t5_published(1024, 16, 24, 4096), 737_668_096),
    "t5-v1_1-small": (t5_published(512, 6, 8, 1024, **SECOND), 76_961_152),
    "t5-v1_1-xl": (t5_published(2048, 32, 24, 5120, **SECOND), 2_849_757_184),
    "bart-base": (BART_BASE, 139_420_416),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str):
    """Parameters that the published models have, tied ones once."""
    config, size = PUBLISHED[name]
    assert parameters(exchange.read_spec(config)) == size
