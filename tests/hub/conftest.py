from pathlib import Path

import pytest

from tests.hub.registry import TABLE


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with an empty ``site`` on the path, a cache, no hub, and the table of small stand-ins."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("AMAUTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")  # nothing listens there
    for module in ("known", "listing"):
        monkeypatch.setattr(f"amauta.hub.{module}.KNOWN", TABLE)
    monkeypatch.setattr("amauta.hub.remote.cached", lambda: [])
    return tmp_path
