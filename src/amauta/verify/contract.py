"""A model against the record of its beginning: does it still say, here and now, what it said?"""

from typing import Any

import torch
from torch import Tensor

from amauta.base.errors import ModelError
from amauta.base.messages import say
from amauta.decode.feed import feed_for
from amauta.device import pick
from amauta.hub import find_model
from amauta.models.contract.figures import Figures, against_record
from amauta.models.contract.probes import Answer, Record, answers
from amauta.models.contract.rows import card_in
from amauta.models.exchange.opening import open_model
from amauta.models.transformer import Transformer
from amauta.verify.settings import Contract


def contract(settings: Contract) -> dict[str, Any]:
    """{"model", "places", "one_pass", "token_by_token", "tolerance", "steps", "passed"}: how far the model is from its
    record by both ways of computing (``contract.figures``; the second of decoders only), and its steps since.

    Raises ModelError: no model, no record.
    """
    found = find_model(settings.model)
    record = Record.read(found.path) if found.path.is_dir() else None
    if record is None:
        raise ModelError("contract.no-record", name=found.name)
    device = pick(settings.device, "f32" if settings.dtype == "auto" else settings.dtype)
    model, _ = open_model(found, device=device.device, dtype=device.autocast or torch.float32)
    said = answers(model, record.rows)
    ways = {"one_pass": against_record(record, said)}
    if model.writes and model.encoder is None:
        ways["token_by_token"] = against_record(record, [_stepped(model, one, row) for one, row in
                                                         zip(said, record.rows, strict=True)])  # fmt: skip
    return {
        "model": found.name,
        "places": len(record.given),
        **ways,
        "tolerance": settings.tolerance,
        "steps": [row["step"] for row in card_in(found.path).get("contract", [])],
        "passed": all(figures["kl"] <= settings.tolerance for figures in ways.values()),
    }


@torch.inference_mode()
def _stepped(model: Transformer, said: Answer, row: Tensor) -> Answer:
    """The answer to one row, its tokens read one by one as in generation."""
    feed = feed_for(model, 1, len(row))
    ids = row.tolist()
    logits = [feed.start([ids[:1]]), *(feed.next([0], [id]) for id in ids[1:])]
    return Answer(torch.cat(logits).float().log_softmax(-1).cpu(), said.wanted)


def text(result: dict[str, Any]) -> str:
    """Lines for people."""
    ways = {"one_pass": say("contract.one-pass"), "token_by_token": say("contract.token-by-token")}
    rows: dict[str, Figures] = {words: result[name] for name, words in ways.items() if name in result}
    lines = [
        say(
            "contract.now", way=words, kl=row["kl"], largest=row["largest_difference"],
            same=row["top1_agreement"], ratio=row["perplexity_ratio"],
        )
        for words, row in rows.items()
    ]  # fmt: skip
    kept = say("contract.kept" if result["passed"] else "contract.not-kept", tolerance=result["tolerance"])
    steps = ", ".join(result["steps"]) or "-"
    return "\n".join([say("contract.places", places=result["places"], steps=steps), *lines, kept])
