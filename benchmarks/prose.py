"""Small models pretrained on real prose, English and Spanish, and fine-tuned on tasks, against the same ones untrained.

An encoder (the manner of RoBERTa) and a decoder (that of Llama, fine-tuned in GPT-1's) learn a few books in one
language; then sentiment, acceptability and similarity, over several seeds, and so do models of the same shape that
begin from nothing. The Spanish tasks are also learnt by the English models after ``--train-only embeddings`` on the
Spanish books. ``python -m benchmarks.pages.finetuning`` makes a page of the result, with the 95 % intervals of the
differences, seed by seed.

Needs AMAUTA_DATA.
"""

import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amauta import config, metrics
from amauta.data.clean import Curate, curate
from amauta.grades import mean_interval
from amauta.hub import find_model
from amauta.models.exchange.folder import write_model
from amauta.models.exchange.opening import spec_of
from amauta.models.transformer import Transformer
from amauta.optim.settings import Optim
from amauta.runs import Run
from amauta.tokenize.special import FOR
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import train_bpe
from amauta.train.finetune.run import finetune
from amauta.train.finetune.settings import Finetune, Way
from amauta.train.pretrain import pretrain
from amauta.train.settings import Loop, Pretrain
from benchmarks._tasks import SKIPPED, Files, acceptability, data, records, sentiment, similarity
from benchmarks.minilm import NEVER

SEEDS, STEPS, ROWS, LENGTH, VOCABULARY = 5, 600, 16, 128, 4096
SHAPE = {"width": 128, "layers": 4, "heads": 4, "context": LENGTH, "dropout": 0.0}
BOOKS, HELDOUT, CHARACTERS = "corpora/gutenberg/{}_*.txt", 0.02, 400
FAMILIES: dict[str, tuple[str, Way]] = {"encoder": ("roberta", "bert"), "decoder": ("llama", "gpt")}
EPOCHS, TASK_ROWS = 3, 32
OPTIM = Optim(optimizer="adamw", lr=5e-4, beta2=0.999, schedule="linear", warmup=0.1, weight_decay=0.01)
SIZES = {"sentiment": (240, 300), "acceptability": (20, 10), "similarity": (1200, 500)}
NOTHING, PRETRAINED, ADAPTED = "nothing", "pretrained", "adapted"


def run() -> dict[str, Any]:
    real, began = data(), time.perf_counter()
    if real is None:
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        books = {language: prose(real, folder, language) for language in ("en", "es")}
        texts = [row["text"] for language in books for row in records(books[language] / "train.jsonl")]
        train_bpe(texts, VOCABULARY, reserve=FOR["roberta"], allow_smaller=True).save(folder / "tokenizer")
        learning = {family: {
            PRETRAINED + " en": pretrained(folder, family, books["en"], "en"),
            PRETRAINED + " es": pretrained(folder, family, books["es"], "es"),
            ADAPTED + " es": pretrained(folder, family, books["es"], "adapted", start="en"),
        } for family in FAMILIES}  # fmt: skip
        tasks = [sentiment(folder, language, *SIZES["sentiment"]) for language in books]
        tasks += [acceptability(real, folder, *SIZES["acceptability"])]
        tasks += [similarity(real, folder, language, *SIZES["similarity"]) for language in books]
        results = [one for family in FAMILIES for task in tasks for one in learned(folder, family, task)]
    return {
        "seeds": SEEDS, "pretraining": learning, "tasks": results,
        "settings": {"shape": SHAPE, "steps": STEPS, "rows": ROWS, "length": LENGTH, "epochs": EPOCHS, "lr": OPTIM.lr},
        "vocabulary": VOCABULARY, "ratios": {}, "share_of_limit": None, "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def prose(real: Path, folder: Path, language: str) -> Path:
    """The books of a language as documents of a row or less, of each book the end held out."""
    out = folder / f"books.{language}"
    curate(Curate(text=(str(real / BOOKS.format(language)),), out=out, heldout=HELDOUT, split="tail",
                  document_characters=CHARACTERS))  # fmt: skip
    return out


def loop(**more: Any) -> Loop:
    return Loop(device="cpu", dtype="f32", compile=False, save_every=NEVER, threads=torch.get_num_threads(), **more)


def pretrained(folder: Path, family: str, books: Path, name: str, *, start: str | None = None) -> dict[str, Any]:
    """A model that learns books, or one that learnt others and whose embeddings learn these; what it is before and
    after, on held-out text."""
    out = folder / f"{family}.{name}"
    values: dict[str, Any] = {
        "text": [str(books / "train.jsonl")], "heldout": [str(books / "heldout.jsonl")], "out": str(out),
        "tokenizer": str(folder / "tokenizer"), "length": LENGTH,
    }  # fmt: skip
    if start is None:
        values |= {"as": FAMILIES[family][0], "size": "nano", "shape": SHAPE}
    else:
        values |= {"start": str(folder / f"{family}.{start}"), "train_only": "embeddings"}
        values |= {"objective": {"objective": "masked"}} if family == "encoder" else {}
    told = pretrain(replace(config.build(Pretrain, values), loop=loop(steps=STEPS, rows=ROWS)))
    looks = [row for row in metrics.read(Run(out).metrics) if "bits_per_byte" in row or "heldout_loss" in row]
    kept = ("bits_per_byte", "heldout_loss", "heldout_accuracy")
    sides = [{name: row[name] for name in kept if name in row} for row in (looks[0], looks[-1])]
    found = {name: told[name] for name in ("parameters", "trained", "steps", "documents", "tokens_per_epoch")}
    print(f"{family} {name}: {sides}", file=sys.stderr, flush=True)
    return {**found, "before": sides[0], "after": sides[1]}


def learned(folder: Path, family: str, task: Files) -> list[dict[str, Any]]:
    """What each start comes to on a task, seed by seed, and how much better than from nothing that is."""
    starts = {NOTHING: None, PRETRAINED: folder / f"{family}.{task.language}"}
    starts |= {ADAPTED: folder / f"{family}.adapted"} if task.language == "es" else {}
    values: dict[str, list[float]] = {name: [] for name in starts}
    for seed in range(SEEDS):
        for name, start in starts.items():
            begin = untrained(folder, family, seed) if start is None else start
            values[name].append(graded(family, task, begin, folder / "run", seed))
    print(f"{family} {task.name} {task.language}: {values}", file=sys.stderr, flush=True)
    return [
        {
            "family": family, "task": task.name, "language": task.language, "source": task.source, **task.sizes,
            "measure": task.measure, "start": name, "values": found, "mean": statistics.fmean(found),
            "deviation": statistics.stdev(found),
            "gain": mean_interval([a - b for a, b in zip(found, values[NOTHING], strict=True)]),
        }
        for name, found in values.items()
    ]  # fmt: skip


def untrained(folder: Path, family: str, seed: int) -> Path:
    """A model of the pretrained one's shape, with first weights."""
    out = folder / "untrained"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    spec = spec_of(find_model(str(folder / f"{family}.en")))
    write_model(Transformer.create(spec, seed), Tokenizer.load(folder / "tokenizer"), out)
    return out


def graded(family: str, task: Files, model: Path, out: Path, seed: int) -> float:
    shutil.rmtree(out, ignore_errors=True)
    told = finetune(Finetune(
        model=str(model), task=(str(task.train),), heldout=(str(task.heldout),), out=out, manner=FAMILIES[family][1],
        kind=task.kind, length=LENGTH, lm_weight=0.0, classifier_dropout=0.1, measures=(task.measure,), optim=OPTIM,
        loop=loop(epochs=EPOCHS, rows=TASK_ROWS, seed=seed, evaluate_every=NEVER),
    ))  # fmt: skip
    return told[task.measure]
