"""amauta export: what it writes is what the model was, or nothing is left there."""

import json
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from amauta.cli import main
from amauta.cli.export import Export
from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.exchange import export as work
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.gguf import write as gguf_write
from amauta.models.exchange.opening import open_model
from amauta.models.transformer import Transformer
from amauta.tokenize.files import load_tokenizer
from tests.train.foreign import llama, theirs, transformers

IDS = torch.randint(0, 400, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their model, q and k far from symmetric, with a card beside it."""
    folder = llama(tmp_path_factory.mktemp("source") / "llama")
    (folder / "card.json").write_text('{"stage": "x"}')
    return folder


def call(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The JSON line of one call that ended well."""
    capsys.readouterr()
    assert main(["export", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What one call said that ended with a user's mistake."""
    capsys.readouterr()
    assert main(["export", *map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


@torch.inference_mode()
def test_there_and_back_by_gguf(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    got = call(capsys, "--model", source, "--gguf", tmp_path / "m.gguf", "--type", "f32")
    assert (got["source"], got["type"], got["tokenizer"]) == ("path", "f32", True)
    assert got["bytes"] == (tmp_path / "m.gguf").stat().st_size and got["largest_difference"] < 1e-4
    back = call(capsys, "--model", tmp_path / "m.gguf", "--folder", tmp_path / "back")
    assert (back["dtype"], back["model_type"], back["top1_agreement"]) == ("f32", "llama", 1.0)
    (before, spelt), (after, again) = theirs(source), theirs(tmp_path / "back")
    torch.testing.assert_close(after(IDS).logits, before(IDS).logits)
    messages = [{"role": "user", "content": "¿Dónde está?"}]
    assert again.apply_chat_template(messages, return_dict=False) == spelt.apply_chat_template(
        messages, return_dict=False
    )
    assert call(capsys, "--model", source, "--gguf", tmp_path / "q.gguf")["type"] == "q8_0"


def test_a_folder_is_written_as_it_is_held_or_as_asked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    half = call(capsys, "--model", source, "--folder", tmp_path / "half", "--dtype", "bf16")
    assert half["dtype"] == "bf16" and 0 < half["largest_difference"] < 0.1
    again = call(capsys, "--model", tmp_path / "half", "--folder", tmp_path / "again")
    assert again["dtype"] == "bf16" and again["largest_difference"] == 0.0 and again["bytes"] == half["bytes"]
    one, two = (theirs(tmp_path / name)[0].state_dict() for name in ("half", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    card = json.loads((tmp_path / "again" / "card.json").read_text())
    assert card["stage"] == "x"  # what was known stays, and each step is written down
    assert [(row["step"], row["passed"]) for row in card["contract"]] == [("export bf16", True)] * 2
    assert card["contract"][1]["since_recorded"]["kl"] < 1e-4
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["temperature"] == 0.7


def test_a_folder_that_does_not_compute_the_same_is_not_left(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    call(capsys, "--model", source, "--folder", out)
    old = (out / "model.safetensors").read_bytes()

    def other_file(model: Transformer, *rest: Any, **more: Any) -> None:
        write_model(Transformer.create(model.spec, seed=1), *rest, **more)

    def other_tokenizer(model: Transformer, tokenizer: Any, made: Path, **more: Any) -> None:
        write_model(model, tokenizer, made, **more)
        path = made / "tokenizer.json"
        whole = json.loads(path.read_text())
        whole["model"]["merges"] = whole["model"]["merges"][:5]
        path.write_text(json.dumps(whole))

    for wrong, said in ((other_file, "these tensors"), (other_tokenizer, "other ids")):
        monkeypatch.setattr(work, "write_model", wrong)
        assert said in refused(capsys, "--model", source, "--folder", out, "--force")
        assert (out / "model.safetensors").read_bytes() == old
        assert said in refused(capsys, "--model", source, "--folder", tmp_path / "new")
        assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_models_of_other_kinds_as_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = {
        "bert": transformers.BertForSequenceClassification(transformers.BertConfig(
            vocab_size=500, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)),
        "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=500, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)),
        "reformer": transformers.ReformerModelWithLMHead(transformers.ReformerConfig(
            vocab_size=500, hidden_size=16, num_attention_heads=2, attention_head_size=8, feed_forward_size=16,
            attn_layers=["local", "lsh"], axial_pos_embds=False, max_position_embeddings=64, is_decoder=True,
            local_attn_chunk_length=16, lsh_attn_chunk_length=16, num_buckets=4)),
    }  # fmt: skip
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
        got = call(capsys, "--model", tmp_path / name, "--folder", tmp_path / f"{name}-out")
        assert got["model_type"] == name and got["tokenizer"] is False and got["largest_difference"] == 0.0
        again, report = type(model).from_pretrained(tmp_path / f"{name}-out", output_loading_info=True)
        assert not any(report.values())
        theirs_now, before = again.state_dict(), model.state_dict()
        assert all(torch.equal(theirs_now[key], before[key]) for key in before)
    assert "kind=encoder" in refused(capsys, "--model", tmp_path / "bert", "--gguf", tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_mistakes_are_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = ("--model", source)
    assert "exactly one" in refused(capsys, *model)
    assert "exactly one" in refused(capsys, *model, "--gguf", tmp_path / "a", "--folder", tmp_path / "b")
    assert "--dtype" in refused(capsys, *model, "--folder", tmp_path / "b", "--type", "f32")
    assert "--type" in refused(capsys, *model, "--gguf", tmp_path / "a", "--dtype", "f32")
    (tmp_path / "there").write_text("x")
    assert "--force" in refused(capsys, *model, "--gguf", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "x"
    assert "/model.gguf" in refused(capsys, *model, "--gguf", tmp_path, "--force")
    assert "no model folder" in refused(capsys, *model, "--folder", tmp_path, "--force")
    for onto in (source, source.parent):
        assert "would remove it" in refused(capsys, *model, "--folder", onto, "--force")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "there"] and (source / "model.safetensors").exists()


def test_the_types_are_those_of_the_writer():
    hints = typing.get_type_hints(Export)
    assert {*typing.get_args(typing.get_args(hints["type"])[0])} == {*typing.get_args(gguf_write.WriteType)}
    assert {*typing.get_args(typing.get_args(hints["dtype"])[0])} == set(work.DTYPES)


@torch.inference_mode()
def test_tokenizer_and_model_of_the_folder_are_ours_too(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    call(capsys, "--model", source, "--folder", tmp_path / "out")
    ours, _ = open_model(find_model(source))
    again = exchange.load(tmp_path / "out")
    torch.testing.assert_close(again.logits(again(IDS)), ours.logits(ours(IDS)), rtol=0, atol=0)
    one, two = load_tokenizer(source), load_tokenizer(tmp_path / "out")
    assert one is not None and two is not None and one.fingerprint == two.fingerprint and one.stops == two.stops
