"""Writing a changed model: beside its weights go the probes' record and one more row of its contract.

``card.json`` holds the rows under "contract": every merge, quantisation, pruning, distillation and export, with the
distance from the model before and, where there were steps before, from the record of the beginning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amauta import __version__
from amauta.hub import Found
from amauta.models import exchange
from amauta.models.contract.figures import against_record, figures
from amauta.models.contract.probes import Answer, Record, answers, record
from amauta.models.contract.rows import card_in, judged
from amauta.models.exchange.folder import check_place, write_model
from amauta.models.exchange.opening import generation_of
from amauta.models.transformer import Transformer
from amauta.runs import CARD, write_atomically, write_folder
from amauta.tokenize.either import AnyTokenizer


def write_changed(
    found: Found,
    before: Transformer,
    after: Transformer,
    tokenizer: AnyTokenizer | None,
    folder: Path,
    *,
    step: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    accept: bool = False,
) -> dict[str, Any]:
    """Write ``after``, which a ``step`` with ``settings`` made of the model ``before`` that was ``found``.

    The folder is written whole or not at all, and what is judged is what was read back from it. An older model folder
    there is replaced. Returns {"folder", "bytes", "kl", "largest_difference", "top1_agreement", "perplexity_ratio",
    "tolerance", "labelled"} and the ``facts``, which the card keeps too. ``tolerance`` in place of the step's own.

    Raises ModelError: something else stands at ``folder``; the KL is beyond the tolerance and not to be ``accept``ed
    (nothing is then left there). What is accepted is labelled: its row in the card has "passed" false.
    """
    check_place(folder)
    kept = recorded(found, before, tokenizer)
    old = answers(before, kept.rows)
    row: dict[str, Any] = {}

    def write(made: Path) -> None:
        write_model(after, tokenizer, made, generation=generation_of(found))
        new = answers(exchange.load(made, device=after.device), kept.rows)
        row.update(judged(step, figures(old, new), tolerance, accept=accept))
        write_life(found, made, kept, row | dict(facts or {}), new, settings=settings)

    write_folder(folder, write)
    size = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    told = {name: value for name, value in row.items() if name != "passed"}
    return {"folder": str(folder), "bytes": size, **told, "labelled": not row["passed"], **(facts or {})}


def recorded(found: Found, model: Transformer, tokenizer: AnyTokenizer | None) -> Record:
    """The record that came with the model; one of what it says now where none did."""
    held = Record.read(found.path) if found.kind != "gguf" and found.path.is_dir() else None
    return held or record(model, tokenizer)


def begin(model: Transformer, tokenizer: AnyTokenizer | None, made: Path) -> None:
    """Record what a model says that was just trained or imported, in its folder ``made``."""
    record(model, tokenizer).write(made)


def write_life(
    found: Found, made: Path, kept: Record, row: Mapping[str, Any], new: list[Answer], *, settings: Mapping[str, Any]
) -> None:
    """The record and the card of a changed model, in its folder ``made``."""
    card = card_in(found.path)
    rows = card.get("contract", [])
    since = {"since_recorded": against_record(kept, new)} if rows else {}
    source = {"model": found.name, "source": found.source, "made_by": f"amauta {__version__}"}
    card["contract"] = [*rows, {**row, **since, "of": source, "settings": dict(settings)}]
    kept.write(made)
    write_atomically(made / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
