"""A ground small enough to be laid in a second: the small world cut short."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from amauta import config
from amauta.data.smallworld import write
from amauta.train import loop
from amauta.yardstick import ground as module
from amauta.yardstick.ground import Ground, lay
from amauta.yardstick.settings import Yardstick

SMALL: dict[str, Any] = {
    "seeds": 1, "budget": 1.5e9, "table_budget": 2e8, "megabytes": 0.05, "vocabulary": 400, "width": 32, "layers": 2,
    "length": 48, "rows": 4, "examples": 24, "heldout_examples": 12, "epochs": 1.0, "pairs": 12, "pseudo": 2,
    "order": 3, "device": "cpu", "dtype": "f32",
}  # fmt: skip


def small(**changes: Any) -> Yardstick:
    return config.build(Yardstick, SMALL, changes)


@pytest.fixture(scope="session", autouse=True)
def sooner() -> Iterator[None]:
    """Without what costs seconds and is not looked at: the world's expected entropy, and the processor's speed."""
    unknown = SimpleNamespace(nats=1.0, bytes=1.0, bits_per_byte=1.0, derivations=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "expectation", lambda root: unknown)
        patch.setattr(loop, "matmul_peak", lambda device, dtype: 1e11)
        yield


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELDOUT_BYTES", 6000)
        return lay(small(), tmp_path_factory.mktemp("yardstick") / "ground")
