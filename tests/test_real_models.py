"""Real weights from registries, where they are installed (``make real-models``): the same words as the peers give."""

import json
from pathlib import Path

import pytest
import torch

import amauta
from amauta.base.errors import ModelError
from amauta.hub import find_model
from amauta.tokenize.chat import render

QUESTIONS = [
    "What is the capital of France?", "Name three colours.", "How many legs has a spider?", "Write a haiku about rain.",
    "What is 7 times 8?", "Who wrote Don Quixote?", "Translate 'good morning' into Spanish.", "Why is the sky blue?",
    "Give me a recipe for bread.", "What does HTTP mean?", "List the planets.", "What is a verb?", "Tell me a joke.",
    "How do plants eat?", "What is the opposite of hot?", "Name a river in Peru.", "What is Python?",
    "Explain gravity to a child.", "What comes after Tuesday?", "Is a whale a fish?",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache() -> None:
    """Here the user's cache is read: some known models lie in it."""


def installed(name: str) -> Path:
    try:
        return find_model(name).path
    except ModelError as error:
        pytest.skip(f"{name} is not installed: {error}")


@pytest.fixture(scope="module")
def smollm2() -> amauta.LanguageModel:
    installed("smollm2")
    return amauta.load("smollm2")


@pytest.fixture(scope="module")
def peer(smollm2):
    transformers = pytest.importorskip("transformers")
    path = installed("smollm2")
    kind = {"gguf_file": path.name}
    return (
        transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **kind),
        transformers.AutoTokenizer.from_pretrained(path.parent, **kind),
    )


def test_smollm2_answers_as_in_transformers(smollm2, peer):
    model, tokenizer = peer
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert render(smollm2.tokenizer, messages, reply=True).ids == list(ids)
        made = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=24, do_sample=False,
            eos_token_id=sorted(smollm2.stop_ids), pad_token_id=2,
        )[0, len(ids) :].tolist()  # fmt: skip
        one = smollm2.chat(messages, temperature=0, max_tokens=24)
        assert one.tokens == made
        assert one.text == tokenizer.decode(made, skip_special_tokens=True)


def test_smollm2_knows_paris_and_stops(smollm2):
    one = smollm2.chat([{"role": "user", "content": QUESTIONS[0]}], temperature=0, max_tokens=40)
    assert one.text == "The capital of France is Paris." and one.finish == "stop"


def test_minilm_embeds_and_orders_as_sentence_transformers_does(amauta_data: Path):
    peer = pytest.importorskip("sentence_transformers")
    stats = pytest.importorskip("scipy.stats")
    folder, lm = installed("minilm"), amauta.load("minilm")
    file = amauta_data / "tasks" / "stsb_en_train.jsonl"
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:600]]
    texts = [pair[side] for pair in pairs for side in ("a", "b")]
    wanted = peer.SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True)
    found = lm.embed(texts)
    assert float((found * wanted).sum(-1).min()) > 0.9999
    scores = [pair["score"] for pair in pairs]
    spearman = [stats.spearmanr((x[::2] * x[1::2]).sum(-1).numpy(), scores).statistic for x in (found, wanted.cpu())]
    assert spearman[0] == pytest.approx(spearman[1], abs=1e-4) and spearman[0] > 0.7


def test_stories15m_tells_a_story():
    installed("stories15m")
    [one] = amauta.load("stories15m").generate("Once upon a time", temperature=0, max_tokens=30)
    assert one.text.startswith(", there was a little girl named Lily.")
