"""Tasks that pretrained systems learn, through the fine-tuning command, and what an n-gram model does instead."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amauta.adapt.settings import Adapters
from amauta.data.read import read
from amauta.metrics import read as read_lines
from amauta.models.ngram import NGram
from amauta.models.ngram_settings import Estimator
from amauta.optim.settings import Optim
from amauta.runs import Run
from amauta.tokenize.tokenizer import Tokenizer
from amauta.train.finetune.run import finetune
from amauta.train.finetune.settings import Finetune, Way
from amauta.train.settings import Loop
from amauta.yardstick.ground import Ground
from amauta.yardstick.settings import Yardstick
from amauta.yardstick.systems import System
from amauta.yardstick.training import NEVER

ROWS = 8
LOOKS = 8  # evaluations of a fine-tuning run that is watched
# One that writes its answer must first learn which texts are answers, and takes a larger rate.
OPTIM: dict[Way, Optim] = {
    manner: Optim(optimizer="adamw", lr=lr, schedule="linear", warmup=0.1, weight_decay=0.01)
    for manner, lr in (("bert", 1e-3), ("gpt", 1e-3), ("t5", 3e-3))
}
NGRAM_ORDER = 3  # of a class's own model: a task has few records
INPUT = "{task}: {{text}}{pair} target:"  # as Raffel et al. 2020 lay out an example for a language model (3.2.1)


def learned(
    system: System,
    model: Path | str,
    task: str,
    seed: int,
    settings: Yardstick,
    ground: Ground,
    folder: Path,
    *,
    watched: bool = False,
    adapters: Adapters | None = None,
    lr: float | None = None,
) -> dict[str, Any]:
    """What a model is after learning a task: ``accuracy`` and ``loss`` on its held-out records, and with ``watched``
    the ``curve`` of both, [step, loss, accuracy].

    An encoder learns in the manner of BERT, a decoder in that of GPT-1 without its auxiliary loss (so that the loss is
    the task's alone), an encoder-decoder and the systems of the T5 table in that of T5; there the likeliest of the
    classes' names is the answer, which needs no lucky spelling from models so small. ``adapters`` learn in place of the
    model, at the rate ``lr``; how many numbers learn is ``trained``.
    """
    train, heldout = (str(ground.task(task, side)) for side in ("train", "heldout"))
    records = len(ground.texts(Path(train)))
    steps = max(1, round(settings.epochs * records / ROWS))
    t5 = system.manner == "t5"
    optim = OPTIM[system.manner] if lr is None else replace(OPTIM[system.manner], lr=lr)
    run = Run(folder / f"task.{task}")
    result = finetune(Finetune(
        model=str(model), task=(train,), heldout=(heldout,), out=run.folder, manner=system.manner,
        input=_input(task, Path(train)) if t5 else None, rank=t5, see_prompt=system.see_prompt, lm_weight=0.0,
        length=settings.length, measures=("accuracy",), optim=optim, adapters=adapters or Adapters(),
        loop=Loop(steps=steps, rows=ROWS, evaluate_every=max(1, steps // LOOKS) if watched else 0, save_every=NEVER,
                  seed=seed, device=settings.device, dtype=settings.dtype, threads=settings.threads, compile=False,
                  resume=True),
    ))  # fmt: skip
    looks = [row for row in read_lines(run.metrics) if "heldout_loss" in row]
    found = {"accuracy": result["accuracy"], "loss": result["heldout_loss"], "steps": steps}
    found |= {name: result[name] for name in ("trained", "tokens_per_second")}
    if watched:
        found["curve"] = [[row["step"], row["heldout_loss"], row["accuracy"]] for row in looks]
    shutil.rmtree(run.folder)
    return found


def counted(task: str, ground: Ground) -> float:
    """Accuracy of n-gram models, one a class: the class under whose model a record is likeliest, times the class's
    share of the records learnt (Bayes' rule). The texts of a pair are joined by a space."""
    tokenizer = ground.opened()
    learnt, asked = (_records(ground.task(task, side)) for side in ("train", "heldout"))
    models = {label: _model(tokenizer, [text for text, own in learnt if own == label]) for _, label in learnt}
    shares = Counter(label for _, label in learnt)
    rows = [tokenizer.document(text) for text, _ in asked]
    names = sorted(models, key=str)
    scores = np.stack([models[name].score_many(rows) + np.log(shares[name] / len(learnt)) for name in names])
    given = [names[n] for n in scores.argmax(0)]
    return sum(label == own for (_, own), label in zip(asked, given, strict=True)) / len(asked)


def most_frequent(task: str, ground: Ground) -> float:
    """Accuracy of always giving the class that is learnt most often."""
    learnt, asked = (_records(ground.task(task, side)) for side in ("train", "heldout"))
    usual = Counter(label for _, label in learnt).most_common(1)[0][0]
    return sum(label == usual for _, label in asked) / len(asked)


def _model(tokenizer: Tokenizer, texts: list[str]) -> NGram:
    return NGram.train(
        [tokenizer.document(text) for text in texts], size=tokenizer.size, begin=tokenizer.begin, order=NGRAM_ORDER,
        estimator=Estimator(smoothing="modified-kneser-ney"), tokenizer=tokenizer,
    )  # fmt: skip


def _records(path: Path) -> list[tuple[str, Any]]:
    rows = [row.value for _, row in read([str(path)]).each(lambda row: row)]
    return [(f"{row['text']} {row.get('text_pair', '')}".strip(), row["label"]) for row in rows]


def _input(task: str, path: Path) -> str:
    paired = any("text_pair" in row.value for _, row in read([str(path)]).each(lambda row: row))
    return INPUT.format(task=task, pair=" {text_pair}" if paired else "")
