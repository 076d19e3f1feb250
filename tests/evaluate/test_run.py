"""amauta eval of other people's models, judged by transformers."""

import json
import math
from pathlib import Path

import pytest

from amauta.base.errors import ModelError
from amauta.evaluate.run import evaluate
from amauta.evaluate.settings import Evaluate
from tests.train.foreign import llama, logprobs, theirs, transformers

TEXTS = ["The hat is red.", "¿Dónde está la tejedora?", "x" * 300]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("foreign") / "llama")


def jsonl(path: Path, *rows: dict[str, object]) -> tuple[str, ...]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (str(path),)


def asked(model: Path, **more: object) -> Evaluate:
    return Evaluate(str(model), device="cpu", **more)  # type: ignore[arg-type]


def test_bits_per_byte_are_those_of_transformers(model: Path, tmp_path: Path):
    found = evaluate(asked(model, text=jsonl(tmp_path / "t.jsonl", *({"text": text} for text in TEXTS[:2]))))
    theirs_model, tokenizer = theirs(model)
    rows = [[1, *tokenizer.encode(text, add_special_tokens=False), 2] for text in TEXTS[:2]]
    nats = -sum(float(logprobs(theirs_model, row).sum()) for row in rows)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(len(t.encode()) for t in TEXTS[:2]))
    assert found["tokens"] == sum(len(row) - 1 for row in rows)


def test_dialogues_and_pairs_by_its_own_template(model: Path, tmp_path: Path):
    chats = jsonl(tmp_path / "d.jsonl", {"prompt": "hat?", "completion": "red"}, {"prompt": "cup?", "completion": "a"})
    rows = [{"prompt": f"hat {n}?", "chosen": "red", "rejected": "blue or so"} for n in range(4)]
    found = evaluate(asked(model, dialogues=chats, preferences=jsonl(tmp_path / "p.jsonl", *rows), max_tokens=4))
    theirs_model, tokenizer = theirs(model)
    likelier = 0
    for row in rows:
        sums = []
        for answer in (row["chosen"], row["rejected"]):
            messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": answer}]
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
            begin = len(tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False))
            end = begin + ids[begin:].index(5) + 1  # <|im_end|>
            sums.append(float(logprobs(theirs_model, ids)[begin - 1 : end - 1].sum()))
        likelier += sums[0] > sums[1]
    assert found["likelier"] == likelier / 4 and found["exact_n"] == 2


def test_what_writes_no_text_is_refused_by_name(model: Path, tmp_path: Path):
    config = transformers.BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16)  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    text = jsonl(tmp_path / "t.jsonl", {"text": "x"})
    with pytest.raises(ModelError, match="bert cannot be measured.*kind=encoder, outputs=masked"):
        evaluate(asked(tmp_path / "bert", text=text))
    silent = llama(tmp_path / "silent", template=None)
    assert evaluate(asked(silent, text=text))["documents"] == 1
    with pytest.raises(ModelError, match="no chat template"):
        evaluate(
            asked(silent, preferences=jsonl(tmp_path / "p.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"}))
        )
