"""Fine-tuning from files to a model folder, in every manner, judged by what was learned and by transformers."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta import config, metrics
from amauta.base.errors import ConfigError, DataError, Interrupted, ModelError
from amauta.models import exchange
from amauta.runs import Run, digest
from amauta.tokenize.added import DELIM, EXTRACT, START
from amauta.tokenize.files import load_tokenizer
from amauta.train import loop as loop_module
from amauta.train.finetune.run import finetune, over_seeds
from amauta.train.finetune.settings import Finetune
from tests.models.parity import made, opened
from tests.tokenize.foreign_tokenizers import MADE, NAMES, write

transformers = pytest.importorskip("transformers")
LOOP = {"rows": 8, "device": "cpu", "dtype": "f32", "seed": 3}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {  # tokenizer, class, config
    "bert": ("wordpiece", "AutoModelForMaskedLM", {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 64, "pad_token_id": 0}),
    "llama": ("byte-level with a first token", "AutoModelForCausalLM", {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 96, "tie_word_embeddings": True}),
    "t5": ("unigram", "AutoModelForSeq2SeqLM", {
        "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
        "decoder_start_token_id": 0}),
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, (tokenizer, auto, shape) in KINDS.items():
        folder = tmp_path_factory.mktemp("bases") / kind
        inner = MADE[tokenizer]()
        settings = transformers.AutoConfig.for_model(kind, vocab_size=inner.get_vocab_size(), **shape)
        made(getattr(transformers, auto), settings).save_pretrained(folder)
        write(folder, inner, NAMES[tokenizer])
        found[kind] = str(folder)
    return found


def file(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def words(count: int, seed: int = 0) -> list[list[str]]:
    generator = torch.Generator().manual_seed(seed)
    lexicon = ("cat", "dog", "tea", "sun", "hat", "red", "one", "two")
    return [[lexicon[int(i)] for i in torch.randint(8, (int(n),), generator=generator)]
            for n in torch.randint(3, 9, (count,), generator=generator)]  # fmt: skip


def labelled(count: int = 48, seed: int = 0) -> list[dict[str, Any]]:
    """Whether a text holds a cat, in every second record."""
    found = []
    for n, text in enumerate(words(count, seed)):
        text = [word for word in text if word != "cat"] or ["sun"]
        found.append({"text": " ".join(["cat", *text] if n % 2 else text), "label": "cat" if n % 2 else "none"})
    return found


def settings(out: Path, model: str, task: str, **changes: Any) -> Finetune:
    return config.build(Finetune, {"model": model, "task": [task], "out": str(out), "loop": LOOP}, changes)


def rates(lr: float) -> dict[str, Any]:
    return {"lr": lr, "warmup": 0.1}


def test_a_classifier_learns_and_opens_in_transformers(bases: dict[str, str], tmp_path: Path):
    task, dev = file(tmp_path, "task", labelled()), file(tmp_path, "dev", labelled(20, seed=9))
    result = finetune(settings(tmp_path / "run", bases["bert"], task, heldout=[dev], loop={"steps": 60},
                               optim=rates(5e-3)))  # fmt: skip
    assert result["accuracy"] == result["f1"] == result["matthews"] == 1.0
    assert (result["kind"], result["labels"], result["records"], result["dropped"]) == (
        "classification", ["cat", "none"], 48, 0,
    )  # fmt: skip
    folder = Path(result["model"])
    theirs = opened(transformers.BertForSequenceClassification, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [row["text"] for row in labelled(20, seed=9)]
    with torch.inference_mode():
        said = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1)
    assert [theirs.config.id2label[int(n)] for n in said] == [row["label"] for row in labelled(20, seed=9)]
    card = json.loads((folder / "card.json").read_text())
    assert card["stage"] == "finetune" and [one["file"] for one in card["data"]] == ["task.jsonl", "dev.jsonl"]


def test_numbers_of_pairs(bases: dict[str, str], tmp_path: Path):
    rows = [{"a": a, "b": b, "score": 5.0 if a == b else 0.5} for a in ("cat", "dog") for b in ("cat", "dog")] * 4
    task = file(tmp_path, "task", rows)
    columns = {"text": "a", "pair": "b", "label": "score"}
    result = finetune(settings(tmp_path / "run", bases["bert"], task, heldout=[task], columns=columns,
                               loop={"steps": 160}, classifier_dropout=0.0, optim=rates(5e-3)))  # fmt: skip
    assert result["pearson"] > 0.95 and result["heldout_loss"] < 0.5
    model, tokenizer = exchange.load(Path(result["model"])), load_tokenizer(Path(result["model"]))
    assert model.spec.labels == 1 and tokenizer is not None
    ids, segments = tokenizer.around("cat", "dog")
    theirs = opened(transformers.BertForSequenceClassification, Path(result["model"]))
    given = transformers.AutoTokenizer.from_pretrained(result["model"])("cat", "dog", return_tensors="pt")
    with torch.inference_mode():
        said = model.logits(model(torch.tensor([ids]), segments=torch.tensor([segments])))
        assert float(said) < 2
        torch.testing.assert_close(theirs(**given).logits, said)  # with the segments that their tokenizer gives


def test_gpts_manner_adds_its_tokens_and_opens_in_transformers(bases: dict[str, str], tmp_path: Path):
    rows = [{"text": a, "text_pair": b, "label": int(a == b)} for a in ("cat", "dog") for b in ("cat", "dog")] * 6
    task = file(tmp_path, "task", rows)
    before = exchange.load(Path(bases["llama"]))
    result = finetune(settings(tmp_path / "run", bases["llama"], task, heldout=[task], manner="gpt",
                               labels=["other", "same"], loop={"steps": 80}, optim=rates(1e-2)))  # fmt: skip
    assert result["accuracy"] == 1.0
    folder = Path(result["model"])
    tokenizer, theirs = load_tokenizer(folder), opened(transformers.LlamaForSequenceClassification, folder)
    assert tokenizer is not None and theirs.config.vocab_size == before.spec.vocabulary + 3
    ids = {name: id for id, name in tokenizer.names.items()}
    assert [ids[START], ids[DELIM], ids[EXTRACT]] == list(range(tokenizer.size - 3, tokenizer.size))
    again = transformers.AutoTokenizer.from_pretrained(folder)
    row = [ids[START], *tokenizer.encode("cat"), ids[DELIM], *tokenizer.encode("dog"), ids[EXTRACT]]
    assert again("[START]cat[DELIM]dog[EXTRACT]", add_special_tokens=False)["input_ids"] == row
    with torch.inference_mode():
        logits = theirs(torch.tensor([row])).logits
    assert theirs.config.id2label[int(logits.argmax())] == "other"
    rows_told = [row for row in metrics.read(Run(tmp_path / "run").metrics) if "lm_loss" in row]
    assert rows_told[0]["loss"] == pytest.approx(rows_told[0]["task_loss"] + 0.5 * rows_told[0]["lm_loss"], rel=1e-5)


def test_choices_and_both_orders(bases: dict[str, str], tmp_path: Path):
    choices = [{"text": a, "choices": ["cat", "dog", "tea"][:n], "label": a} for a in ("cat", "dog") for n in (2, 3)]
    task = file(tmp_path, "task", choices * 4)
    result = finetune(settings(tmp_path / "run", bases["llama"], task, heldout=[task], manner="gpt", lm_weight=0.0,
                               classifier_dropout=0.0, loop={"steps": 50}, optim=rates(1e-2)))  # fmt: skip
    assert result["accuracy"] == 1.0 and result["kind"] == "choice"
    pairs = [{"text": a, "text_pair": b, "label": float(a == b)} for a in ("cat", "dog") for b in ("cat", "dog")]
    task, turned = file(tmp_path, "p", pairs * 4), file(tmp_path, "q", [
        {"text": row["text_pair"], "text_pair": row["text"], "label": row["label"]} for row in pairs * 4])  # fmt: skip
    told = [finetune(settings(tmp_path / f"both{n}", bases["llama"], one, heldout=[one], manner="gpt", lm_weight=0.0,
                              classifier_dropout=0.0, both_orders=True, loop={"steps": 1}))
            for n, one in enumerate((task, turned))]  # fmt: skip
    assert told[0]["heldout_loss"] == pytest.approx(told[1]["heldout_loss"], rel=1e-4)  # the order is nothing to it


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_t5s_manner_writes_the_label(kind: str, bases: dict[str, str], tmp_path: Path):
    task = file(tmp_path, "task", labelled(16))
    more = {"manner": "t5", "input": "is it: {text} ?", "heldout": [task], "answer_tokens": 6}
    first = finetune(settings(tmp_path / "first", bases[kind], task, loop={"steps": 1}, **more))
    assert first["outside"] > 0  # what an untrained model writes is no label, and so is wrong
    result = finetune(settings(tmp_path / "run", bases[kind], task, loop={"steps": 120}, optim=rates(5e-3), **more))
    assert result["accuracy"] == 1.0 and result["outside"] == 0
    folder = Path(result["model"])
    theirs = opened(getattr(transformers, KINDS[kind][1]), folder)
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    text = f"is it: {labelled(2)[1]['text']} ?"
    ids = tokenizer.around(text)[0] if kind == "t5" else tokenizer.prompt(text)
    said = theirs.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0].tolist()
    said = said if kind == "t5" else said[len(ids) :]
    assert tokenizer.decode(said).strip() == "cat"


def test_spans_are_found(bases: dict[str, str], tmp_path: Path):
    rows = []
    for n, text in enumerate(words(32)):
        text = [word for word in text if word not in ("cat", "dog")] or ["sun"]
        at = n % (len(text) + 1)
        context = " ".join([*text[:at], "dog", *text[at:]])
        rows.append({"question": "where is dog ?", "context": context, "answers": ["dog"]})
    rows += [{"question": "where is cat ?", "context": "tea sun", "answers": []}] * 4
    task = file(tmp_path, "task", rows)
    result = finetune(settings(tmp_path / "run", bases["bert"], task, heldout=[task], loop={"steps": 80},
                               optim=rates(1e-2)))  # fmt: skip
    assert result["exact_match"] == 1.0 == result["token_f1"]
    theirs = opened(transformers.BertForQuestionAnswering, Path(result["model"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(result["model"])
    given = tokenizer(rows[3]["question"], rows[3]["context"], return_tensors="pt")
    with torch.inference_mode():
        found = theirs(**given)
    begin, size = given["token_type_ids"][0].tolist().index(1), given["input_ids"].shape[1] - 1
    sums = {(i, j): float(found.start_logits[0, i] + found.end_logits[0, j])
            for i in range(begin, size) for j in range(i, size)}  # fmt: skip
    first, last = max(sums, key=lambda place: sums[place])
    assert tokenizer.decode(given["input_ids"][0, first : last + 1]) == "dog"


def test_seeds_are_runs_of_their_own_with_mean_and_deviation(bases: dict[str, str], tmp_path: Path):
    task, dev = file(tmp_path, "task", labelled()), file(tmp_path, "dev", labelled(20, seed=9))
    one = settings(tmp_path / "run", bases["bert"], task, heldout=[dev], seeds=3, loop={"steps": 4}, optim=rates(1e-3))
    result = finetune(one)
    told = [json.loads((tmp_path / "run" / f"seed-{seed}" / "result.json").read_text()) for seed in (3, 4, 5)]
    losses = [run["heldout_loss"] for run in told]
    assert len(set(losses)) == 3 and result["heldout_loss_values"] == pytest.approx(losses)
    assert result["heldout_loss"] == pytest.approx(statistics.fmean(losses))
    assert result["heldout_loss_std"] == pytest.approx(statistics.stdev(losses))
    assert {"accuracy", "accuracy_std", "accuracy_values"} <= result.keys() and result["seeds"] == [3, 4, 5]
    assert [Path(folder).parent.name for folder in result["model"]] == ["seed-3", "seed-4", "seed-5"]
    alone = settings(tmp_path / "alone", bases["bert"], task, heldout=[dev], loop={"steps": 4, "seed": 4},
                     optim=rates(1e-3))  # fmt: skip
    assert finetune(alone)["heldout_loss"] == losses[1]
    assert (
        finetune(config.build(Finetune, config.to_dict(one), {"loop": {"resume": True}}))["accuracy_values"]
        == (result["accuracy_values"])
    )
    assert over_seeds([{"accuracy": 1.0}, {"accuracy": 0.0}])["accuracy_std"] == pytest.approx(0.5**0.5)


def test_a_resumed_run_is_the_uninterrupted_one(bases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = file(tmp_path, "task", labelled())
    more = {"optim": rates(1e-3), "manner": "bert"}
    whole = finetune(settings(tmp_path / "whole", bases["bert"], task, loop={"steps": 12, "save_every": 5}, **more))
    real, calls = loop_module._one_step, [0]

    def dies(*given: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == 8:
            raise Interrupted("train.interrupted", step=7, steps=12, folder="x")
        return real(*given)

    monkeypatch.setattr(loop_module, "_one_step", dies)
    parts = {"steps": 12, "save_every": 5}
    with pytest.raises(Interrupted):
        finetune(settings(tmp_path / "parts", bases["bert"], task, loop=parts, **more))
    again = finetune(settings(tmp_path / "parts", bases["bert"], task, loop=parts | {"resume": True}, **more))
    assert digest(Path(again["model"]) / "model.safetensors") == digest(Path(whole["model"]) / "model.safetensors")


def test_what_is_too_long_is_cut_dropped_or_refused_and_counted(bases: dict[str, str], tmp_path: Path):
    rows = [{"text": "cat " * 3, "text_pair": "dog", "label": 0}, {"text": "cat " * 40, "text_pair": "dog", "label": 1},
            {"text": "tea", "text_pair": "dog", "label": 1}]  # fmt: skip
    task = file(tmp_path, "task", rows)
    for policy, counts in (("cut", (3, 1, 0)), ("drop", (2, 0, 1))):
        result = finetune(settings(tmp_path / policy, bases["bert"], task, length=16, too_long=policy,
                                   loop={"steps": 1}))  # fmt: skip
        assert (result["kept"], result["cut"], result["dropped"]) == counts
    with pytest.raises(DataError, match=r"task\.jsonl:2: \d+ tokens, where at most 16 are read"):
        finetune(settings(tmp_path / "error", bases["bert"], task, length=16, too_long="error", loop={"steps": 1}))
    with pytest.raises(ConfigError, match="65.*64"):
        finetune(settings(tmp_path / "beyond", bases["bert"], task, length=65))


def test_a_cut_that_takes_an_answer_away_is_counted(bases: dict[str, str], tmp_path: Path):
    asked = {"question": "where is dog ?", "answers": ["dog"]}
    rows = [asked | {"context": "tea " * 60 + "dog"}, asked | {"context": "dog " + "tea " * 60}]
    task = file(tmp_path, "task", rows)
    result = finetune(settings(tmp_path / "run", bases["bert"], task, length=40, loop={"steps": 1}))
    assert (result["cut"], result["answers_lost"]) == (2, 1)


@pytest.mark.parametrize(("only", "changed"), [("embeddings", True), ("output", False)])
def test_only_what_is_asked_for_is_trained(only: str, changed: bool, bases: dict[str, str], tmp_path: Path):
    task = file(tmp_path, "task", labelled())
    result = finetune(settings(tmp_path / "run", bases["bert"], task, train_only=only, loop={"steps": 5},
                               optim=rates(1e-2)))  # fmt: skip
    before, after = exchange.load(Path(bases["bert"])), exchange.load(Path(result["model"]))
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    moved = {name for name in new if name in old and not torch.equal(old[name], new[name])}
    assert moved == ({"embedding.weight", "encoder.positions.weight"} if changed else set())
    heads = sum(value.numel() for name, value in new.items() if name not in old)
    assert result["trained"] == heads + sum(old[name].numel() for name in moved)


@pytest.mark.parametrize(
    ("base", "rows", "changes", "error", "said"),
    [
        ("bert", [{"prompt": "a", "completion": "b"}], {}, ConfigError, "kind text.*manner bert. Use --manner t5"),
        ("bert", labelled(4), {"manner": "gpt"}, ModelError, "kind encoder.*needs: decoder"),
        ("bert", labelled(4), {"manner": "t5"}, ModelError, "kind encoder.*needs: decoder, encoder-decoder"),
        ("llama", [{"question": "a", "context": "b", "answers": ["b"]}], {}, ModelError, "span.*needs: encoder"),
        ("t5", labelled(4), {"manner": "t5", "input": "{sentence}"}, ConfigError, "'sentence'.*columns: text, label"),
        ("bert", labelled(4), {"both_orders": True, "input": "x"}, ConfigError, "--input, --both-orders has no effect"),
        ("bert", [{"text": "a", "label": 0.5}], {"labels": ["a"]}, ConfigError, "--labels has no effect.*regression"),
        ("t5", labelled(4), {"manner": "t5", "train_only": "output"}, ConfigError, "output leaves nothing to train"),
        ("bert", labelled(4), {"measures": ["matthew"]}, ConfigError, "matthews"),
        ("bert", [{"text": "", "label": 0}, {"text": "a", "label": 1}], {"too_long": "drop", "length": 1}, DataError,
         "every record is longer"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(
    base: str, rows: Any, changes: dict[str, Any], error: type, said: str, bases: dict[str, str], tmp_path: Path
):
    with pytest.raises(error, match=said):
        finetune(settings(tmp_path / "run", bases[base], file(tmp_path, "task", rows), **changes))


def test_a_pair_needs_something_between_its_texts(tmp_path: Path):
    folder, inner = tmp_path / "gpt2", MADE["byte-level"]()
    shape = {"n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    config_ = transformers.GPT2Config(vocab_size=inner.get_vocab_size(), **shape)
    made(transformers.AutoModelForCausalLM, config_).save_pretrained(folder)
    write(folder, inner, NAMES["byte-level"])
    task = file(tmp_path, "task", [{"text": "a", "text_pair": "b", "label": n} for n in (0, 1)])
    with pytest.raises(ModelError, match="nothing between two texts.*--manner gpt"):
        finetune(settings(tmp_path / "run", str(folder), task))
    single = file(tmp_path, "single", [{"text": "a", "label": n} for n in (0, 1)])
    finetune(settings(tmp_path / "fine", str(folder), single, loop={"steps": 1}))


def test_rates_follow_the_manner_and_a_flag_goes_before(tmp_path: Path):
    values = {"model": "m", "task": ["t"], "out": "o"}
    assert config.build(Finetune, values).optim.lr == 3e-5
    assert config.build(Finetune, values, {"manner": "gpt"}).optim.lr == 6.25e-5
    t5 = config.build(Finetune, values, {"manner": "t5", "optim": {"lr": 1e-3}}).optim
    assert (t5.lr, t5.schedule, t5.beta2) == (1e-3, "constant", 0.999)


TEMPLATES = """dataset: {name}
templates:
  a: !Template {{answer_choices: "yes ||| no", name: first, metadata: !TemplateMetadata {{original_task: true}},
    jinja: '{{{{text}}}} cat ? ||| {{{{answer_choices[label]}}}}'}}
  b: !Template {{answer_choices: "yes ||| no", name: second, metadata: !TemplateMetadata {{original_task: true}},
    jinja: 'cat in {{{{text}}}} ? ||| {{{{answer_choices[label]}}}}'}}
"""


def test_prompted_tasks_are_kept_apart_and_ranked(bases: dict[str, str], tmp_path: Path):
    rows = [{"text": row["text"], "label": int(row["label"] == "none")} for row in labelled(16)]
    few = [*rows[1:12:2], *rows[0:4:2]]  # six of one class: an answer turned round shows
    task, held = file(tmp_path, "task", rows), file(tmp_path, "held", few)
    paths = []
    for name in ("one", "two"):
        paths.append(str(tmp_path / f"{name}.yaml"))
        Path(paths[-1]).write_text(TEMPLATES.format(name=name))
    more = {"manner": "t5", "templates": paths[:1], "heldout_templates": paths[1:], "heldout": [held]}
    result = finetune(settings(tmp_path / "run", bases["t5"], task, loop={"steps": 2}, **more))
    assert (result["records"], result["prompts"], result["leaked_whole"]) == (32, 2, 16)
    # rank classification by transformers: the choice whose tokens together are the likelier
    theirs = opened(transformers.T5ForConditionalGeneration, Path(result["model"]))
    tokenizer = load_tokenizer(Path(result["model"]))
    assert tokenizer is not None
    hits: dict[str, list[bool]] = {"{} cat ?": [], "cat in {} ?": []}
    for form, found in hits.items():
        for row in few:
            ids = torch.tensor([tokenizer.around(form.format(row["text"]))[0]])
            sums = []
            for choice in ("yes", "no"):
                labels = torch.tensor([[*tokenizer.encode(choice), tokenizer.end]])
                with torch.inference_mode():
                    sums.append(float(theirs(input_ids=ids, labels=labels).loss) * labels.shape[1])
            found.append(sums.index(min(sums)) == row["label"])
    shares = [sum(found) / 8 for found in hits.values()]
    assert result["rank_accuracy"] == pytest.approx(sum(shares) / 2)
    assert result["rank_median"] == pytest.approx(statistics.median(shares))
    with pytest.raises(DataError, match=r"held\.jsonl:1: .*in the training records"):
        finetune(settings(tmp_path / "leak", bases["t5"], task, leaks="error", **more))
    with pytest.raises(ConfigError, match="learnt and held out at once: one"):
        finetune(settings(tmp_path / "same", bases["t5"], task, **more | {"heldout_templates": paths[:1]}))
    with pytest.raises(ConfigError, match="one side only"):
        finetune(settings(tmp_path / "side", bases["t5"], task, **more | {"heldout_templates": []}))
    with pytest.raises(ConfigError, match="2 files of templates for 1 files"):
        finetune(
            settings(tmp_path / "count", bases["t5"], task, **more | {"templates": paths, "heldout_templates": []})
        )


def test_files_are_mixed_up_to_the_cap(bases: dict[str, str], tmp_path: Path):
    large, small = file(tmp_path, "large", labelled(40)), file(tmp_path, "small", labelled(8, seed=5))
    made_ = settings(tmp_path / "run", bases["bert"], large, cap=8, loop={"epochs": 3}, optim=rates(1e-3))
    result = finetune(config.build(Finetune, config.to_dict(made_), {"task": [large, small]}))
    assert (result["records"], result["steps"]) == (48, 6)  # an epoch is 8 of the large file and 8 of the small one
