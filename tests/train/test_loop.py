"""The loop: micro-batches are exact, a resumed run is the uninterrupted one, faults are named and lose nothing."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amauta import config, metrics
from amauta.base.errors import DataError, Interrupted, RunError
from amauta.base.seeds import derive
from amauta.data.batches import PackedBatches, Stored
from amauta.data.store import TokenStore
from amauta.models.exchange.weights import SINGLE
from amauta.models.sizes import complete
from amauta.models.transformer import Transformer
from amauta.runs import Run
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train import loop
from amauta.train.pretrain import pretrain
from tests.train.conftest import Tiny


def weights(tiny: Tiny, out: str) -> dict[str, torch.Tensor]:
    return load_file(tiny.folder / out / "model" / SINGLE)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(tiny: Tiny, out: str) -> list[float]:
    return [row["loss"] for row in metrics.read(Run(tiny.folder / out).metrics) if "loss" in row]


def test_it_learns_and_tells(tiny: Tiny):
    result = pretrain(tiny.pretrain("a", loop={"steps": 150}, heldout=[str(tiny.folder / "text.jsonl")]))
    told = losses(tiny, "a")
    assert len(told) == 150 and told[-1] < told[0] / 4
    assert result["bits_per_byte"] < 0.6 and result["tokens_per_second"] > 0
    rows = metrics.read(Run(tiny.folder / "a").metrics)
    assert {"lr_factor", "grad_norm", "tokens_per_second", "flops", "share_of_peak"} <= rows[1].keys()
    card = json.loads((tiny.folder / "a" / "model" / "card.json").read_text())
    assert card["data"][0]["file"] == "text.jsonl" and len(card["data"][0]["sha256"]) == 64


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_micro_batches_equal_one_batch(tiny: Tiny, optimizer: str):
    for out, rows, accumulate in (("one", 8, 1), ("four", 2, 4)):
        settings = {"rows": rows, "accumulate": accumulate, "steps": 5}
        pretrain(tiny.pretrain(out, loop=settings, optim={"optimizer": optimizer, "lr": 1e-3, "matrix_lr": 1e-3}))
    one, four = weights(tiny, "one"), weights(tiny, "four")
    assert losses(tiny, "one") == pytest.approx(losses(tiny, "four"), rel=1e-4)
    for name in one:
        torch.testing.assert_close(one[name], four[name], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_of_the_mean_loss(tiny: Tiny, accumulate: int):
    settings = tiny.pretrain("a", loop={"accumulate": accumulate, "steps": 1})
    pretrain(settings)
    told = metrics.read(Run(tiny.folder / "a").metrics)[0]
    tokenizer = Tokenizer.load(tiny.tokenizer)
    model = Transformer.create(complete(settings.shape, tokenizer.size), derive(3, "weights"))
    units = Stored(TokenStore.open(Run(tiny.folder / "a").tokens("train")), 48)
    stream = PackedBatches(units, rows=4, length=48, seed=3)
    batches = [next(stream) for _ in range(accumulate)]
    logits = [model.logits(model(b.ids, positions=b.positions, documents=b.documents)).flatten(0, 1) for b in batches]
    mean = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat([b.targets.flatten() for b in batches]))
    mean.backward()
    assert told["loss"] == pytest.approx(float(mean.detach()), rel=1e-5)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert told["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def stopping_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int) -> None:
    """Send ourselves a signal at the end of a step."""
    real, count = loop._one_step, iter(range(1, 1000))

    def one_step(*args, **kwargs):  # type: ignore[no-untyped-def]
        found = real(*args, **kwargs)
        if next(count) == steps:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # as from a terminal and from the program that started us
        return found

    monkeypatch.setattr(loop, "_one_step", one_step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resume_gives_the_same_weights(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    shape = {"dropout": 0.2}  # randomness inside the step must be taken up too
    pretrain(tiny.pretrain("whole", shape=shape))
    with monkeypatch.context() as patch:
        stopping_after(patch, 5, number)
        with pytest.raises(Interrupted, match=r"step 5 of 12.*--resume"):
            pretrain(tiny.pretrain("parts", shape=shape))
    assert not Run(tiny.folder / "parts").model.exists()
    pretrain(tiny.pretrain("parts", shape=shape, loop={"resume": True}))
    assert equal(weights(tiny, "whole"), weights(tiny, "parts"))
    assert losses(tiny, "whole") == losses(tiny, "parts")


def test_killed_in_the_middle_and_resumed_is_bit_equal(tiny: Tiny):
    settings = {"loop": {"steps": 40, "save_every": 3}}
    pretrain(tiny.pretrain("whole", **settings))
    file = tiny.folder / "killed.toml"
    file.write_text(config.to_toml(tiny.pretrain("killed", **settings)))
    run = Run(tiny.folder / "killed")
    command = [sys.executable, "-m", "amauta", "pretrain", "--config", str(file)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not run.complete_checkpoints() and time.monotonic() < end:
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert run.complete_checkpoints() and not run.model.exists()
    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stderr
    assert equal(weights(tiny, "whole"), weights(tiny, "killed"))
    assert losses(tiny, "whole") == losses(tiny, "killed")


def test_stopped_between_the_last_step_and_the_model(tiny: Tiny):
    changes = {"heldout": [str(tiny.folder / "text.jsonl")]}
    first = pretrain(tiny.pretrain("a", **changes))
    kept, run = weights(tiny, "a"), Run(tiny.folder / "a")
    shutil.rmtree(run.model)
    run.result.unlink()
    again = pretrain(tiny.pretrain("a", loop={"resume": True}, **changes))
    assert equal(kept, weights(tiny, "a"))
    assert {name: again[name] for name in ("loss", "bits_per_byte", "steps")} == {
        name: first[name] for name in ("loss", "bits_per_byte", "steps")
    }


def test_a_run_is_not_overwritten_nor_gone_on_with_by_other_settings(tiny: Tiny):
    first = pretrain(tiny.pretrain("a"))
    with pytest.raises(RunError, match="--resume"):
        pretrain(tiny.pretrain("a"))
    with pytest.raises(RunError, match=r"loop\.rows, optim\.lr|optim\.lr, loop\.rows"):
        pretrain(tiny.pretrain("a", loop={"resume": True, "rows": 5}, optim={"lr": 0.5}))
    again = pretrain(tiny.pretrain("a", loop={"resume": True}))
    assert again["loss"] == first["loss"]


def test_a_try_that_failed_on_its_input_does_not_stand_in_the_way(tiny: Tiny):
    bad = tiny.file("bad.jsonl", [{"text": "red"}, {"txt": "blue"}])
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        pretrain(tiny.pretrain("a", text=[bad]))
    pretrain(tiny.pretrain("a", loop={"steps": 2}))
    assert Run(tiny.folder / "a").model.exists()


def test_the_config_file_reruns_the_run(tiny: Tiny):
    pretrain(tiny.pretrain("a"))
    kept = config.read_toml(Run(tiny.folder / "a").config)
    from amauta.train.settings import Pretrain

    pretrain(config.build(Pretrain, kept, {"out": str(tiny.folder / "b")}))
    assert equal(weights(tiny, "a"), weights(tiny, "b"))


def test_a_loss_that_is_not_finite_stops_and_names_the_records(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    from amauta.train import pretrain as module

    real, calls = module.causal_step, iter(range(100))

    def poisoned(*args, **kwargs):  # type: ignore[no-untyped-def]
        step = real(*args, **kwargs)

        def bad(model, batch):  # type: ignore[no-untyped-def]
            total, n, seen = step(model, batch)
            return (total * float("nan") if next(calls) == 15 else total), n, seen

        return bad

    monkeypatch.setattr(module, "causal_step", poisoned)
    with pytest.raises(RunError, match=r"Step 8: the loss is nan.*documents \d"):  # the 16th batch of 2 a step
        pretrain(tiny.pretrain("a", loop={"accumulate": 2, "save_every": 2}))
    assert Run(tiny.folder / "a").complete_checkpoints()[-1] == 6


def test_a_disk_that_fills_keeps_the_checkpoint_before(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    pretrain_settings = {"loop": {"save_every": 4}}
    pretrain(tiny.pretrain("whole", **pretrain_settings))
    real = Path.write_bytes

    def filling(self: Path, data: bytes) -> int:
        if "step-000008" in str(self):
            real(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", filling)
        with pytest.raises(RunError, match="full"):
            pretrain(tiny.pretrain("full", **pretrain_settings))
    run = Run(tiny.folder / "full")
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000004"]
    pretrain(tiny.pretrain("full", loop={"save_every": 4, "resume": True}))
    assert equal(weights(tiny, "whole"), weights(tiny, "full"))


def test_evaluation_and_samples_on_the_way(tiny: Tiny):
    pretrain(tiny.pretrain(
        "a", loop={"evaluate_every": 5, "sample_every": 4}, heldout=[str(tiny.folder / "text.jsonl")],
        prompts=["The hat is"],
    ))  # fmt: skip
    run = Run(tiny.folder / "a")
    assert [row["step"] for row in metrics.read(run.metrics) if "bits_per_byte" in row] == [0, 5, 10, 12]
    assert [row["step"] for row in metrics.read(run.samples)] == [0, 4, 8, 12]


def test_the_compiled_step_has_the_same_losses_and_the_same_weights_twice(tiny: Tiny):
    """On several threads too: a compiled embedding's gradient would be added up in another order each time."""
    from amauta.device import compiler, usable_cores

    if compiler() is None:
        pytest.skip("torch.compile needs a C++ compiler")
    cores = min(2, usable_cores())
    for out, compile_ in (("plain", False), ("once", True), ("twice", True)):
        pretrain(tiny.pretrain(out, shape={"layers": 1}, loop={"steps": 8, "compile": compile_, "threads": cores}))
    assert losses(tiny, "plain") == pytest.approx(losses(tiny, "once"), rel=1e-4)
    assert equal(weights(tiny, "once"), weights(tiny, "twice"))
