"""Other people's models in sft, prefer, pretrain --start and replay, judged by transformers."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import metrics
from amauta.adapt.settings import Adapters
from amauta.base.errors import ConfigError, DataError, ModelError
from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.exchange.gguf import write as gguf_write
from amauta.models.exchange.opening import open_model
from amauta.models.spec import Reformer, Spec
from amauta.runs import Run
from amauta.tokenize.files import load_tokenizer
from amauta.train.dialogues import prepare_preferences
from amauta.train.prefer.run import prefer
from amauta.train.preflight import check_spec
from amauta.train.pretrain import pretrain
from amauta.train.replay import Replay, replay
from amauta.train.sft import sft
from amauta.train.start import lineage, load_base
from tests.tokenize.foreign_tokenizers import TEMPLATES
from tests.train.conftest import THINGS, Tiny, colour
from tests.train.foreign import GENERATION, llama, logprobs, theirs, transformers

END, TURN = 2, 5  # </s>, <|im_end|>


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("foreign") / "llama")


def dialogues() -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"What colour is the {thing}?"},
             {"role": "assistant", "content": f"It is {colour(thing)}."}] for thing in THINGS]  # fmt: skip


def laid_out(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], int, int]:
    """By transformers: the ids, where the answer begins, and where it ends, its <|im_end|> included."""
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert whole[: len(prompt)] == prompt
    return whole, len(prompt), len(prompt) + whole[len(prompt) :].index(TURN) + 1


def test_sft_of_their_model_opens_in_transformers(tiny: Tiny, base: Path):
    before, tokenizer = theirs(base)
    losses: list[float] = []
    for messages in dialogues():
        ids, begin, end = laid_out(tokenizer, messages)
        losses += (-logprobs(before, ids)[begin - 1 : end - 1]).tolist()
    loop = {"steps": 2, "rows": 7}
    result = sft(tiny.sft("chat", model=str(base), loop=loop, length=120, prompts=["Hi"], optim={"lr": 1e-3}))
    told = [row["loss"] for row in metrics.read(Run(tiny.folder / "chat").metrics) if "loss" in row]
    assert told[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5) and told[1] < told[0]
    after, again = theirs(Path(result["model"]))
    assert again.chat_template == tokenizer.chat_template
    ids = laid_out(again, dialogues()[0])[0]
    assert ids == laid_out(tokenizer, dialogues()[0])[0]
    ours, _ = open_model(find_model(result["model"]))
    with torch.inference_mode():
        torch.testing.assert_close(ours.logits(ours(torch.tensor([ids]))), after(torch.tensor([ids])).logits)
    assert not torch.equal(after.lm_head.weight, before.lm_head.weight)
    kept = json.loads((Path(result["model"]) / "generation_config.json").read_text())
    assert kept == GENERATION | {"eos_token_id": [END, TURN], "bos_token_id": 1}
    seen = replay(Replay(tiny.folder / "chat", 1))
    carrying = {text for row in seen["rows"] for text, carries in row["spans"] if carries}
    assert carrying == {f"It is {colour(thing)}.<|im_end|>" for thing in THINGS}
    assert seen["recomputed"] == pytest.approx(told[0], rel=1e-5)


def test_dpo_of_their_model(tiny: Tiny, base: Path):
    result = prefer(tiny.prefer("p", model=str(base), loop={"steps": 2, "rows": 7}, length=160))
    rows = [row for row in metrics.read(Run(tiny.folder / "p").metrics) if "loss" in row]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    model, tokenizer = theirs(base)
    pairs = [json.loads(line) for line in (tiny.folder / "pairs.jsonl").read_text().splitlines()]
    sums = []
    for pair in pairs:
        asked = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["chosen"]}]
        ids, begin, end = laid_out(tokenizer, asked)
        sums.append(float(logprobs(model, ids)[begin - 1 : end - 1].sum()))
    assert rows[0]["chosen_logprob"] == pytest.approx(sum(sums) / len(sums), rel=1e-5)
    assert result["kept"] == 7 and theirs(Path(result["model"]))[1].chat_template == tokenizer.chat_template


# What stands before an answer is written only while the answer is awaited, as in templates of reasoning models.
THINKS = TEMPLATES["chatml"].replace("<|im_start|>assistant\n' }}", "<|im_start|>assistant\n<think>' }}")


def test_a_prompt_that_its_answer_changes_is_named(tiny: Tiny, tmp_path: Path):
    tokenizer = load_tokenizer(llama(tmp_path / "thinks", template=THINKS))
    assert tokenizer is not None
    pair = {"prompt": "a", "chosen": "a long answer, of more tokens than what was left out", "rejected": "no"}
    for answer in ("no", pair["chosen"] + "!"):
        file = tiny.file("changed.jsonl", [pair | {"rejected": answer}])
        with pytest.raises(DataError, match=r"changed\.jsonl:1.*not the beginning"):
            prepare_preferences([file], tokenizer, length=150, too_long="error", may_skip=0)


def test_pretraining_goes_on_from_a_gguf_with_its_tokenizer(tiny: Tiny, base: Path):
    file = tiny.folder / "base.gguf"
    gguf_write.write(*open_model(find_model(base)), file, type="f32")
    heldout = [str(tiny.folder / "text.jsonl")]
    result = pretrain(tiny.pretrain("more", start=str(file), tokenizer=None, length=80, heldout=heldout))
    model, tokenizer = theirs(Path(result["model"]))[0], theirs(base)[1]
    texts = [json.loads(line)["text"] for line in (tiny.folder / "text.jsonl").read_text().splitlines()]
    rows = [[1, *tokenizer.encode(text, add_special_tokens=False), END] for text in texts]
    assert max(map(len, rows)) <= 81  # none is cut
    bits = -sum(float(logprobs(model, row).sum()) for row in rows) / math.log(2) / sum(map(len, texts))
    assert result["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    first = next(row["loss"] for row in metrics.read(Run(tiny.folder / "more").metrics) if "loss" in row)
    assert replay(Replay(tiny.folder / "more", 1))["recomputed"] == pytest.approx(first, rel=1e-5)
    card = json.loads((Path(result["model"]) / "card.json").read_text())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = [{"file": "base.gguf", "sha256": sha256}]
    assert card["parent"] == {"name": str(file), "source": "path", "weights": weights}
    with pytest.raises(ConfigError, match="--tokenizer"):
        pretrain(tiny.pretrain("no", tokenizer=None))


def test_every_shard_of_a_parent_is_named_by_content(tmp_path: Path):
    folder = llama(tmp_path / "sharded", shard="40KB")
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    wanted = [{"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files]
    parent = lineage(find_model(folder), [])["parent"]
    assert parent == {"name": str(folder), "source": "path", "weights": wanted}


PLAIN = Spec(vocabulary=8, context=8, width=8, layers=2, heads=2)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": "encoder"}, "kind=encoder"),
        ({"kind": "encoder-decoder"}, "kind=encoder-decoder"),
        ({"outputs": ()}, "outputs=-"),
        ({"outputs": ("language", "classifier")}, "outputs=language,classifier"),
        ({"output_bias": True}, "output_bias"),
        ({"output_scale": 0.5}, "output_scale=0.5"),
        ({"reformer": Reformer(layers=("local", "lsh"))}, "reformer"),
    ],
)
def test_what_next_token_steps_cannot_train_is_refused_by_name(changes: dict[str, Any], what: str):
    check_spec(PLAIN, "fine")
    with pytest.raises(ModelError, match=f"name-of-it.*not trained.*{what}"):
        check_spec(dataclasses.replace(PLAIN, **changes), "name-of-it")


def test_refusals_come_before_the_weights_are_read(tiny: Tiny, base: Path, monkeypatch: pytest.MonkeyPatch):
    loop = tiny.sft("x").loop
    encoder = tiny.folder / "encoder"
    config = transformers.BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16)  # fmt: skip
    transformers.BertModel(config).save_pretrained(encoder)
    silent, bare = llama(tiny.folder / "silent", template=None), llama(tiny.folder / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    monkeypatch.setattr(exchange, "load", lambda *_, **__: pytest.fail("the weights were read"))
    for name, said in ((encoder, "kind=encoder"), (silent, "no chat template"), (bare, "without a tokenizer")):
        with pytest.raises(ModelError, match=said):
            load_base(str(name), None, loop, Adapters())
