"""Opening a run and closing it: the folder, its settings, its finished model and card."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amauta import __version__, config
from amauta.base.errors import DataError, RunError
from amauta.base.messages import say
from amauta.data.batches import PackedBatches, Units
from amauta.data.records import Row
from amauta.decode.sample import generate
from amauta.decode.settings import Sampling
from amauta.device import Device, compiler, pick, threads
from amauta.hub import find_model
from amauta.metrics import console, plain
from amauta.models import exchange
from amauta.models.transformer import Transformer
from amauta.runs import Run, aside, digest, replace_folder, write_atomically
from amauta.tokenize.chat import render
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.preflight import check_model
from amauta.train.settings import Loop

SAMPLE_TOKENS = 64
NOT_IDENTITY = ("resume", "threads", "keep", "save_every")  # settings that may differ when a run goes on


def open_run(settings: Any, loop: Loop, out: Path) -> tuple[Run, dict[str, Any] | None]:
    """The run at ``out``, and its result when it is finished already.

    Raises RunError when the folder holds a run and ``--resume`` was not given, or one with other settings (named).
    """
    run = Run(out)
    if not run.metrics.exists():  # no step was taken here: at most, a try that failed on its input
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(run.tokens("train"), ignore_errors=True)
        write_atomically(run.config, config.to_toml(settings))
        return run, None
    if not loop.resume:
        raise RunError("train.run-exists", folder=out)
    differ = sorted(_differences(config.read_toml(run.config), config.to_dict(settings)))
    if differ:
        raise RunError("train.other-settings", folder=out, names=", ".join(differ), config=run.config)
    if run.result.exists():
        console.print(say("train.finished", folder=out), markup=False, soft_wrap=True)
        return run, json.loads(run.result.read_text(encoding="utf-8"))
    return run, None


@dataclass(frozen=True)
class Base:
    """A model to go on from, ready to be trained."""

    parent: Path
    tokenizer: Tokenizer
    model: Transformer
    length: int  # tokens of a row
    device: Device
    loop: Loop


def load_base(name: str, length: int | None, loop: Loop) -> Base:
    """The model called ``name`` on the device of the loop, checked, with its tokenizer and the length of a row."""
    device, loop = prepare(loop)
    parent = find_model(name)
    model = exchange.load(parent, device=device.device)
    length = length or model.spec.context
    check_model(model, length, model.spec.context)
    return Base(parent, Tokenizer.load(parent), model, length, device, loop)


def questions(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Questions to sample answers to: each with its ids as the user's first turn."""
    return [(text, render(tokenizer, [{"role": "user", "content": text}], reply=True).ids) for text in texts]


def prepare(loop: Loop) -> tuple[Device, Loop]:
    """The device to work on, and the loop's settings with ``compile`` only where it can be done."""
    threads(loop.threads)
    device = pick(loop.device, loop.dtype)
    if loop.compile and device.device.type == "cpu" and compiler() is None:
        console.print(say("train.no-compiler"), markup=False, soft_wrap=True)
        loop = replace(loop, compile=False)
    if device.device.type == "mps":
        loop = replace(loop, compile=False)
    return device, loop


def stream_and_steps(units: Units, loop: Loop, length: int) -> tuple[PackedBatches, int]:
    """The batches of a run, and how many optimiser steps it takes."""
    stream = PackedBatches(units, rows=loop.rows, length=length, seed=loop.seed)
    rows_of_an_epoch = len(stream.plan(0))
    return stream, loop.steps or max(1, math.ceil(loop.epochs * rows_of_an_epoch / (loop.rows * loop.accumulate)))


def fit_length(row: Row, ids: Sequence[int], slots: int, length: int, policy: str, *, answer: int = 1) -> int | None:
    """How many of a record's tokens are used: all, the first that fit ("cut"), or None to drop it.

    ``slots`` is what the record needs in a row of ``length``; ``answer`` is the least number of tokens that a cut must
    leave. Raises DataError under the policy "error".
    """
    if slots <= length:
        return len(ids)
    if policy == "error":
        raise DataError("train.record-too-long", file=row.file, line=row.line, tokens=slots, length=length)
    left = len(ids) - (slots - length)
    return left if policy == "cut" and left >= answer else None


def sampler(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[tuple[str, Sequence[int]]]
) -> Callable[[], list[tuple[str, str]]] | None:
    """A function that continues the prompts greedily; None without prompts."""
    if not prompts:
        return None

    def sample() -> list[tuple[str, str]]:
        settings = Sampling(max_tokens=SAMPLE_TOKENS, temperature=0.0)
        ids = [list(prompt) for _, prompt in prompts]
        found = generate(model, ids, settings, stop_ids=tokenizer.stops, token_bytes=tokenizer.token_bytes)
        return [(text, one.text) for (text, _), one in zip(prompts, found, strict=True)]

    return sample


def special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """What config.json and generation_config.json say of special tokens: a document or a turn ends a generation."""
    return {"bos_token_id": tokenizer.begin, "eos_token_id": list(tokenizer.stops), "pad_token_id": tokenizer.pad}


def conclude(
    run: Run,
    settings: Any,
    model: Transformer,
    tokenizer: Tokenizer,
    result: dict[str, Any],
    *,
    parent: Path | None,
    files: Sequence[Path],
) -> dict[str, Any]:
    """Write the finished model's folder (weights, tokenizer, card) whole or not at all, then what the run returns.

    The stage that the card names is that of the settings; the result's file is the mark of a finished run.
    """
    made = aside(run.model)
    card = {
        "stage": type(settings).__name__.lower(),
        "made_by": f"amauta {__version__}",
        "torch": torch.__version__,
        "settings": config.to_dict(settings),
        "figures": result,
        **lineage(parent, files),
    }
    try:
        exchange.save(model.eval(), made, special=special_ids(tokenizer))
        tokenizer.save(made, max_length=model.spec.context)
        write_atomically(made / "card.json", json.dumps(plain(card), indent=1, ensure_ascii=False) + "\n")
        replace_folder(made, run.model)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    result = {**result, "model": str(run.model)}
    write_atomically(run.result, json.dumps(plain(result), indent=1) + "\n")
    return result


def lineage(parent: Path | None, files: Sequence[Path]) -> dict[str, Any]:
    """Where a model comes from: its parent by content, its data by content."""
    data = [{"file": file.name, "sha256": digest(file)} for file in files]
    if parent is None:
        return {"parent": None, "data": data}
    return {"parent": {"folder": parent.name, "sha256": digest(parent / exchange.WEIGHTS)}, "data": data}


def _differences(kept: dict[str, Any], given: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for name in kept.keys() | given.keys():
        if name in NOT_IDENTITY:
            continue
        here, there = kept.get(name), given.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            found += _differences(here, there, f"{path}{name}.")
        elif here != there:
            found.append(path + name)
    return found
