"""Train a tokenizer and look at what it does."""

from typing import Any

from amauta.cli._door import Group
from amauta.tokenize.settings import EncodeText, ShowTokenizer, TrainTokenizer

app = Group("tokenizer")


@app.command("train", TrainTokenizer)
def train(settings: TrainTokenizer) -> dict[str, Any]:
    """Train a byte-level BPE tokenizer on text, JSON lines or Parquet files.

    The same files give the same tokenizer on every machine.

    Examples:
      amauta tokenizer train --text 'corpus/*.txt' --out tokenizer --size 8192
      amauta tokenizer train --text en.jsonl --text es.jsonl --out tokenizer --split single-digits
      amauta tokenizer train --text 'corpus/*.txt' --out tokenizer --for bert
    """
    from amauta.base.messages import say
    from amauta.data.read import read
    from amauta.data.records import text_of
    from amauta.metrics import console
    from amauta.tokenize.special import FOR
    from amauta.tokenize.train import Sample, train_bpe

    reader = read(settings.text, may_skip=settings.may_skip)
    sample = Sample((text for _, text in reader.each(text_of)), settings.most_bytes)
    tokenizer = train_bpe(
        sample,
        settings.size,
        split=settings.split,
        reserve=tuple(dict.fromkeys((*(FOR[settings.for_] if settings.for_ else ()), *settings.reserve))),
        min_count=settings.min_count,
        allow_smaller=settings.allow_smaller,
        progress=console.is_terminal,
    )
    if sample.cut:
        console.print(
            say("tokenize.sample-cut", texts=sample.texts, bytes=sample.bytes, most=sample.most), markup=False
        )
    tokenizer.save(settings.out, max_length=settings.max_length)
    return {
        "tokenizer": str(settings.out),
        "size": tokenizer.size,
        "merges": tokenizer.size - len(tokenizer.special) - 256,
        "texts": sample.texts,
        "bytes": sample.bytes,
        "cut": sample.cut,
        "skipped": reader.skipped,
        "fingerprint": tokenizer.fingerprint,
    }


def _show_pieces(result: dict[str, Any]) -> str:
    """One token a line, its id before it, in quotes that show its spaces."""
    lines = [f"{id:>8}  {piece!r}" for id, piece in zip(result["ids"], result["pieces"], strict=True)]
    return "\n".join([*lines, *(f"{name}: {result[name]}" for name in ("tokens", "words", "bytes"))])


@app.command("encode", EncodeText, show=_show_pieces)
def encode(settings: EncodeText) -> dict[str, Any]:
    """Show the pieces and the ids of a text.

    The names of special tokens in the text are encoded as the plain text that they are.

    Examples:
      amauta tokenizer encode --tokenizer tokenizer --text "Ellos jugaban basketball"
      amauta tokenizer encode --tokenizer smollm2 --text "¿Qué hora es?" --json
    """
    from amauta.models.exchange.opening import tokenizer_called

    tokenizer = tokenizer_called(settings.tokenizer)
    ids = tokenizer.encode(settings.text)
    return {
        "text": tokenizer.decode(ids),
        "pieces": tokenizer.pieces(ids),
        "ids": ids,
        "tokens": len(ids),
        "words": len(settings.text.split()),
        "bytes": len(settings.text.encode()),
    }


def _show_facts(result: dict[str, Any]) -> str:
    """The facts a line each, then a row for each language."""
    languages: dict[str, dict[str, Any]] = result.get("languages", {})
    lines = [f"{name}: {value}" for name, value in result.items() if name != "languages"]
    if languages:
        heads = ["", *next(iter(languages.values()))]
        rows = [heads, *([language, *map(str, row.values())] for language, row in languages.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


@app.command("show", ShowTokenizer, show=_show_facts)
def show(settings: ShowTokenizer) -> dict[str, Any]:
    """Show what a tokenizer holds and, given files, how many tokens each language costs.

    Tokens per word (fertility), words per token and bytes per token are measured for each value of the field --by, or
    for each file where the records have no such field.

    Examples:
      amauta tokenizer show --tokenizer tokenizer
      amauta tokenizer show --tokenizer tokenizer --text en.txt --text es.txt
    """
    from amauta.data.read import read
    from amauta.data.records import text_of
    from amauta.models.exchange.opening import tokenizer_called
    from amauta.tokenize.either import longest
    from amauta.tokenize.fertility import fertility

    tokenizer = tokenizer_called(settings.tokenizer)
    facts: dict[str, Any] = {
        "size": tokenizer.size,
        "special": {name: id for id, name in sorted(tokenizer.names.items())},
        "max_length": tokenizer.max_length,
        "longest": tokenizer.pieces(longest(tokenizer, 10)),
        "fingerprint": tokenizer.fingerprint,
    }
    if settings.text:
        reader = read(settings.text, may_skip=settings.may_skip)
        texts = ((str(row.value.get(settings.by, row.file.name)), text) for row, text in reader.each(text_of))
        facts["languages"] = fertility(tokenizer, texts)
        facts["skipped"] = reader.skipped
    return facts
