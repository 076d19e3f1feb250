import json

import pytest

from amauta.cli import main
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.decode.tree.recording import SampleRecorder
from amauta.decode.tree.tree import Tree
from amauta.language_model import LanguageModel, load
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    spec = Spec(vocabulary=280, context=48, width=32, layers=1, heads=4, init_std=0.3)
    place = tmp_path_factory.mktemp("run") / "model"
    LanguageModel(Transformer.create(spec, 0), train_bpe(["Rosa vende lana en el mercado."] * 4, 280)).save(place)
    return place


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    """Three samples of one prompt."""
    model = load(folder)
    ids = model.tokenizer.prompt("Rosa")
    settings = {"max_tokens": 5, "temperature": 0.7, "seed": 4}
    sources = dict.fromkeys(settings, "argument") | {"top_p": "default"}
    tree = Tree("sample", "Rosa", settings | {"top_p": 1.0}, sources=sources, ids=ids)
    recorder = SampleRecorder(tree, model.token_bytes, lambda id: model.tokenizer.pieces([id])[0])
    made = generate(model.model, [ids] * 3, Sampling(**settings), stop_ids=model.stop_ids, watch=recorder)
    recorder.end({row: one.finish for row, one in enumerate(made)})
    place = tmp_path_factory.mktemp("trees") / "t.json"
    tree.save(place)
    return place


def run(capsys, *words):
    code = main(["tree", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def result(out):
    return json.loads(out.splitlines()[-1])


def test_show_tells_what_is_in_it(file, capsys):
    tree = Tree.load(file)
    code, out, _ = run(capsys, "show", file, "--json")
    shown = result(out)
    assert code == 0 and shown["method"] == "sample" and shown["prompt"] == "Rosa" and shown["budget"] == tree.budget
    assert shown["nodes"] == len(tree.nodes) - 1 and shown["settings"] == tree.settings
    for one in shown["texts"]:
        assert one["text"] == tree.text(one["node"]) and one["logprob"] == pytest.approx(tree.logprob(one["node"]))
    code, out, _ = run(capsys, "show", file)
    assert code == 0 and out.startswith("Rosa\n") and "[finished]" in out and "%" in out


def test_show_writes_a_page(file, capsys, tmp_path):
    code, out, _ = run(capsys, "show", file, "--html", tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert code == 0 and out == f"{tmp_path / 't.html'}\n" and text.startswith("<!doctype html>") and "Rosa" in text


def test_replay_of_its_own_model(file, folder, capsys):
    code, out, _ = run(capsys, "replay", file, "--model", folder, "--again", "--json")
    found = result(out)
    assert code == 0 and found["passed"] and found["largest"] < 1e-4 and found["skipped"] == 0
    assert found["tokens"] == len(Tree.load(file).nodes) - 1
    assert (found["again"], found["texts"]) == (3, 3)  # the same settings and seed write the same texts


def test_replay_of_another_record(file, folder, capsys, tmp_path):
    tree = Tree.load(file)
    tree.nodes[2].logprobs[0] -= 0.5
    tree.settings["seed"] = 99
    tree.save(tmp_path / "t.json")
    code, out, _ = run(capsys, "replay", tmp_path / "t.json", "--model", folder, "--again", "--json")
    found = result(out)
    assert code == 1 and not found["passed"] and found["node"] == 2 and found["again"] < 3
    assert found["largest"] == pytest.approx(0.5, abs=1e-4)
    assert run(capsys, "replay", tmp_path / "t.json", "--model", folder)[0] == 1
    assert run(capsys, "replay", tmp_path / "t.json", "--model", folder, "--tolerance", "0.6")[0] == 0
    tree.nodes[2].logprobs[0] += 0.5  # only the seed is wrong now
    tree.save(tmp_path / "t.json")
    assert run(capsys, "replay", tmp_path / "t.json", "--model", folder)[0] == 0
    assert run(capsys, "replay", tmp_path / "t.json", "--model", folder, "--again")[0] == 1


def test_texts_of_thoughts_are_read_with_the_models_tokenizer(folder, capsys, tmp_path):
    model = load(folder)
    [made] = model.generate(["Rosa vende"], max_tokens=3, temperature=0)
    tree = Tree("thoughts", "a question", {})
    tree.choose(tree.add(0, made.tokens, made.text, made.logprobs, kind="thought", given="Rosa vende"))
    tree.save(tmp_path / "t.json")
    code, out, _ = run(capsys, "replay", tmp_path / "t.json", "--model", folder, "--json")
    assert code == 0 and result(out)["tokens"] == len(made.tokens) and result(out)["largest"] < 1e-4
    code, _, err = run(capsys, "replay", tmp_path / "t.json", "--model", folder, "--again")
    assert code == 2 and "thoughts" in err


def test_nothing_compared_is_not_passed(folder, capsys, tmp_path):
    Tree("empty", "", {}).save(tmp_path / "t.json")
    assert run(capsys, "replay", tmp_path / "t.json", "--model", folder)[0] == 1


def test_faults_name_the_file(capsys, tmp_path):
    code, _, err = run(capsys, "show", tmp_path / "no.json")
    assert code == 2 and "no.json" in err
    (tmp_path / "bad.json").write_text('{"format": "amauta.tree", "version": 1}')
    code, _, err = run(capsys, "show", tmp_path / "bad.json")
    assert code == 2 and "bad.json is damaged" in err and "'method' is missing" in err
