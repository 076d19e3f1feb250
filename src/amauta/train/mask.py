"""What supervised fine-tuning would learn, before anything is learnt: a page that colours every token of the first
records by its role and by whether it carries a loss, and the rows in which records are packed.

It is made of the very units that the run would train on, so that what the page shows is what the loop sees.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amauta.base.messages import language as spoken
from amauta.data.batches import Listed, PackedBatches
from amauta.hub import find_model
from amauta.models.exchange.opening import needed_tokenizer, spec_of
from amauta.pages import Speech, template
from amauta.runs import write_atomically
from amauta.tokenize.either import AnyTokenizer
from amauta.train.adapted import grown, left
from amauta.train.dialogues import Prepared, Seen, prepare_dialogues
from amauta.train.preflight import check_spec, check_units
from amauta.train.settings import Sft
from amauta.train.start import LONGEST_ROW

PAGE = "mask.html"
RECORDS, ROWS = 40, 12  # that are shown
ROLES = ("system", "user", "assistant", "tool", "")  # the last one: what belongs to no message
MARKS = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍"}  # white space that would not be seen


def show_mask(settings: Sft, language: str | None = None) -> dict[str, Any]:
    """Write the page ``out``/mask.html and return its figures; no weights are read and nothing is trained.

    Raises what the run itself would raise before its first step: DataError, ModelError.
    """
    found = find_model(settings.model)
    spec = spec_of(found)
    check_spec(spec, settings.model)
    tokenizer = grown(needed_tokenizer(found, chat=True), settings.adapters)
    length = settings.length or min(left(spec, settings.adapters), LONGEST_ROW)
    made = prepare_dialogues(
        settings.data, tokenizer, length=length, too_long=settings.too_long, may_skip=settings.may_skip,
        loss_on=settings.loss_on, show=RECORDS,
    )  # fmt: skip
    vocabulary, where = max(spec.vocabulary, tokenizer.size), ", ".join(settings.data)
    check_units(made.units, vocabulary=vocabulary, ends=tokenizer.stops, where=where)
    stream = PackedBatches(Listed(made.units), rows=settings.loop.rows, length=length, seed=settings.loop.seed)
    result = figures(made, tokenizer, stream)
    write_atomically(settings.out / PAGE, page(made, tokenizer, stream, settings, result, language or spoken()))
    return {"page": str(settings.out / PAGE), **result}


def figures(made: Prepared, tokenizer: AnyTokenizer, stream: PackedBatches) -> dict[str, Any]:
    """Counts: of records, of tokens by role, of tokens that carry a loss (``ends``: those that end an answer), and of
    the packed rows of an epoch, with the share of their slots that is used."""
    wanted = [piece.ids[1:][piece.loss] for unit in made.units for piece in unit]
    rows = len(stream.plan(0))
    return {
        **made.counts(),
        "tokens": made.roles.total(),
        "supervised": sum(map(len, wanted)),
        "ends": sum(int(np.isin(ids, list(tokenizer.stops)).sum()) for ids in wanted),
        "roles": {
            role or "template": {"tokens": made.roles[role, False] + made.roles[role, True],
                                 "supervised": made.roles[role, True]}
            for role in ROLES if made.roles[role, False] or made.roles[role, True]
        },
        "rows": rows,
        "filled": int(stream.units.lengths.sum()) / (rows * stream.length),
    }  # fmt: skip


def page(
    made: Prepared, tokenizer: AnyTokenizer, stream: PackedBatches, settings: Sft, counts: dict[str, Any], language: str
) -> str:
    """The page in "en" or "es": one file that asks for nothing from outside and needs no script."""
    say = Speech(language)
    number = lambda value: say.number(value, 0)  # noqa: E731
    names = {"system": say("sft.system"), "user": say("sft.user"), "assistant": say("sft.assistant"),
             "tool": say("sft.tool"), "template": say("sft.template")}  # fmt: skip
    facts = [
        (say("sft.records"), number(counts["records"])), (say("sft.tokens"), number(counts["tokens"])),
        (say("sft.supervised"), f"{number(counts['supervised'])} ({say.share(_share(counts))})"),
        (say("sft.ends"), number(counts["ends"])), (say("sft.left-out"), number(counts["dropped"])),
        (say("sft.cut"), number(counts["cut"] + counts.get("split", 0))),
        (say("sft.rows"), number(counts["rows"])), (say("sft.filled"), say.share(counts["filled"])),
    ]  # fmt: skip
    words = {
        "title": say("sft.title"), "of": say("sft.of", model=settings.model, data=", ".join(settings.data)),
        "legend": say("sft.legend"), "role": say("sft.role"), "tokens": say("sft.tokens"),
        "loss": say("sft.supervised"), "reads": say("sft.reads"), "carries": say("sft.carries"), "off": say("sft.off"),
        "records": say("sft.first-records", count=len(made.seen), all=number(counts["records"])),
        "packing": say("sft.packing"), "packed": say("sft.packed", length=stream.length), "free": say("sft.free"),
    }  # fmt: skip
    return template("amauta.train", PAGE).render(
        language=language, words=words, facts=facts,
        roles=[(role, names[role], number(one["tokens"]), number(one["supervised"]))
               for role, one in counts["roles"].items()],
        records=[_record(seen, tokenizer, names, say) for seen in made.seen],
        rows=[_row(row, made, stream) for row in stream.plan(0)[:ROWS]],
    )  # fmt: skip


def _share(counts: dict[str, Any]) -> float:
    return counts["supervised"] / counts["tokens"]


def _record(seen: Seen, tokenizer: AnyTokenizer, names: dict[str, str], say: Speech) -> dict[str, Any]:
    """A record as stretches of one role and one flag: (role, whether they carry a loss, whether they are left out,
    [(text, tip) of each token])."""
    made: list[tuple[str, bool, bool, list[tuple[str, str]]]] = []
    laid = seen.rendered
    for t, piece in enumerate(tokenizer.pieces(laid.ids)):
        role, off = laid.roles[t] or "template", t >= seen.kept
        loss = laid.loss[t] and not off
        if not made or made[-1][:3] != (role, loss, off):
            made.append((role, loss, off, []))
        state = say("sft.off") if off else say("sft.carries") if loss else say("sft.reads")
        made[-1][3].append((_visible(piece), f"{t} · {laid.ids[t]} · {names[role]} · {state}"))
    learnt = sum(laid.loss[: seen.kept])
    note = say("sft.record", tokens=len(laid.ids), learnt=learnt) if seen.kept else say("sft.record-left-out")
    return {"place": seen.place, "note": note, "parts": made}


def _row(row: Sequence[int], made: Prepared, stream: PackedBatches) -> dict[str, Any]:
    """A packed row: each record's place and share of the row's slots, and the share that is free."""
    sizes = [int(stream.units.lengths[unit]) for unit in row]
    parts = [(made.places[unit], size, f"{100 * size / stream.length:.3f}")
             for unit, size in zip(row, sizes, strict=True)]  # fmt: skip
    return {"parts": parts, "free": stream.length - sum(sizes)}


def _visible(piece: str) -> str:
    return "".join(MARKS.get(char, char) for char in piece)
