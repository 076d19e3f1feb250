"""The table of known packages, checked whole; and against the real packages where they are installed."""

import re
import struct
from pathlib import Path

import pytest

from amauta.base.messages import subject
from amauta.hub.installed import fault_of, folder_of
from amauta.hub.known import KNOWN, Known, known_model, nearest_known

IDS = [known.name for known in KNOWN]


@pytest.mark.parametrize("known", KNOWN, ids=IDS)
def test_an_entry_is_complete(known: Known):
    assert {known.about.removeprefix("models."), known.warning.removeprefix("models.") or "name"} <= set(
        subject("models")
    )
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size > 0 for file in known.files)
    assert len(known.files) == (2 if known.kind == "llama2c" else 1)
    assert known.licence and known.name in known.use
    assert known.download < 1.1 * known.size  # packed; a package with much besides the weights is not one for us
    if known.in_place and known.kind == "gguf":
        assert known.sources[0][1].endswith(f"/{known.files[0].name}")


def test_no_two_entries_share_a_name():
    names = [spelt for known in KNOWN for spelt in (known.name, *known.aliases)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)  # what known_model compares with


def test_names_and_nearly_names():
    assert {known_model(name) for name in ("smollm2", "SmolLM2-135M-Instruct", "smollm2_135m")} == {KNOWN[0]}
    assert known_model("smollm") is None
    assert (nearest_known("smolm2"), nearest_known("models/all-miniLM-L6"), nearest_known("zzz")) == (
        "smollm2", "all-minilm-l6-v2", None,
    )  # fmt: skip


@pytest.mark.parametrize("known", KNOWN, ids=IDS)
def test_the_real_package_is_the_one_that_is_described(known: Known):
    folder = folder_of(known)
    if folder is None:
        pytest.skip(f"{known.source} is not installed")
    assert fault_of(known, folder, verify=True) is None
    assert weights_in(folder / known.files[0].name) == known.parameters


def weights_in(file: Path) -> int:
    """The weights of a file as another reader counts them."""
    if file.suffix == ".gguf":
        gguf = pytest.importorskip("gguf")
        return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(file).tensors)
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            tensors = [opened.get_tensor(name) for name in opened.keys()]
        return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
    data = file.read_bytes()  # llama2.c: seven int32, then f32; two tables of sines and cosines are no weights
    width, _, _, heads, _, _, context = struct.unpack("<7i", data[:28])
    return (len(data) - 28) // 4 - 2 * context * (width // heads // 2)
