"""Opening a run and closing it: the folder, its settings, its finished model and card."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amauta import __version__, config
from amauta.adapt.settings import Adapters
from amauta.base.errors import DataError, RunError
from amauta.base.messages import say
from amauta.data.batches import Collate, PackedBatches, Units, collate
from amauta.data.records import Row
from amauta.decode.generate import generate
from amauta.decode.settings import Sampling
from amauta.device import Device, compiler, pick, threads
from amauta.hub import Found, find_model
from amauta.metrics import console, plain
from amauta.models.adapters import attached, folder
from amauta.models.adapters.attach import figures
from amauta.models.contract.changed import begin
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import generation_of, needed_tokenizer, read_weights, spec_of, weight_files
from amauta.models.pruned import PRUNED, pruned_by
from amauta.models.transformer import Transformer
from amauta.runs import CARD, Run, digest, write_atomically, write_folder
from amauta.tokenize.chat import render
from amauta.tokenize.either import AnyTokenizer, piece_bytes
from amauta.train.adapted import adapted, unadapted
from amauta.train.aware import keep_aware
from amauta.train.preflight import check_model, check_spec
from amauta.train.settings import Loop

SAMPLE_TOKENS = 64
LONGEST_ROW = 2048  # tokens of a row where nothing is said: contexts of 100,000 and more are common, and records short
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

    parent: Found
    tokenizer: AnyTokenizer
    model: Transformer
    length: int  # tokens of a row
    device: Device
    loop: Loop


def load_base(
    name: str,
    length: int | None,
    loop: Loop,
    adapters: Adapters,
    *,
    shaped: Callable[[Transformer], Transformer] | None = None,
    also: tuple[str, ...] = (),
) -> Base:
    """The model called ``name`` on the device of the loop, checked, with its adapters, its tokenizer and the length of
    a row.

    ``shaped`` gives it another output before it gets adapters, and ``also`` names what is then trained beside them.
    ModelError, before any weights are read, for one that is not trained here, and for one without a chat template.
    """
    device, loop = prepare(loop)
    found = find_model(name)
    check_spec(spec_of(found), name)
    tokenizer = needed_tokenizer(found, chat=True)
    model = read_weights(found, tokenizer, device=device.device)
    model.spec = replace(model.spec, prefix_lm=False)  # from now on it reads one way
    model = unadapted(model, name) if shaped is None else shaped(unadapted(model, name))
    tokenizer = adapted(model, tokenizer, adapters, loop.seed, also=also)
    length = length or min(model.spec.context, LONGEST_ROW)
    check_model(model, length, model.spec.context)
    return Base(found, tokenizer, model, length, device, loop)


def questions(tokenizer: AnyTokenizer, texts: Sequence[str]) -> list[tuple[str, list[int]]]:
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


def stream_and_steps(units: Units, loop: Loop, length: int, collate: Collate = collate) -> tuple[PackedBatches, int]:
    """The batches of a run, and how many optimiser steps it takes."""
    stream = PackedBatches(units, rows=loop.rows, length=length, seed=loop.seed, collate=collate)
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
    model: Transformer,
    tokenizer: AnyTokenizer,
    prompts: Sequence[tuple[str, Sequence[int]]],
    *,
    sources: Sequence[Sequence[int]] | None = None,
) -> Callable[[], list[tuple[str, str]]] | None:
    """A function that continues the prompts greedily; None without prompts. ``sources``: what an encoder reads."""
    if not prompts:
        return None

    def sample() -> list[tuple[str, str]]:
        settings = Sampling(max_tokens=SAMPLE_TOKENS, temperature=0.0)
        ids, pieces = [list(prompt) for _, prompt in prompts], partial(piece_bytes, tokenizer)
        found = generate(model, ids, settings, stop_ids=tokenizer.stops, token_bytes=pieces, sources=sources)
        return [(text, one.text) for (text, _), one in zip(prompts, found, strict=True)]

    return sample


def conclude(
    run: Run,
    settings: Any,
    model: Transformer,
    tokenizer: AnyTokenizer,
    result: dict[str, Any],
    *,
    parent: Found | None,
    files: Sequence[Path],
    generation: Mapping[str, Any] | None = None,
    contract: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write the finished model's folder (weights, tokenizer, card, what it says of its probes) whole or not at all,
    then what the run returns. Of a model with adapters these alone are written.

    The stage that the card names is that of the settings; the result's file is the mark of a finished run.
    ``generation`` is what generation_config.json keeps, the parent's when left out; ``contract`` the card's rows.
    """
    if generation is None:
        generation = generation_of(parent) if parent else None
    result = {**result, **keep_aware(model)}
    if attached(model):
        result = {**result, **figures(model)}
    card = {
        "stage": type(settings).__name__.lower(),
        "made_by": f"amauta {__version__}",
        "torch": torch.__version__,
        "settings": config.to_dict(settings),
        "figures": result,
        **lineage(parent, files),
        **({"contract": list(contract)} if contract else {}),
    }

    def write(made: Path) -> None:
        if attached(model):
            assert parent is not None
            folder.write(model.eval(), tokenizer, parent, made)
        else:
            write_model(model.eval(), tokenizer, made, generation=generation)
        begin(model, tokenizer, made)
        write_atomically(made / CARD, json.dumps(plain(card), indent=1, ensure_ascii=False) + "\n")

    write_folder(run.model, write)
    result = {**result, "model": str(run.model)}
    write_atomically(run.result, json.dumps(plain(result), indent=1) + "\n")
    return result


def lineage(parent: Found | None, files: Sequence[Path]) -> dict[str, Any]:
    """Where a model comes from: its parent by name, source and content of its weights, its data by content; and what
    pruned its weights, if they were."""
    data = [{"file": file.name, "sha256": digest(file)} for file in files]
    if parent is None:
        return {"parent": None, "data": data}
    weights = [{"file": file.name, "sha256": digest(file)} for file in weight_files(parent)]
    found = {"parent": {"name": parent.name, "source": parent.source, "weights": weights}, "data": data}
    return found | ({PRUNED: step} if (step := pruned_by(parent)) else {})


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
