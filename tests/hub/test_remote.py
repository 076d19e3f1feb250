"""Names of a hub, through the real huggingface_hub, against a hub on this machine.

huggingface_hub reads its variables once, when it is imported, so each question is asked by a Python of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amauta.base.errors import ModelError
from amauta.hub.remote import Wanted, choose, wanted
from tests.hub.hub_server import COMMIT, OLDER, Hub, serving

pytest.importorskip("huggingface_hub")

SHARDED = {
    "config.json": b"{}", "tokenizer.json": b"[1]", "README.md": b"#", "pytorch_model.bin": b"PK", "run.py": b"evil",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two",
    "consolidated.safetensors": b"again", "onnx/config.json": b"{}",
}  # fmt: skip
READ = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "tokenizer.json"]  # fmt: skip
ENCODER = {
    "config.json": b"{}", "modules.json": b"[]", "model.safetensors": b"w", "1_Pooling/config.json": b"{}",
    "2_Dense/model.safetensors": b"d", "2_Dense/pytorch_model.bin": b"PK",
}  # fmt: skip
MODELS = {
    "me/sharded": SHARDED,
    "me/encoder": ENCODER,
    "me/one-gguf": {"one.Q8_0.gguf": b"GGUF", "README.md": b"#"},
    "me/many-gguf": {"m.Q8_0.gguf": b"GGUF8", "m.F16.gguf": b"GGUF16", "config.json": b"{}"},
    "me/pickled": {"config.json": b"{}", "pytorch_model.bin": b"PK"},
    "me/gated": {"config.json": b"{}", "model.safetensors": b"w"},
    "me/data": {"README.md": b"#"},
    "me/adapter": {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": b"w",
        "adapter_model.bin": b"PK",
        "tokenizer.json": b"[1]",
        "README.md": b"#",
    },
}
ASK = """
import json, sys
from amauta.base.errors import ModelError
from amauta.hub import find_model
from amauta.hub.listing import listed
for name in sys.argv[1:]:
    try:
        found = find_model(name)
        folder = found.path if found.kind == "folder" else found.path.parent
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        cached = [[m.name, m.kind, m.size] for m in listed() if m.source.startswith("hub ")]
        answer = {"kind": found.kind, "path": str(found.path), "source": found.source, "files": files, "cached": cached}
    except ModelError as error:
        answer = {"key": error.key, "said": str(error)}
    print(json.dumps(answer))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(MODELS, gated=frozenset({"me/gated"}))) as hub:
        yield hub


def ask_all(names: list[str], place: Path, endpoint: str, **variables: str) -> list[dict]:
    """What ``find_model`` says of each name in a fresh Python; ``stderr`` is what that printed besides."""
    given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(place / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables}
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-c", ASK, *names]
    done = subprocess.run(command, cwd=place, env=clean | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) | {"stderr": done.stderr} for line in done.stdout.splitlines()]


def ask(name: str, place: Path, endpoint: str, **variables: str) -> dict:
    [answer] = ask_all([name], place, endpoint, **variables)
    return answer


def test_a_folder_is_fetched_without_pickles_and_then_read_from_the_cache(hub: Hub, tmp_path: Path):
    got = ask("me/sharded", tmp_path, hub.address)
    assert (got["kind"], got["files"], got["source"]) == ("folder", READ, f"hub me/sharded@{COMMIT}")
    assert sorted(set(hub.asked)) == READ
    assert got["cached"] == [["me/sharded", "folder", sum(len(SHARDED[file]) for file in READ)]]
    offline = ask("me/sharded", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert (offline["path"], offline["stderr"]) == (got["path"], "")
    unreached = ask("me/sharded", tmp_path, "http://127.0.0.1:9")
    assert unreached["path"] == got["path"] and f"cached copy is used (commit {COMMIT})" in unreached["stderr"]


def test_an_adapter_is_fetched(hub: Hub, tmp_path: Path):
    got = ask("me/adapter", tmp_path, hub.address)
    assert got["kind"] == "adapter" and Path(got["path"]).name == COMMIT
    assert sorted(set(hub.asked)) == ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    offline = ask("me/adapter", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert (offline["kind"], offline["path"]) == ("adapter", got["path"])


def test_a_cached_copy_that_is_not_whole_is_an_error(hub: Hub, tmp_path: Path):
    got = ask("me/sharded", tmp_path, hub.address)
    (Path(got["path"]) / READ[2]).unlink()
    again = ask("me/sharded", tmp_path, hub.address, HF_HUB_OFFLINE="1")
    assert again["key"] == "hub.incomplete" and READ[2] in again["said"]
    assert ask("me/sharded", tmp_path, hub.address)["files"] == READ


def test_a_revision_and_one_of_several_gguf_files_are_asked_for(hub: Hub, tmp_path: Path):
    older, lost, chosen = ask_all(["me/encoder@v1", "me/encoder@v2", "me/many-gguf:q8_0"], tmp_path, hub.address)
    assert older["source"] == f"hub me/encoder@{OLDER}" and "vocab.txt" in older["files"]
    assert lost["key"] == "hub.no-revision"
    assert (chosen["kind"], chosen["files"]) == ("gguf", ["m.Q8_0.gguf"])
    assert Path(chosen["path"]).name == "m.Q8_0.gguf"
    assert ["me/many-gguf", "gguf", 5] in chosen["cached"]


def test_what_a_hub_answers_is_said(hub: Hub, tmp_path: Path):
    cases = {
        "me/nothing": ("hub.no-repository", "no model of that name"),
        "me/gated": ("hub.gated", "/me/gated"),
        "me/pickled": ("hub.only-pickled", "safetensors"),
        "me/many-gguf": ("hub.which-gguf", "m.F16.gguf, m.Q8_0.gguf"),
        "me/data": ("hub.no-weights", "config.json"),
        "me/bad--name": ("hub.bad-name", "bad--name"),
    }
    answers = ask_all(list(cases), tmp_path, hub.address)
    for (key, words), answer in zip(cases.values(), answers, strict=True):
        assert answer["key"] == key and words in answer["said"]


def test_what_is_not_cached_needs_a_hub(tmp_path: Path):
    offline = ask("me/sharded", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["key"] == "hub.unreachable" and "HF_HUB_OFFLINE is set" in offline["said"]
    unreached = ask("me/sharded", tmp_path, "http://127.0.0.1:9")
    assert unreached["key"] == "hub.unreachable" and "http://127.0.0.1:9" in unreached["said"]


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert wanted("me/model") == Wanted("me/model")
    assert wanted("me/model@refs/pr/1:Q4_0") == Wanted("me/model", "refs/pr/1", "Q4_0")
    assert wanted("hf://here/model") == Wanted("here/model")
    paths = ("here/model", "model", "a/b/c", "./me/model", "../model", "~/model", "/me/model", "me/model.gguf", "")
    assert [wanted(path) for path in paths] == [None] * len(paths)


def test_the_files_of_a_sentence_encoder():
    assert choose(ENCODER, Wanted("me/encoder")) == [
        "2_Dense/model.safetensors", "model.safetensors", "1_Pooling/config.json", "config.json", "modules.json",
    ]  # fmt: skip


def test_a_part_of_a_name_must_mean_one_file():
    files = ["m.Q4_0.gguf", "m.Q4_1.gguf", "model.safetensors", "config.json"]
    assert choose(files, Wanted("me/m", file="q4_1")) == ["m.Q4_1.gguf"]
    for part in ("Q4", "Q8_0"):
        with pytest.raises(ModelError, match=r"m.Q4_0.gguf, m.Q4_1.gguf"):
            choose(files, Wanted("me/m", file=part))
