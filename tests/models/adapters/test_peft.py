"""Adapters and peft: what either writes, the other reads, and both say the same."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.adapt.settings import Adapters
from amauta.base.errors import ModelError
from amauta.hub import find_model
from amauta.models.adapters import attach, attached, counts
from amauta.models.adapters.folder import write
from amauta.models.exchange.opening import read_weights, spec_of
from tests.models.adapters.toys import moved
from tests.models.parity import close
from tests.test_every_family import CONFIGS, IDS, SHORT, build

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

OURS = {  # what is put on our model, and written
    "lora": {"adapter": ("lora",)},
    "lora-qv": {"adapter": ("lora",), "adapter_targets": ("q", "v"), "adapter_rank": 3, "adapter_alpha": 5.0},
    "lora-whole": {"adapter": ("lora",), "adapter_targets": ("qkv", "down")},
    "lora-some": {"adapter": ("lora",), "adapter_targets": (r"blocks\.1\..*\.(q|k|up)$", r"blocks\.0\..*\.v")},
    "rslora": {"adapter": ("lora",), "adapter_rslora": True, "adapter_targets": ("q", "k", "o")},
    "dora": {"adapter": ("dora",), "adapter_targets": ("q", "v", "down")},
    "ia3": {"adapter": ("ia3",)},
    "norms": {"adapter": ("norms",)},
    "lora+norms": {"adapter": ("lora", "norms")},
}
BEFORE = {
    "prefix": {"adapter": ("prefix",), "adapter_length": 3},
    "prompt": {"adapter": ("prompt",), "adapter_length": 3},
}
DECODERS = ("llama", "gpt2", "gemma3_text", "qwen3")
FAMILIES = (*DECODERS, "bert", "roberta", "distilbert", "albert", "electra", "t5", "bart")
WRITTEN = [(name, kind) for name in FAMILIES for kind in OURS
           if name in ("llama", "gpt2") or kind in ("lora", "ia3", "norms")]  # fmt: skip
WRITTEN += [(name, kind) for name in DECODERS for kind in BEFORE]


def given(name: str) -> dict[str, Any]:
    return {"decoder_input_ids": IDS[:, :5]} if name in ("t5", "bart") else {}


def theirs_say(model: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=SHORT.long(), **given(name)).logits
    return logits if logits.dim() == 2 or given(name) else logits[:, -IDS.shape[1] :]  # a prompt has logits there too


def ours_say(model: Any, name: str) -> torch.Tensor:
    more = {"decoder_ids": IDS[:, :5]} if given(name) else {}
    with torch.no_grad():
        return model.logits(model(IDS, mask=SHORT, **more), mask=SHORT)


def same(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> None:
    close(ours, theirs, None if given(name) or ours.dim() == 2 else SHORT)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of each family, made when it is asked for."""
    held: dict[str, Path] = {}

    def base(name: str) -> Path:
        if name not in held:
            held[name] = tmp_path_factory.mktemp(name)
            build(name).save_pretrained(held[name])
        return held[name]

    return base


def theirs_of(folder: Path, adapter: Path, name: str) -> Any:
    base = getattr(transformers, CONFIGS[name][0]).from_pretrained(folder, attn_implementation="eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?s).*([Mm]issing|nexpected|ignored)")
        return peft.PeftModel.from_pretrained(base, adapter).eval()


@pytest.mark.parametrize(("name", "kind"), WRITTEN)
def test_what_we_write_peft_reads(name: str, kind: str, bases: Any, tmp_path: Path):
    found = find_model(bases(name))
    model = read_weights(found, None)
    plain = ours_say(model, name)
    settings = Adapters(**(OURS | BEFORE)[kind])
    told = attach(model, settings, seed=1)
    moved(model, 0.2)
    wanted = ours_say(model, name)
    assert not torch.allclose(wanted, plain, atol=1e-2)
    assert write(model, None, found, tmp_path)["layout"] == "peft"

    theirs = theirs_of(bases(name), tmp_path, name)
    same(wanted, theirs_say(theirs, name), name)
    if kind in ("lora", "dora", "ia3", *BEFORE):  # the same places in the same form
        if name != "gpt2" or kind in BEFORE:  # whose q, k and v are one matrix there
            numbers = sum(value.numel() for key, value in theirs.named_parameters() if "base_layer" not in key and
                          any(mark in key for mark in ("lora_", "ia3_", "prompt_encoder")))  # fmt: skip
            assert numbers == told["trained"] == counts(spec_of(found), settings)

    adapter = find_model(tmp_path)
    assert adapter.kind == "adapter"
    for merge in (True, False):
        again = read_weights(adapter, None, merge=merge)
        assert attached(again) == (not merge or kind in BEFORE)
        same(ours_say(again, name), wanted, name)


TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"], "bert": ["query", "value"],
           "t5": ["q", "v", "wo"], "gemma3_text": ["q_proj", "gate_proj"], "qwen3": ["k_proj", "o_proj", "up_proj"],
           "distilbert": ["q_lin", "lin2"], "bart": ["q_proj", "fc1"]}  # fmt: skip
TASK = dict.fromkeys(DECODERS, "CAUSAL_LM")  # with SEQ_2_SEQ_LM, peft 0.21 fails beside transformers 5
THEIRS = {
    "lora": lambda n: peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[n], task_type=TASK.get(n)),
    "all-linear": lambda n: peft.LoraConfig(r=2, target_modules="all-linear", task_type=TASK.get(n)),
    "rslora": lambda n: peft.LoraConfig(r=4, use_rslora=True, target_modules=TARGETS[n], task_type=TASK.get(n)),
    "dora": lambda n: peft.LoraConfig(r=4, use_dora=True, target_modules=TARGETS[n], task_type=TASK.get(n)),
    "patterns": lambda n: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=TARGETS[n], rank_pattern={TARGETS[n][0]: 2}, alpha_pattern={TARGETS[n][0]: 9},
        task_type=TASK.get(n),
    ),
    "ia3": lambda n: peft.IA3Config(task_type=TASK.get(n)),
    "norms": lambda n: peft.LNTuningConfig(task_type=TASK.get(n)),
}  # fmt: skip
SOME = ("lora", "ia3", "norms")  # for most families
NOT_THEIRS = {("distilbert", "ia3"), *((name, "norms") for name in ("bert", "distilbert", "qwen3"))}  # no defaults
READ = [(name, kind) for name in TARGETS for kind in THEIRS
        if (name, kind) not in NOT_THEIRS and (name in ("llama", "gpt2") or kind in SOME)]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), READ)
def test_what_peft_writes_we_read(name: str, kind: str, bases: Any, tmp_path: Path):
    base = getattr(transformers, CONFIGS[name][0]).from_pretrained(bases(name), attn_implementation="eager")
    theirs = moved(peft.get_peft_model(base, THEIRS[kind](name)), 0.2).eval()
    wanted = theirs_say(theirs, name)
    theirs.save_pretrained(tmp_path)
    for merge in (True, False):
        model = read_weights(find_model(tmp_path), None, merge=merge)
        same(ours_say(model, name), wanted, name)
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == \
        sum(value.numel() for value in theirs.parameters() if value.requires_grad) or kind == "patterns"  # fmt: skip

    again = tmp_path / "again"
    write(model, None, find_model(bases(name)), again, name="base")
    same(wanted, theirs_say(theirs_of(bases(name), again, name), name), name)


@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptTuningConfig"])
@pytest.mark.parametrize("name", DECODERS)
def test_prefixes_of_peft(name: str, kind: str, bases: Any, tmp_path: Path):
    base = getattr(transformers, CONFIGS[name][0]).from_pretrained(bases(name), attn_implementation="eager")
    theirs = peft.get_peft_model(base, getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4))
    theirs = moved(theirs, 0.5).eval()
    theirs.save_pretrained(tmp_path)
    model = read_weights(find_model(tmp_path), None)
    same(ours_say(model, name), theirs_say(theirs, name), name)


def test_a_classifier_goes_with_its_adapter(bases: Any, tmp_path: Path):
    from amauta.models.reshape import reshaped, with_head

    found = find_model(bases("bert"))
    base = read_weights(found, None)
    model = reshaped(base, with_head(base.spec, ("classifier",), labels=3), seed=5)
    attach(model, Adapters(adapter=("lora",)), seed=1, also=("outputs.",))
    wanted = ours_say(moved(model.eval(), 0.2), "bert")
    assert wanted.shape == (2, 3)
    assert write(model, None, found, tmp_path)["layout"] == "peft"
    again = read_weights(find_model(tmp_path), None)
    assert again.spec.outputs == ("classifier",) and spec_of(find_model(tmp_path)) == again.spec
    same(ours_say(again, "bert"), wanted, "bert")

    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(bases("bert"), num_labels=3)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    same(wanted, theirs_say(theirs, "bert"), "bert")


LACKED = [("houlsby", "norms"), ("prefix-layer",), ("lora", "pfeiffer"), ("lora", "bitfit"), ("embeddings", "ia3")]


@pytest.mark.parametrize("kinds", LACKED, ids="+".join)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_what_peft_lacks_keeps_our_names(name: str, kinds: tuple[Any, ...], bases: Any, tmp_path: Path):
    found = find_model(bases(name))
    model = read_weights(found, None)
    attach(model, Adapters(adapter=kinds, adapter_length=2), seed=1)
    wanted = ours_say(moved(model, 0.2), name)
    assert write(model, None, found, tmp_path)["layout"] == "amauta"  # the tables of both are tied
    same(ours_say(read_weights(find_model(tmp_path), None), name), wanted, name)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_tables_that_are_not_tied_are_kept_whole(kind: Any, bases: Any, tmp_path: Path):
    found = find_model(bases("llama"))
    model = read_weights(found, None)
    attach(model, Adapters(adapter=(kind, "embeddings")), seed=1)
    wanted = ours_say(moved(model, 0.2), "llama")
    assert write(model, None, found, tmp_path)["layout"] == "peft"
    same(wanted, theirs_say(theirs_of(bases("llama"), tmp_path, "llama"), "llama"), "llama")
    same(ours_say(read_weights(find_model(tmp_path), None), "llama"), wanted, "llama")


@pytest.mark.parametrize("kinds", [("prefix",), ("prefix", "norms")], ids="+".join)
def test_a_prefix_is_kept_without_what_made_it(kinds: tuple[Any, ...], bases: Any, tmp_path: Path):
    found = find_model(bases("llama"))
    model = read_weights(found, None)
    attach(model, Adapters(adapter=kinds, adapter_length=2, adapter_hidden=7), seed=1)
    wanted = ours_say(moved(model, 0.2), "llama")
    numbers = counts(spec_of(found), Adapters(adapter=kinds, adapter_length=2))
    assert write(model, None, found, tmp_path)["numbers"] == numbers
    again = read_weights(find_model(tmp_path), None)
    same(ours_say(again, "llama"), wanted, "llama")
    assert sum(value.numel() for value in again.parameters() if value.requires_grad) == numbers


REFUSED = [
    ({"bias": "all"}, "bias"), ({"layer_replication": [[0, 1]]}, "layer_replication"), ({"peft_type": "VERA"}, "VERA"),
    ({"target_parameters": ["x"]}, "target_parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_is_not_computed_is_refused(change: dict[str, Any], named: str, bases: Any, tmp_path: Path):
    found = find_model(bases("llama"))
    model = read_weights(found, None)
    attach(model, Adapters(adapter=("lora",)), seed=1)
    write(model, None, found, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=named):
        read_weights(find_model(tmp_path), None)


def test_an_adapter_of_other_layers_is_refused(bases: Any, tmp_path: Path):
    """A folder of peft's has no fingerprint: names and shapes tell."""
    base = transformers.AutoModelForCausalLM.from_pretrained(bases("llama"))
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    for other, said in (("gpt2", "4 layers|2 layers"), ("qwen3", r"q_proj \(b\) has the shape \(32, 4\)")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(bases(other))}))
        with pytest.raises(ModelError, match=said):
            read_weights(find_model(tmp_path), None)
