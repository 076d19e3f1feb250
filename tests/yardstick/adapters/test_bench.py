"""The bench of adapters on a ground of a minute's text: what learns, what is kept, what is told."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from amauta import config
from amauta.adapt.settings import Adapters
from amauta.base.errors import RunError
from amauta.hub import find_model
from amauta.models.adapters import counts
from amauta.models.exchange.opening import open_model, spec_of
from amauta.models.spec import Spec
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.yardstick.adapters import languages, ways
from amauta.yardstick.adapters.peak import peak_of
from amauta.yardstick.adapters.published import published
from amauta.yardstick.adapters.run import bench
from amauta.yardstick.adapters.settings import WAYS, BenchAdapters
from amauta.yardstick.adapters.tables import as_text
from amauta.yardstick.statistics import interval

WORDS = {"en": "the cat saw a red door and then it went to sleep under some old tree".split(),
         "es": "el gato vio una puerta roja y luego se fue a dormir bajo un árbol viejo".split()}  # fmt: skip


def text(language: str, documents: int, folder: Path) -> str:
    random = Random(language)
    rows = [
        {"text": ". ".join(" ".join(random.choices(WORDS[language], k=6)) for _ in range(4))} for _ in range(documents)
    ]
    path = folder / f"{language}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def task(folder: Path) -> str:
    random, path = Random(1), folder / "cats.jsonl"
    rows = [{"text": " ".join(random.choices(WORDS["en"], k=5) + (["cat"] if n % 2 else ["tree"])),
             "label": "cat" if n % 2 else "tree"} for n in range(40)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings' values, and what the bench told."""
    folder = tmp_path_factory.mktemp("bench")
    values = {
        "out": str(folder / "out"), "tasks": [task(folder)], "source": [text("en", 400, folder)],
        "into": [text("es", 400, folder)], "seeds": 2, "ways": ["full", "lora", "prefix-layer"], "rank": 2,
        "positions": 3, "reductions": [4], "budget": 1e9, "language_budget": 2e9, "megabytes": 0.04,
        "vocabulary": 420, "width": 32, "language_width": 32, "layers": 2, "length": 48, "rows": 4, "examples": 24,
        "heldout_examples": 8, "epochs": 1.0, "device": "cpu", "dtype": "f32",
    }  # fmt: skip
    return values, bench(config.build(BenchAdapters, values))


def test_a_row_a_way(done: tuple[dict[str, Any], dict[str, Any]]):
    values, found = done
    told = found["tasks"]
    base = Path(values["out"]) / "base" / "stage-0" / "model"
    spec = spec_of(find_model(base))
    rows = {row["way"]: row for row in told["rows"]}
    assert list(rows) == ["full", "lora", "prefix-layer"] and told["tasks"] == ["cats"]
    more = 2 * 32 + 3 * 32  # a classifier of two classes, and the three tokens of GPT-1's manner
    assert rows["full"]["trained"] == told["parameters"] + more
    lora = Adapters(adapter=("lora",), adapter_rank=2, adapter_targets=("q", "v"))
    assert rows["lora"]["trained"] == counts(spec, lora) + more == 2 * 2 * 2 * 64 + more
    assert rows["prefix-layer"]["trained"] == 2 * 3 * 32 + more
    for row in rows.values():
        cells = [json.loads((Path(values["out"]) / "cells" / f"{row['way']}.cats.seed-{seed}.json").read_text())
                 for seed in (7, 8)]  # fmt: skip
        assert list(row["tasks"]["cats"]["values"]) == [cell["accuracy"] for cell in cells]
        assert row["accuracy"]["mean"] == interval([cell["accuracy"] for cell in cells]).mean
        assert row["seconds"] > 0 and row["tokens_per_second"] > 0
        assert row["peak_bytes"] is None or 0 < row["peak_bytes"] < 2e9
    assert (
        json.loads((Path(values["out"]) / "results.json").read_text())["tasks"]["rows"][1]["trained"]
        == rows["lora"]["trained"]
    )


def test_a_row_a_strategy(done: tuple[dict[str, Any], dict[str, Any]]):
    values, found = done
    told = found["languages"]
    rows = {row["strategy"]: row for row in told["rows"]}
    assert list(rows) == ["none", "full", "emb", "adapter", "emb-then-adapter", "emb+adapter"]
    model, _ = open_model(find_model(Path(values["out"]) / "languages" / "base" / "stage-0" / "model"))
    new = Tokenizer.load(Path(values["out"]) / "languages" / "target" / "tokenizer")
    tables = new.size * 32 + model.spec.context * 32
    bottleneck = 2 * (2 * 8 * 32 + 8 + 32)  # of two layers, a quarter as wide as the model
    assert rows["emb"]["trained"] == tables and rows["adapter"]["trained"] == bottleneck
    assert rows["emb-then-adapter"]["trained"] == rows["emb+adapter"]["trained"] == tables + bottleneck
    assert rows["full"]["trained"] == rows["full"]["parameters"] and rows["adapter"]["width"] == 8
    bits = {name: row["bits_per_byte"]["mean"] for name, row in rows.items()}
    assert all(bits[name] < bits["none"] for name in bits if name != "none")  # everything helps
    assert bits["full"] < bits["adapter"]
    assert told["best"][0] == min((name for name in rows if name not in ("none", "full")), key=lambda name: bits[name])
    assert rows["emb"]["bits_per_byte"]["half"] is not None


def test_finished_work_is_not_done_again(done: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    values, found = done

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was trained")

    for module, name in ((ways, "learned"), (languages, "pretrain")):
        monkeypatch.setattr(module, name, never)
    again = bench(config.build(BenchAdapters, values))
    assert json.dumps(again) == json.dumps(found)
    one = Path(values["out"]) / "cells" / "language.emb.seed-8.json"
    kept = one.read_text()
    one.unlink()
    with pytest.raises(AssertionError, match="trained"):
        bench(config.build(BenchAdapters, values))
    one.write_text(kept)
    with pytest.raises(RunError, match="rank"):
        bench(config.build(BenchAdapters, values, {"rank": 3}))


def test_tables_in_both_languages(done: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    _, found = done
    shown = as_text(found)
    for piece in ("| full ", "| prefix-layer", "emb-then-adapter", "174,604,259,328", "published", "bits/byte"):
        assert piece in shown
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert "Seis maneras" in as_text(found) and "entrenados" in as_text(found)


def test_a_way_that_a_model_has_nothing_of_is_told(monkeypatch: pytest.MonkeyPatch):
    plain = Spec(vocabulary=40, width=32, layers=2, heads=2)
    settings = BenchAdapters(out=Path("x"))
    assert [way for way in WAYS if ways._missing(plain, way, settings)] == ["bitfit"]
    row = {"way": "bitfit", "missing": ways._missing(plain, "bitfit", settings)}
    shown = as_text({"tasks": {"model": "m", "parameters": 1, "tasks": [], "rows": [row]}, "published": []})
    assert "bitfit" in shown and "bitfit:" in shown


def test_published_counts():
    """methods of the papers' tables, computed from specs: 192 adapters of 2·12288 + 1 + 12288, 2·96·2·12288 …"""
    rows = {(row["model"], row["way"]): row for row in published()}
    assert {key: row["counted"] for key, row in rows.items()} == {
        ("gpt3-175b", "full"): 174_604_259_328,
        ("gpt3-175b", "bitfit"): 11 * 12_288 * 96 + 12_288,  # the last norm's bias with them
        ("gpt3-175b", "prompt, 264 positions"): 3_244_032,
        ("gpt3-175b", "prefix-layer, 16 positions"): 18_874_368,
        ("gpt3-175b", "houlsby, width 1"): 7_078_080,
        ("gpt3-175b", "houlsby, width 8"): 40_109_568,
        ("gpt3-175b", "lora, rank 1"): 4_718_592,
        ("gpt3-175b", "lora, rank 8"): 37_748_736,
        ("bert-large", "houlsby, width 64"): 6_343_680 + 49 * 2 * 1024,  # and 24·2 + 1 norms
        ("bert-large", "houlsby, width 256"): 25_227_264 + 49 * 2 * 1024,
    }
    assert rows["bert-large", "houlsby, width 64"]["share"] == pytest.approx(0.0192, abs=5e-5)


def test_the_peak_is_that_of_the_work_alone():
    held = torch.ones(20_000_000)  # 80 MB that were there before

    def work() -> int:
        return len([torch.ones(2_500_000) for _ in range(4)])  # 40 MB

    found, peak = peak_of(work, torch.device("cpu"))
    assert found == 4 and (peak is None or 38e6 < peak < 60e6)
    _, less = peak_of(lambda: None, torch.device("cpu"))
    assert (less is None or less < 5e6) and len(held) == 20_000_000


def test_tokens_that_both_languages_have_keep_their_vectors(tmp_path: Path):
    from amauta.models.exchange.folder import write_model
    from amauta.models.transformer import Transformer

    old = train_bpe([" ".join(WORDS["en"])] * 4, 300, allow_smaller=True)
    new = train_bpe([" ".join(WORDS["es"])] * 4, 310, allow_smaller=True)
    model = Transformer.create(Spec(vocabulary=old.size, width=32, layers=1, heads=2), 1)
    write_model(model, old, tmp_path / "base")
    languages._with_tokens(tmp_path / "base", old, new, 3, tmp_path / "made")
    other, tokenizer = open_model(find_model(tmp_path / "made"))
    assert isinstance(tokenizer, Tokenizer) and tokenizer.fingerprint == new.fingerprint
    mine, theirs = languages._shared(old, new)
    assert {new.token_bytes(id) for id in mine} >= {bytes([byte]) for byte in range(256)} and len(mine) < new.size
    assert torch.equal(other.embedding.weight[mine], model.embedding.weight[theirs])
    assert old.pad in theirs and mine[theirs.index(old.pad)] == new.pad
    fresh = sorted(set(range(new.size)) - set(mine))
    assert 0.01 < float(other.embedding.weight[fresh].detach().std()) < 0.03
    assert torch.equal(other.decoder.blocks[0].attention.qkv.weight, model.decoder.blocks[0].attention.qkv.weight)  # type: ignore[union-attr]
    shutil.rmtree(tmp_path / "made")
