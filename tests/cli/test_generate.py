import io
import json
import subprocess
import sys

import pytest

from amauta.cli import main
from amauta.language_model import LanguageModel, load
from amauta.models.spec import Spec
from amauta.models.transformer import Transformer
from amauta.tokenize.train import train_bpe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    texts = ["Rosa vende lana en el mercado.", "El año pasado llovió mucho."] * 4
    spec = Spec(vocabulary=290, context=48, width=32, layers=1, heads=4, init_std=0.3)
    place = tmp_path_factory.mktemp("run") / "model"
    LanguageModel(Transformer.create(spec, 0), train_bpe(texts, 290)).save(place)
    return place


def run(capsys, *words):
    code = main(["generate", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_one_prompt_gives_one_record(folder, capsys):
    code, out, _ = run(capsys, "--model", folder, "--prompt", "Rosa", "--max-tokens", 12, "--temperature", 0, "--json")
    record = json.loads(out.splitlines()[-1])
    [expected] = load(folder).generate("Rosa", max_tokens=12, temperature=0)
    assert code == 0 and record["text"] == expected.text and record["tokens"] == expected.tokens
    assert record["logprobs"] == pytest.approx(expected.logprobs, abs=1e-5)
    assert record["settings"]["temperature"] == 0 and record["sources"]["temperature"] == "argument"
    assert record["settings"]["top_p"] == 1 and record["sources"]["top_p"] == "default"
    assert record["tokens_per_second"] > 0


def test_a_reader_gets_the_text_alone_on_stdout(folder, capsys):
    code, out, err = run(capsys, "--model", folder, "--prompt", "Rosa", "--max-tokens", 5, "--seed", 3)
    [expected] = load(folder).generate("Rosa", max_tokens=5, seed=3)
    assert code == 0 and out == f"Rosa{expected.text}\n"
    assert "5 tokens" in err and "seed 3 (argument)" in err and "top_p" not in err


def test_prompts_of_all_kinds_stand_in_their_order(folder, capsys, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("El año\n\nLuis\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"prompt": "Ana"}\n{"text": "Eva"}\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("Inti\n \nSol\n"))
    files = ["--file", tmp_path / "a.txt", "--file", tmp_path / "b.jsonl", "--file", "-"]
    code, out, _ = run(capsys, "--model", folder, "--prompt", "Rosa", *files, "--max-tokens", 2, "--json")
    results = json.loads(out.splitlines()[-1])["results"]
    assert code == 0
    assert [one["prompt"] for one in results] == ["Rosa", "El año", "Luis", "Ana", "Eva", "Inti", "Sol"]
    assert [one["settings"]["seed"] for one in results] == list(range(7))


def test_results_go_to_a_file_a_line_each(folder, capsys, tmp_path):
    words = ["--prompt", "Rosa", "--prompt", "Luis", "--max-tokens", 2, "--out", tmp_path / "out.jsonl"]
    code, out, _ = run(capsys, "--model", folder, *words, "--json")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert code == 0 and [line["prompt"] for line in lines] == ["Rosa", "Luis"]
    assert json.loads(out.splitlines()[-1])["prompts"] == 2


def test_a_prompt_that_was_cut_is_counted_for_the_reader(folder, capsys):
    long = ["--prompt", "ñ" * 90, "--prompt", "a", "--truncate", "left", "--max-tokens", 4]
    code, _, err = run(capsys, "--model", folder, *long)
    assert code == 0 and "1 prompts did not fit; 137 of their oldest tokens were dropped" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "ñ" * 90], "Prompt 1 of 1 has 181 tokens; the model reads at most 48"),
        ([], "nothing to continue"),
        (["--prompt", "a", "--temprature", "1"], "--temperature"),
        (["--prompt", "a", "--top-p", "0"], "top_p"),
        (["--file", "no-such.txt"], "no-such.txt"),
    ],
)
def test_what_cannot_be_done_is_said_and_exits_with_2(folder, capsys, words, said):
    code, out, err = run(capsys, "--model", folder, *words)
    assert code == 2 and said in err and out == ""


def test_a_record_without_a_prompt_is_named_with_its_line(folder, capsys, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"prompt": "Ana"}\n{"question": "?"}\n')
    code, _, err = run(capsys, "--model", folder, "--file", tmp_path / "b.jsonl")
    assert code == 2 and "b.jsonl, record 2" in err and "question" in err


def test_a_missing_model_names_its_neighbours(folder, capsys):
    code, _, err = run(capsys, "--model", folder.parent / "modle", "--prompt", "a")
    assert code == 2 and "no such folder" in err and str(folder) in err


def test_generation_needs_no_transformers(folder):
    """The seconds before the first token are torch's; a test library must not creep in."""
    code = (
        "import sys; from amauta.cli import main; "
        f"main(['generate', '--model', {str(folder)!r}, '--prompt', 'Rosa', '--max-tokens', '2']); "
        "print(sorted({'transformers', 'scipy', 'pandas', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
