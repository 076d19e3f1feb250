import pytest

from amauta.base.errors import ModelError
from amauta.hub import candidates, find_model


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMAUTA_LANG", "en")
    for folder in ("runs/demo/model", "runs/other/model", "plain"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "runs/begun/checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_run_and_a_model_folder_are_found(place):
    assert find_model("runs/demo") == find_model("runs/demo/model").relative_to(".")
    assert find_model(place / "plain") == place / "plain"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/dmeo", ("no such folder", "runs/demo")),
        ("runs/begun", ("has not written its model", "runs/")),
        ("empty", ("neither config.json nor model/config.json", "plain")),
        ("plain/config.json", ("is a file",)),
    ],
)
def test_what_is_no_model_is_named_with_its_neighbours(place, name, words):
    with pytest.raises(ModelError) as error:
        find_model(name)
    assert all(word in str(error.value) for word in words)


def test_the_nearest_candidate_comes_first(place):
    assert candidates(place / "runs/dmeo")[0] == place / "runs/demo"


def test_without_any_neighbour_the_way_to_one_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMAUTA_LANG", "es")
    with pytest.raises(ModelError, match="amauta run demo"):
        find_model("sub/nothing")
