"""What a model says of its probes: recorded, compared, and kept through its life."""

import copy
import json
import math

import pytest
import torch

from amauta.base.errors import ModelError
from amauta.cli import main
from amauta.hub import find_model
from amauta.models import exchange
from amauta.models.contract.changed import begin, write_changed
from amauta.models.contract.figures import against_record, figures
from amauta.models.contract.probes import BEST, Answer, Record, answers, own, record
from amauta.models.contract.rows import card_in, judged, tolerance_of
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.runs import PROBES
from amauta.tokenize.train import train_bpe
from amauta.verify import contract as verifying
from amauta.verify.settings import Contract

PLAIN = {"vocabulary": 300, "context": 64, "width": 32, "layers": 2, "heads": 2, "init_std": 0.3}


@pytest.fixture
def tokenizer():
    return train_bpe(["red blue green hat cup"], 280, allow_smaller=True)


def model_of(tokenizer, seed=1, **more):
    return Transformer.create(Spec(**PLAIN | {"vocabulary": tokenizer.size} | more), seed).eval()


def answer(*rows):
    table = torch.tensor(rows).log()
    return Answer(table, torch.zeros(len(rows), dtype=torch.int64))


def test_figures_worked_by_hand():
    before, after = answer([0.5, 0.25, 0.25], [0.8, 0.1, 0.1]), answer([0.25, 0.5, 0.25], [0.8, 0.1, 0.1])
    found = figures([before], [after])
    first = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert found["kl"] == pytest.approx(first / 2)
    assert found["largest_difference"] == pytest.approx(math.log(2))
    assert found["top1_agreement"] == 0.5
    assert found["perplexity_ratio"] == pytest.approx(math.sqrt(2))  # token 0 is wanted: .5 became .25, .8 stayed


def test_a_place_that_asks_for_nothing_has_no_part_in_the_perplexity():
    before, after = answer([0.5, 0.5], [0.9, 0.1]), answer([0.25, 0.75], [0.1, 0.9])
    for one in (before, after):
        one.wanted[1] = -1
    assert figures([before], [after])["perplexity_ratio"] == pytest.approx(2.0)


def test_a_decoder_is_asked_for_the_next_token_and_an_encoder_for_each(tokenizer):
    decoder = model_of(tokenizer)
    row = torch.tensor(tokenizer.encode("hello there"))
    [said] = answers(decoder, [row])
    assert torch.allclose(said.given[:-1], decoder.score(row.tolist()), atol=1e-5)
    assert said.wanted[-1] == -1
    assert said.given[-1] == 0
    masked = model_of(tokenizer, kind="encoder", outputs=("masked",), positions="learned", norm="layer", gated=False)
    [said] = answers(masked, [row])
    assert torch.equal(said.wanted, row)
    classes = model_of(tokenizer, kind="encoder", outputs=("classifier",), labels=5, positions="learned")
    [said] = answers(classes, [row])
    assert said.logprobs.shape == (1, 5)
    assert said.wanted.tolist() == [-1]


def test_half_of_the_probes_are_the_models_own_words(tokenizer):
    one, other = model_of(tokenizer, 1), model_of(tokenizer, 2)
    assert len(own(one, tokenizer)) == 4
    assert [row.tolist() for row in own(one, tokenizer)] == [row.tolist() for row in own(one, tokenizer)]
    assert [row.tolist() for row in own(one, tokenizer)] != [row.tolist() for row in own(other, tokenizer)]
    sure = copy.deepcopy(one)
    with torch.no_grad():
        sure.decoder.norm.weight.mul_(1e6)  # the likeliest token is then the only one
    row = own(sure, tokenizer)[0]
    assert row[1:].tolist() == sure.logits(sure(row[None]))[0, :-1].argmax(-1).tolist()
    assert own(model_of(tokenizer, kind="encoder", outputs=("masked",)), tokenizer) == []


def test_the_record_gives_less_than_the_whole_kl_and_all_of_it_where_it_holds_all(tokenizer):
    one, other = model_of(tokenizer, 1), model_of(tokenizer, 2)
    held = record(one, tokenizer)
    whole = figures(answers(one, held.rows), answers(other, held.rows))
    part = against_record(held, answers(other, held.rows))
    assert 0 < part["kl"] < whole["kl"]
    for name in ("top1_agreement", "perplexity_ratio"):
        assert part[name] == pytest.approx(whole[name], rel=1e-4)
    same = against_record(held, answers(one, held.rows))
    assert (same["kl"], same["largest_difference"], same["top1_agreement"]) == (0.0, 0.0, 1.0)
    few = {"vocabulary": BEST}
    small, another = (Transformer.create(Spec(**PLAIN | few), seed).eval() for seed in (1, 2))
    held = record(small, None)
    whole = figures(answers(small, held.rows), answers(another, held.rows))
    assert against_record(held, answers(another, held.rows))["kl"] == pytest.approx(whole["kl"], rel=1e-4)


def test_a_record_is_read_back_as_it_was(tmp_path, tokenizer):
    held = record(model_of(tokenizer), tokenizer)
    held.write(tmp_path)
    again = Record.read(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(held.rows, again.rows, strict=True))
    assert torch.equal(held.logprobs, again.logprobs)
    assert torch.equal(held.ids, again.ids)
    (tmp_path / PROBES).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=PROBES):
        Record.read(tmp_path)


def test_a_record_of_another_model_is_not_compared(tokenizer):
    held = record(model_of(tokenizer), tokenizer)
    small = Transformer.create(Spec(**PLAIN | {"vocabulary": 20}), 1).eval()
    with pytest.raises(ModelError, match="not a record of this model"):
        against_record(held, answers(small, [row % 20 for row in held.rows]))


@pytest.mark.parametrize(
    ("step", "allowed"), [("quantize int8 rows", 0.05), ("quantize int4", 1.0), ("merge lora", 1e-3), ("distill", None)]
)
def test_each_step_has_its_tolerance(step, allowed):
    assert tolerance_of(step) == allowed


def test_what_is_no_number_never_passes():
    bad = {"kl": float("nan"), "largest_difference": 0.0, "top1_agreement": 0.0, "perplexity_ratio": 1.0}
    for step in ("distill", "prune"):
        with pytest.raises(ModelError):
            judged(step, bad, None)


@pytest.fixture
def found(tmp_path, tokenizer):
    model = model_of(tokenizer)
    exchange_folder = tmp_path / "first"
    from amauta.models.exchange.folder import write_model

    write_model(model, tokenizer, exchange_folder)
    begin(model, tokenizer, exchange_folder)
    return find_model(exchange_folder), model


def changed(model, by):
    made = copy.deepcopy(model)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return made


def test_a_change_within_its_tolerance_is_written_with_its_row(tmp_path, tokenizer, found):
    where, model = found
    out = tmp_path / "second"
    result = write_changed(where, model, changed(model, 1e-3), tokenizer, out, step="quantize int4",
                           settings={"group": 32}, facts={"bits": 4})  # fmt: skip
    [row] = card_in(out)["contract"]
    assert 0 < row["kl"] == result["kl"] < 0.01
    assert (row["step"], row["passed"], row["settings"], row["bits"]) == ("quantize int4", True, {"group": 32}, 4)
    assert "since_recorded" not in row
    assert result["bytes"] == (out / "model.safetensors").stat().st_size
    assert (out / PROBES).read_bytes() == (where.path / PROBES).read_bytes()
    third = tmp_path / "third"
    second, _ = find_model(out), None
    write_changed(second, exchange.load(out), changed(model, 0.01), tokenizer, third, step="prune", settings={})
    first, last = card_in(third)["contract"]
    assert first == row
    assert last["since_recorded"]["kl"] > last["kl"] * 0.5 > 0


def test_a_change_beyond_it_leaves_nothing_or_is_labelled(tmp_path, tokenizer, found):
    where, model = found
    out = tmp_path / "second"
    with pytest.raises(ModelError, match="--accept"):
        write_changed(where, model, changed(model, 0.3), tokenizer, out, step="quantize int8", settings={})
    assert not out.exists()
    write_changed(where, model, changed(model, 0.3), tokenizer, out, step="quantize int8", settings={}, accept=True)
    assert card_in(out)["contract"][0]["passed"] is False


def test_the_commands_show_it(tmp_path, tokenizer, found, capsys):
    where, model = found
    out = tmp_path / "second"
    write_changed(where, model, changed(model, 1e-3), tokenizer, out, step="quantize int4", settings={})
    assert main(["models", "show", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contract"][0]["step"] == "quantize int4"
    assert main(["models", "show", str(out)]) == 0
    assert "quantize int4" in capsys.readouterr().out
    assert main(["verify", "contract", str(where.path), "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["one_pass"]["kl"] == 0.0
    assert held["token_by_token"]["kl"] < 1e-6
    assert main(["verify", "contract", str(out), "--tolerance", "1e-9", "--json"]) == 1
    capsys.readouterr()
    (out / PROBES).unlink()
    assert main(["verify", "contract", str(out)]) == 2
    assert "probes" in capsys.readouterr().err


def test_the_rest_is_one_outcome_of_the_recorded_kl():
    held = Record((torch.tensor([0]),), torch.zeros(1), torch.tensor([[0]]), torch.tensor([[0.5]]).log())
    found = against_record(held, [answer([0.25, 0.5, 0.25])])
    assert found["kl"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))


def test_the_largest_difference_is_that_of_all_answers_in_both_directions():
    before = [answer([0.5, 0.5]), answer([0.5, 0.5])]
    found = figures(before, [answer([0.01, 0.99]), answer([0.5, 0.5])])
    assert found["largest_difference"] == pytest.approx(math.log(50))


def test_what_is_judged_is_what_was_read_back(tmp_path, tokenizer, found, monkeypatch):
    where, model = found
    monkeypatch.setattr(exchange, "load", lambda *_, **__: changed(model, 0.3))
    with pytest.raises(ModelError, match="--accept"):
        write_changed(where, model, model, tokenizer, tmp_path / "second", step="merge", settings={})


def test_both_ways_of_computing_must_hold(found, monkeypatch):
    where, _ = found
    kls = iter((0.0, 1.0))
    rest = {"largest_difference": 0.0, "top1_agreement": 1.0, "perplexity_ratio": 1.0}
    monkeypatch.setattr(verifying, "against_record", lambda *_: {"kl": next(kls), **rest})
    assert verifying.contract(Contract(str(where.path)))["passed"] is False
