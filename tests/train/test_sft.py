"""Supervised fine-tuning: which tokens carry a loss, tools, records cut into rows, leaks, and that others agree."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amauta import metrics
from amauta.base.errors import DataError
from amauta.data.batches import Listed, PackedBatches
from amauta.data.records import Dialogue
from amauta.data.show import Show, show
from amauta.device import pick
from amauta.language_model import load
from amauta.losses.token import IGNORE
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.chat import render
from amauta.tokenize.files import load_tokenizer
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.dialogues import learnt, prepare_dialogues
from amauta.train.pretrain import causal_step, pretrain
from amauta.train.replay import Replay, replay
from amauta.train.sft import sft
from tests.tokenize.foreign_tokenizers import NAMES, TEMPLATES, byte_level, write
from tests.train.conftest import Tiny
from tests.train.foreign import llama, logprobs, theirs, transformers

CPU = pick("cpu", "f32")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "c"}]
NEW = {"role": "assistant", "content": "new"}

# A template with tools and tool calls, as it is mostly written and with marks round what the assistant writes.
TOOLS = """{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}@{{ m.content or '' }}\
{% if m.tool_calls %}{% for call in m.tool_calls %}{{ '\n<call>' + (call | tojson) }}{% endfor %}{% endif %}\
{{ '<|im_end|>' }}$\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
PLAIN_TOOLS = TOOLS.replace("@", "").replace("$\n", "{{ '\n' }}")
MARKED_TOOLS = """{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' \
%}{% generation %}{{ m.content or '' }}{% if m.tool_calls %}{% for call in m.tool_calls %}{{ '\n<call>' + (call | \
tojson) }}{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}\
{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "sum", "arguments": {"of": [1, 2]}}}
CALLING = [
    {"role": "user", "content": "1 + 2 <|im_end|>?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "Again:", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "It is 3."},
]


def supervised(tokenizer: Any, piece: Any) -> str:
    return tokenizer.decode(piece.ids[1:][piece.loss], special=True)


def prepared(tiny: Tiny, tokenizer: Any, rows: list[dict[str, Any]], **more: Any):  # type: ignore[no-untyped-def]
    given = {"length": 64, "too_long": "error", "may_skip": 0} | more
    return prepare_dialogues([tiny.file("rows.jsonl", rows)], tokenizer, **given)


@pytest.mark.parametrize(
    ("record", "loss_on", "wanted"),
    [
        ({"messages": [*TALK, NEW]}, "answers", "old<|turn|>new<|turn|>"),
        ({"messages": [*TALK, NEW]}, "last", "new<|turn|>"),
        ({"prompt": TALK, "completion": [NEW]}, "answers", "new<|turn|>"),
        ({"prompt": TALK, "completion": "new"}, "answers", "new<|turn|>"),
        ({"prompt": TALK, "completion": [NEW, TALK[2], NEW]}, "answers", "new<|turn|>new<|turn|>"),
        ({"prompt": TALK, "completion": [NEW, TALK[2], TALK[1]]}, "last", "old<|turn|>"),
        ({"prompt": "a", "completion": "new"}, "answers", "new<|turn|>"),
        ({"instruction": "a", "input": "b", "output": "new"}, "answers", "new<|turn|>"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "new"}]}, "last", "new<|turn|>"),
        ({"prompt": "a", "completion": "new"}, "all", "<|user|>a<|turn|><|assistant|>new<|turn|>"),
        ({"messages": [TALK[0], {"role": "assistant", "content": "old"}, {"role": "tool", "content": "x"}, NEW]},
         "answers", "old<|turn|>new<|turn|>"),
    ],
)  # fmt: skip
def test_what_carries_a_loss(tiny: Tiny, tokenizer: Tokenizer, record: dict[str, Any], loss_on: str, wanted: str):
    made = prepared(tiny, tokenizer, [record], loss_on=loss_on)
    ((piece,),) = made.units
    assert supervised(tokenizer, piece) == wanted
    assert (made.roles["assistant", True] == piece.loss.sum()) == (loss_on != "all")
    assert sum(count for (_, loss), count in made.roles.items() if loss) == piece.loss.sum()
    assert made.roles.total() == len(piece.ids)


@pytest.mark.parametrize("completion", [[TALK[2]], [{"role": "assistant", "content": " "}], " "])
def test_a_completion_without_an_answer_is_named(tiny: Tiny, tokenizer: Tokenizer, completion: Any):
    """The assistant's turn in the prompt is no answer to learn."""
    with pytest.raises(DataError, match=r"rows\.jsonl, line 1.*assistant"):
        prepared(tiny, tokenizer, [{"prompt": TALK, "completion": completion}])


@pytest.mark.parametrize("kind", ["chatml", "llama-3", "gemma", "mistral"])
def test_another_models_completion_alone_is_learnt(tmp_path: Path, kind: str):
    """The stock templates carry no marks; here the prompt's own answer must not be learnt, the completion must."""
    tokenizer = load_tokenizer(write(tmp_path, byte_level(), NAMES["byte-level"], TEMPLATES[kind]))
    both = learnt(tokenizer, Dialogue([*TALK, NEW]), where="x")
    one = learnt(tokenizer, Dialogue([*TALK, NEW], first=3), where="x")
    assert one.ids == both.ids and 0 < sum(one.loss) < sum(both.loss)
    begin = one.loss.index(True)
    assert one.loss[begin:] == both.loss[begin:] and "old" in tokenizer.decode(one.ids[:begin])
    assert tokenizer.decode([id for id, loss in zip(one.ids, one.loss, strict=True) if loss]).strip() == "new"


def test_answers_that_cannot_be_told_apart_are_named(tmp_path: Path):
    """One stretch of marks round the whole dialogue: all of it may be learnt, but not its last answer."""
    template = "{% generation %}{% for m in messages %}{{ m.content }}</s>{% endfor %}{% endgeneration %}"
    tokenizer = load_tokenizer(write(tmp_path, byte_level(), NAMES["byte-level"], template))
    assert all(learnt(tokenizer, Dialogue([*TALK, NEW]), where="x").loss)
    with pytest.raises(DataError, match=r"here:7: the assistant has 2 turns.* 1 stretches"):
        learnt(tokenizer, Dialogue([*TALK, NEW]), "last", where="here:7")


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours with the template as it is mostly written, transformers' with the one that marks the answers."""
    plain, marked = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("marked")
    ours = load_tokenizer(write(plain, byte_level(), NAMES["byte-level"], PLAIN_TOOLS))
    write(marked, byte_level(), NAMES["byte-level"], MARKED_TOOLS)
    return ours, transformers.AutoTokenizer.from_pretrained(marked)


@pytest.mark.parametrize("tools", [None, [TOOL, TOOL]], ids=["no tools", "tools"])
def test_tools_and_calls_as_transformers_lays_and_marks_them(with_tools: tuple[Any, Any], tools: Any):
    ours, other = with_tools
    harmless = [{**one, "content": one["content"].replace(" <|im_end|>", "")} for one in CALLING]
    wanted = other.apply_chat_template(
        harmless, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    got = learnt(ours, Dialogue(harmless, tools=tools), where="x")
    assert got.ids == wanted["input_ids"]
    assert got.loss == [bool(flag) for flag in wanted["assistant_masks"]]
    assert {role for role, loss in zip(got.roles, got.loss, strict=True) if loss} == {"assistant"}
    spelt = learnt(ours, Dialogue(CALLING, tools=tools), where="x")  # the name of a special token stays text
    assert spelt.ids.count(ours.inner.token_to_id("<|im_end|>")) == got.ids.count(ours.inner.token_to_id("<|im_end|>"))


def test_calls_after_the_end_of_a_content_are_learnt_too(tmp_path: Path):
    """A template that ends every content and lets the calls follow, with an end of their own: both are the answer."""
    template = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
{% if m.tool_calls %}{{ (m.tool_calls | tojson) + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
    tokenizer = load_tokenizer(write(tmp_path, byte_level(), NAMES["byte-level"], template))
    asked = {"role": "user", "content": "1 + 2?"}
    got = learnt(tokenizer, Dialogue([asked, {**NEW, "tool_calls": [CALL]}, asked, NEW]), where="x")
    said = tokenizer.decode([id for id, loss in zip(got.ids, got.loss, strict=True) if loss], special=True)
    assert said == f"new<|im_end|>\n{json.dumps([CALL])}<|im_end|>new<|im_end|>"


def test_records_bring_their_tools(tiny: Tiny, with_tools: tuple[Any, Any]):
    calling = [{**one, "content": one["content"] or None} for one in CALLING]  # as others write a mere call
    for tools in ([TOOL], json.dumps([TOOL])):
        made = prepared(tiny, with_tools[0], [{"messages": calling, "tools": tools}], length=600)
        ((piece,),) = made.units
        assert piece.ids.tolist() == learnt(with_tools[0], Dialogue(CALLING, tools=[TOOL]), where="x").ids
        assert supervised(with_tools[0], piece).count("<call>") == 3
    shown = show(Show((str(tiny.folder / "rows.jsonl"),)))
    assert (shown["shapes"], shown["bad"]) == ({"messages": 1}, 0)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": [*TALK, NEW], "tools": [TOOL]}, r"rows\.jsonl:1: .*nothing of the tools"),
        ({"messages": CALLING}, r"rows\.jsonl:1: .*nothing of the tool calls of message 2"),
        ({"messages": [*TALK, NEW], "tools": "sum"}, "tools.*a list of tools"),
        ({"messages": [*TALK, NEW], "tools": ["sum"]}, "tools.*a list of tools"),
        ({"messages": [{**TALK[0], "tool_calls": [CALL]}, NEW]}, "tool_calls.*in a message of the assistant"),
        ({"messages": [TALK[0], {**NEW, "tool_calls": "sum"}]}, "tool_calls.*a list of calls"),
    ],
)
def test_tools_are_never_lost_without_a_word(tiny: Tiny, tmp_path: Path, record: dict[str, Any], words: str):
    tokenizer = load_tokenizer(write(tmp_path / "t", byte_level(), NAMES["byte-level"], TEMPLATES["llama-3"].replace(
        "message['content'] | trim", "(message['content'] or '') | trim")))  # fmt: skip
    with pytest.raises(DataError, match=words):
        prepared(tiny, tokenizer, [record], length=600)


def test_our_own_dialogues_name_what_they_have_no_place_for(tiny: Tiny, tokenizer: Tokenizer):
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*no place for tools"):
        prepared(tiny, tokenizer, [{"messages": [*TALK, NEW], "tools": [TOOL]}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*tool_calls"):
        prepared(tiny, tokenizer, [{"messages": CALLING}], length=600)
    assert len(prepared(tiny, tokenizer, [{"messages": [*TALK, NEW], "tools": []}]).units) == 1


def test_a_split_record_is_learnt_whole_in_rows(tiny: Tiny, tokenizer: Tokenizer):
    rows = [{"prompt": "red " * 30, "completion": "blue " * 40}, {"prompt": "a", "completion": "b"}]
    whole = prepared(tiny, tokenizer, rows, length=500)
    made = prepared(tiny, tokenizer, rows, length=24, too_long="split")
    assert made.counts() == {"records": 2, "kept": len(made.units), "dropped": 0, "cut": 0, "skipped": 0, "split": 1}
    assert all(len(piece.ids) <= 25 and piece.loss.any() for (piece,) in made.units)
    pieces = [piece for (piece,) in made.units[:-1]]
    assert [place.split(":")[-1] for place in made.places] == [
        *(f"1 ({n}/{len(pieces)})" for n in range(1, len(pieces) + 1)), "2"]  # fmt: skip
    # what is learnt is what was to be learnt, each token once and in order; pieces of the prompt alone are not there
    got = np.concatenate([piece.ids[1:][piece.loss] for piece in pieces])
    (long,) = whole.units[0]
    assert got.tolist() == long.ids[1:][long.loss].tolist()
    assert all(a.ids[-1] == b.ids[0] for a, b in zip(pieces, pieces[1:], strict=False))
    assert len(pieces) < -(-(len(long.ids) - 1) // 24)
    assert made.roles == whole.roles


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("numbering", ["packed", "mask"])
def test_nothing_leaks_between_packed_dialogues(device: str, numbering: str):
    """The states of one dialogue have no slope in the embeddings of another's tokens, nor change with them; by spans
    and, where documents do not stand one after another, by a mask."""
    spec = Spec(vocabulary=60, context=64, width=32, layers=2, heads=2)
    model = Transformer.create(spec, seed=0).to(device)
    ids = torch.arange(1, 25, device=device)[None].repeat(2, 1)
    documents = torch.tensor([[1] * 10 + [2] * 14, [1] * 3 + [2] * 21], device=device)
    positions = torch.cat([torch.arange(n) for n in (10, 14, 3, 21)]).view(2, 24).to(device)
    if numbering == "mask":  # the first document comes back at the end of the row
        documents[:, -2:] = 1
        positions[:, -2:] = positions[:, :1] + torch.tensor([20, 21], device=device)
    hidden = model(ids, positions=positions, documents=documents)
    mine = documents == 2
    (slope,) = torch.autograd.grad(hidden[mine].square().sum(), model.embedding.weight)
    own = {int(id) for id in ids[mine]}
    others = [int(id) for id in ids.unique() if int(id) not in own]
    assert others and not slope[others].any() and slope[sorted(own)].any(-1).all()
    changed = torch.where(mine, ids, ids + 30)
    again = model(changed, positions=positions, documents=documents)
    torch.testing.assert_close(again[mine], hidden[mine], rtol=0, atol=1e-6)
    assert not torch.allclose(again[~mine], hidden[~mine])


def test_the_first_token_of_a_dialogue_is_never_a_target(tiny: Tiny, tokenizer: Tokenizer):
    made = prepared(tiny, tokenizer, [{"prompt": "a" * n, "completion": "b" * n} for n in range(1, 9)], loss_on="all")
    for batch in PackedBatches(Listed(made.units), rows=3, length=64, epochs=1):
        assert not (batch.targets == tokenizer.begin).any()
        ends = (batch.targets == tokenizer.turn).sum()
        assert ends == 2 * sum(map(len, batch.units))  # the last token of each is one
        assert (batch.targets[batch.documents == 0] == IGNORE).all()


def test_an_end_that_is_the_padding_too_is_learnt(tiny: Tiny, tmp_path: Path):
    """pad == eos in the folder; the loss goes by place and not by id, so the end of the answer still counts."""
    names = NAMES["byte-level"] | {"pad_token": "</s>"}
    tokenizer = load_tokenizer(write(tmp_path / "t", byte_level(), names, TEMPLATES["zephyr"]))
    assert tokenizer.pad == tokenizer.end
    made = prepared(tiny, tokenizer, [{"messages": [*TALK, NEW]}], length=90)
    (batch,) = PackedBatches(Listed(made.units), rows=2, length=90, epochs=1)
    assert int((batch.targets == tokenizer.end).sum()) == 2


@pytest.mark.parametrize("kind", ["llama-2", "llama-3", "gemma", "mistral"])
def test_one_first_token_and_no_more(tiny: Tiny, tmp_path: Path, kind: str):
    """The template writes <s>, and the tokenizer puts one before every text: together still one."""
    tokenizer = load_tokenizer(write(tmp_path / "t", byte_level(first=True), NAMES["byte-level"], TEMPLATES[kind]))
    assert tokenizer.prompt("x")[0] == tokenizer.begin
    made = prepared(tiny, tokenizer, [{"prompt": "a", "completion": "b"}], length=90)
    assert made.units[0][0].ids.tolist().count(tokenizer.begin) == 1


def test_what_was_trained_is_what_is_asked(tiny: Tiny):
    """The saved folder lays a dialogue out as training did, for us and for transformers."""
    pretrain(tiny.pretrain("base", loop={"steps": 1}))
    result = sft(tiny.sft("chat", loop={"steps": 1}))
    row = json.loads((tiny.folder / "chats.jsonl").read_text().splitlines()[0])["messages"]
    made = prepare_dialogues(
        [str(tiny.folder / "chats.jsonl")], Tokenizer.load(tiny.tokenizer), length=64, too_long="error", may_skip=0
    )
    (piece,) = made.units[0]
    begin = int(piece.loss.argmax()) + 1  # of the answer
    served = render(load(result["model"]).tokenizer, row[:-1], reply=True).ids
    assert served == piece.ids[:begin].tolist()
    other = transformers.AutoTokenizer.from_pretrained(result["model"])
    laid = other.apply_chat_template(row, return_dict=True, return_assistant_tokens_mask=True)
    assert laid["input_ids"] == piece.ids.tolist()
    assert laid["assistant_masks"][1:] == piece.loss.astype(int).tolist()


def test_a_run_on_last_answers_learns_nothing_else(tiny: Tiny):
    talk = [{"messages": [*TALK, {"role": "assistant", "content": f"new {n}"}]} for n in range(4)]
    pretrain(tiny.pretrain("base", loop={"steps": 1}))
    sft(tiny.sft("last", data=[tiny.file("talk.jsonl", talk)], loss_on="last", loop={"steps": 1, "rows": 4}))
    found = replay(Replay(tiny.folder / "last", 1))
    carrying = sorted({text for row in found["rows"] for text, carries in row["spans"] if carries})
    assert carrying == [f"new {n}<|turn|>" for n in range(4)]
    assert found["recomputed"] == pytest.approx(found["loss"], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 7])
def test_a_dft_run_tells_transformers_losses(tiny: Tiny, tmp_path: Path, accumulate: int):
    base = llama(tmp_path / "llama")
    model, other = theirs(base)
    weighed: list[float] = []
    lengths: list[int] = []
    for line in (tiny.folder / "chats.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        ids = other.apply_chat_template(messages, return_dict=False)
        begin = len(other.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False))
        lengths.append(len(ids) - 1)
        found = logprobs(model, ids)[begin - 1 : -1]  # the new line after <|im_end|> is nobody's
        weighed += (-found * found.exp()).tolist()
    loop = {"steps": 2, "rows": 7 // accumulate, "accumulate": accumulate}  # 7 dialogues are 7 rows: one epoch a step
    assert max(lengths) < 2 * min(lengths)
    given = {"model": str(base), "loop": loop, "length": max(lengths), "heldout": [str(tiny.folder / "chats.jsonl")]}
    runs = {dft: sft(tiny.sft(f"chat-{dft}", dft=dft, **given)) for dft in (True, False)}
    rows = {dft: metrics.read(Run(tiny.folder / f"chat-{dft}").metrics) for dft in (True, False)}
    told = [row["loss"] for row in rows[True] if "loss" in row]
    assert told[0] == pytest.approx(sum(weighed) / len(weighed), rel=1e-4)
    assert replay(Replay(tiny.folder / "chat-True", 1))["recomputed"] == pytest.approx(told[0], rel=1e-5)
    first = [next(row["heldout_loss"] for row in rows[dft] if "heldout_loss" in row) for dft in (True, False)]
    assert first[0] == pytest.approx(first[1], rel=1e-6)  # what is measured is the same in both
    assert runs[True]["heldout_loss"] != pytest.approx(runs[False]["heldout_loss"], rel=1e-6)


@pytest.fixture(scope="module")
def trl() -> Any:
    return pytest.importorskip("trl")


@pytest.mark.parametrize("kind", ["nll", "dft"])
def test_trl_has_the_same_loss_packed_and_unpacked(tmp_path: Path, trl: Any, kind: str):
    """One step of its trainer, on rows with padding; ours on packed ones."""
    datasets = pytest.importorskip("datasets")
    base = llama(tmp_path / "llama", template=MARKED_TOOLS)
    model, tokenizer = theirs(base)
    tokenizer.pad_token = "<pad>"
    rows = [{"messages": [{"role": "user", "content": "x " * n}, {"role": "assistant", "content": "yes " * (9 - n)}]}
            for n in range(1, 8)]  # fmt: skip
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "out"), loss_type=kind, assistant_only_loss=True, packing=False, report_to=[],
        use_cpu=True, bf16=False, per_device_train_batch_size=7, max_length=120, disable_tqdm=True,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=model, args=args, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        wanted = float(trainer.compute_loss(trainer.model.eval(), dict(batch)))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours = load_tokenizer(base)
    made = prepare_dialogues([str(file)], ours, length=120, too_long="error", may_skip=0)
    own = load(str(base)).model
    step = causal_step(CPU, dynamic=kind == "dft")
    packed = [step(own, batch)[:2] for batch in PackedBatches(Listed(made.units), rows=2, length=120, epochs=1)]
    alone = [step(own, batch)[:2] for batch in PackedBatches(Listed(made.units), rows=1, length=1 + max(
        len(piece.ids) - 2 for (piece,) in made.units), epochs=1)]  # fmt: skip
    for sums in (packed, alone):
        assert sum(n for _, n in sums) == int((batch["labels"] != IGNORE).sum())
        assert sum(float(total.detach()) for total, _ in sums) / sum(n for _, n in sums) == pytest.approx(
            wanted, rel=1e-4
        )


@pytest.mark.parametrize("seed", range(5))
def test_trl_packs_into_as_many_rows(trl: Any, seed: int):
    """Best-fit decreasing, by its library; ours opens no more rows and loses nothing."""
    datasets = pytest.importorskip("datasets")
    from amauta.data.pack import best_fit

    lengths = np.random.default_rng(seed).integers(1, 60, size=200)
    held = datasets.Dataset.from_dict({"input_ids": [[1] * int(n) for n in lengths]})
    theirs_rows = trl.pack_dataset(held, seq_length=64, strategy="bfd")
    ours = best_fit(lengths, 64)
    assert sorted(i for row in ours for i in row) == list(range(200))
    assert len(ours) == len(theirs_rows)
