"""The tasks that fine-tuning is measured on, from AMAUTA_DATA and the small world: records to learn and to answer."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from amauta.data.smallworld.world import SmallWorld
from amauta.data.smallworld.write import write as write_world
from amauta.data.tasks import Kind

Record = dict[str, Any]
DATA = "AMAUTA_DATA"


@dataclass(frozen=True)
class Files:
    """A task: ``train`` and ``heldout`` records, and the measure that it is told by."""

    name: str
    language: str
    train: Path
    heldout: Path
    measure: str
    source: str

    @property
    def kind(self) -> Kind:
        return "regression" if self.measure == "pearson" else "classification"

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": len(records(self.train)), "heldout": len(records(self.heldout))}


SKIPPED = {"skipped": f"{DATA} names no folder of real data", "ratios": {}, "share_of_limit": None}


def data() -> Path | None:
    """The folder of real data, where there is one."""
    given = os.environ.get(DATA, "")
    return Path(given) if given else None


def sentiment(folder: Path, language: str, train: int, heldout: int) -> Files:
    """Judgements of the small world in one language; no real sentiment is among the data."""
    world = folder / "world"
    if not world.exists():
        few = {name: 1 for name in ("documents", "dialogues", "arithmetic", "preferences", "translations")}
        few |= {f"heldout_{name}": 1 for name in few}
        write_world(SmallWorld(out=world, labels=4 * train, heldout_labels=4 * heldout, **few))
    sides: list[list[Record]] = []
    for side, most in (("train", train), ("heldout", heldout)):
        rows = records(world / f"labels.sentiment.{side}.jsonl")
        sides.append(
            [{"text": row["text"], "label": row["label"]} for row in rows if row["language"] == language][:most]
        )
    return _written(folder, "sentiment", language, sides, "accuracy", "small world")


def acceptability(data: Path, folder: Path, train: int, heldout: int) -> Files:
    """BLiMP (Warstadt et al. 2020, arXiv 1912.00582) sentence by sentence: of each of its 67 paradigms so many pairs to
    learn, and the last ones to answer; both sentences of a pair stand on one side."""
    by_paradigm: dict[str, list[Record]] = {}
    for row in records(data / "tasks" / "blimp_100.jsonl"):
        by_paradigm.setdefault(row["uid"], []).append(row)
    sides: list[list[Record]] = []
    for part in (slice(train), slice(-heldout, None)):
        pairs = [pair for pairs in by_paradigm.values() for pair in pairs[part]]
        sides.append([{"text": pair[side], "label": name} for pair in pairs
                      for side, name in (("good", "acceptable"), ("bad", "unacceptable"))])  # fmt: skip
    return _written(folder, "acceptability", "en", sides, "accuracy", "BLiMP")


def similarity(data: Path, folder: Path, language: str, train: int, heldout: int) -> Files:
    """The STS benchmark (Cer et al. 2017, arXiv 1708.00055): how like two sentences are, from 0 to 5."""
    rows = [{"text": row["a"], "text_pair": row["b"], "label": float(row["score"])}
            for row in records(data / "tasks" / f"stsb_{language}_train.jsonl")]  # fmt: skip
    Random(0).shuffle(rows)
    return _written(folder, "similarity", language, [rows[:train], rows[-heldout:]], "pearson", "STS benchmark")


def likeness(data: Path, folder: Path, language: str, train: int, heldout: int) -> Files:
    """Such pairs as classes: alike from 3.5 on, different up to 2.5; those between are left out."""
    rows = [row for row in records(data / "tasks" / f"stsb_{language}_train.jsonl") if not 2.5 < row["score"] < 3.5]
    Random(0).shuffle(rows)
    rows = [{"text": row["a"], "text_pair": row["b"], "label": "alike" if row["score"] > 3 else "different"}
            for row in rows]  # fmt: skip
    return _written(folder, "likeness", language, [rows[:train], rows[-heldout:]], "accuracy", "STS benchmark")


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _written(folder: Path, name: str, language: str, sides: Iterable[list[Record]], measure: str, source: str) -> Files:
    paths: list[Path] = []
    for side, rows in zip(("train", "heldout"), sides, strict=True):
        path = folder / f"{name}.{language}.{side}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        paths.append(path)
    return Files(name, language, paths[0], paths[1], measure, source)
