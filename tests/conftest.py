"""What all tests share: English messages, one torch thread a worker, and the folder of real data where there is one."""

import os
import sys
from pathlib import Path

import pytest

os.environ["AMAUTA_LANG"] = "en"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported, so torch is not imported here

ROOT = Path(__file__).parent.parent
NATIVE = Path(os.environ.get("AMAUTA_CACHE") or Path.home() / ".cache" / "amauta") / "native"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two workers with two threads each would slow each other down many times over."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, but for the compiled step: making it takes seconds in each worker."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    if not cache.exists():
        NATIVE.mkdir(parents=True, exist_ok=True)
        cache.mkdir()
        (cache / "native").symlink_to(NATIVE)
    monkeypatch.setenv("AMAUTA_CACHE", str(cache))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def amauta_data() -> Path:
    """The folder of real data (``AMAUTA_DATA``, else a sibling folder of the project); the test is skipped without."""
    folder = Path(os.environ.get("AMAUTA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set AMAUTA_DATA ({folder} is no folder)")
    return folder
