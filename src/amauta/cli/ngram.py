"""Train an n-gram language model, score with it, sample from it, and look inside."""

from typing import Any

from amauta.cli._door import Group
from amauta.models.ngram_settings import GenerateNgram, ScoreNgram, ShowNgram, TrainNgram

app = Group("ngram")


@app.command("train", TrainNgram)
def train(settings: TrainNgram) -> dict[str, Any]:
    """Train an n-gram model on text, and measure it on held-out text.

    The perplexity counts the end of a document and not its beginning.

    Examples:
      amauta ngram train corpus.txt --order 3 --out words
      amauta ngram train 'corpus/*.jsonl' --tokenizer tokenizer --order 4 --heldout heldout.jsonl --out ngram --json
    """
    from amauta.models.ngram import NGram
    from amauta.models.ngram_vocabulary import Vocabulary

    by_line = settings.document == "line" or (settings.document == "auto" and settings.tokenizer is None)
    texts = [text for text, _ in _texts(settings.text, by_line, settings.may_skip)]
    if settings.tokenizer is not None:
        from amauta.tokenize.tokenizer import Tokenizer

        tokenizer: Any = Tokenizer.load(settings.tokenizer)
    else:
        tokenizer = Vocabulary.of(texts, settings.unit, open=not settings.closed)
    model = NGram.train(
        _documents(tokenizer, texts),
        size=tokenizer.size, begin=tokenizer.begin, order=settings.order,
        estimator=settings.estimator, tokenizer=tokenizer,
    )  # fmt: skip
    found: dict[str, Any] = {"documents": len(texts), "tokens": int(model.counts.counts[0].sum())}
    found |= {"order": model.order, "ngrams": model.counts.types, "parameters": sum(model.counts.types)}
    found |= {"discounts": [table.discount for table in model.tables], "deterministic": model.deterministic}
    if settings.heldout:
        found |= _measured(model, _texts(settings.heldout, by_line, settings.may_skip))
    model.save(settings.out)
    return {**found, "out": str(settings.out)}


@app.command("score", ScoreNgram)
def score(settings: ScoreNgram) -> dict[str, Any]:
    """Score one text, or files, with an n-gram model.

    The perplexity counts the end of a document and not its beginning.

    Examples:
      amauta ngram score words --text "a a b a"
      amauta ngram score ngram --file heldout.jsonl --json
    """
    from amauta.base.errors import ConfigError
    from amauta.models.ngram_vocabulary import Vocabulary

    if settings.text is None and not settings.file:
        raise ConfigError("ngram.no-text")
    if settings.text is not None and settings.file:
        raise ConfigError("ngram.both-texts")
    model = _load(settings.model)
    if settings.text is not None:
        return _measured(model, [(settings.text, None)])
    words = isinstance(model.tokenizer, Vocabulary)
    by_line = settings.document == "line" or (settings.document == "auto" and words)
    return _measured(model, _texts(settings.file, by_line, settings.may_skip))


@app.command("generate", GenerateNgram)
def generate(settings: GenerateNgram) -> dict[str, Any]:
    """Sample a text from an n-gram model; the same seed gives the same text.

    Examples:
      amauta ngram generate words --prompt "a a" --max-tokens 20 --seed 7
      amauta ngram generate ngram --temperature 0.7 --json
    """
    import numpy as np

    model = _load(settings.model)
    tokenizer = model.tokenizer
    prefix = [tokenizer.begin, *tokenizer.encode(settings.prompt)]
    new = model.generate(
        prefix, tokens=settings.max_tokens, end=tokenizer.end,
        temperature=settings.temperature, generator=np.random.default_rng(settings.seed),
    )  # fmt: skip
    log_p = model.score([*prefix, *new])[len(prefix) - 1 :]
    ended = new[-1] == tokenizer.end
    return {
        "text": tokenizer.decode([*prefix, *new]),
        "tokens": len(new),
        "ended": ended,
        "logprobs": [float(value) for value in log_p],
        "settings": {"temperature": settings.temperature, "seed": settings.seed, "max_tokens": settings.max_tokens},
    }


def _show_tables(result: dict[str, Any]) -> str:
    """Two tables: the orders, then the likeliest next tokens with their probability by each order."""
    from amauta.base.messages import say

    heads = [say("ngram.order"), say("ngram.history"), say("ngram.count"), say("ngram.successors")]
    orders = [[*heads, say("ngram.discount"), say("ngram.left-below")]]
    for row in result["orders"]:
        history = " ".join(repr(piece) for piece in row["history"])
        figures = f"{row['discount']:.4f}", f"{row['left_below']:.6f}"
        orders.append([str(row["order"]), history, str(row["count"]), str(row["successors"]), *figures])
    depth = len(result["orders"]) + 1
    nexts = [[say("ngram.token"), say("ngram.count"), *(f"p{order}" for order in range(depth))]]
    for row in result["next"]:
        nexts.append([repr(row["token"]), str(row["count"]), *(f"{p:.6f}" for p in row["p"])])
    return "\n\n".join(
        [f"{say('ngram.table-orders')}\n{_columns(orders)}", f"{say('ngram.table-next')}\n{_columns(nexts)}"]
    )


@app.command("show", ShowNgram, show=_show_tables)
def show(settings: ShowNgram) -> dict[str, Any]:
    """Show the counts and the probabilities after a history, order by order.

    p1 is the probability by the unigrams alone, p2 the one by the last word of the history, and so on; p0 is uniform.
    "left below" is the mass that an order gives to the one below it.

    Examples:
      amauta ngram show words --history "a a"
      amauta ngram show ngram --history "The llama" --start --top 5
    """
    import numpy as np

    model = _load(settings.model)
    tokenizer = model.tokenizer
    prefix = [tokenizer.begin] * settings.start + tokenizer.encode(settings.history)
    by_order = model.by_order(prefix)
    histories = model.histories(prefix)
    orders: list[dict[str, Any]] = []
    counted = np.zeros(model.size, np.int64)
    for level, node in enumerate(histories):
        row = {"order": level + 1, "history": tokenizer.pieces(prefix[len(prefix) - level :])}
        counted = model.successor_counts(level, node)
        row |= {"count": int(counted.sum()), "successors": int(np.count_nonzero(counted))}
        left = float(np.exp(model.tables[level].log_gamma[node])) if node >= 0 else 1.0
        orders.append({**row, "discount": model.tables[level].discount, "left_below": left})
    best = np.argsort(-by_order[-1], kind="stable")[: settings.top]
    nexts = [
        {
            "token": tokenizer.pieces([token])[0],
            "count": int(counted[token]),
            "p": [float(np.exp(values[token])) for values in by_order],
        }
        for token in best.tolist()
    ]
    return {"history": tokenizer.pieces(prefix), "orders": orders, "next": nexts, "deterministic": model.deterministic}


def _load(folder: Any) -> Any:
    """The model in a folder, which must be able to read text."""
    from amauta.base.errors import ModelError
    from amauta.models.ngram import NGram

    model = NGram.load(folder)
    if model.tokenizer is None:
        raise ModelError("ngram.only-ids", folder=folder)
    return model


def _texts(patterns: Any, by_line: bool, may_skip: int) -> list[tuple[str, float | None]]:
    """Every document's text with its exact log-probability (nats) where its row carries one."""
    from amauta.base.errors import DataError
    from amauta.base.messages import say
    from amauta.data.read import read
    from amauta.data.records import text_of
    from amauta.metrics import console

    reader = read(patterns, may_skip=may_skip)
    found: list[tuple[str, float | None]] = []
    for row, text in reader.each(text_of):
        if by_line and {".txt", ".md"} & set(row.file.suffixes):
            found += [(line, None) for line in text.splitlines() if line.strip()]
        else:
            exact = row.value.get("logprob")
            if exact is not None and (isinstance(exact, bool) or not isinstance(exact, int | float) or exact > 0):
                raise DataError("ngram.bad-logprob", file=row.file, line=row.line, value=exact)
            found.append((text, exact))
    if reader.skipped:
        console.print(say("ngram.skipped", count=reader.skipped), markup=False)
    return found


def _documents(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [[tokenizer.begin, *ids, tokenizer.end] for ids in tokenizer.encode_many(texts)]


def _measured(model: Any, texts: list[tuple[str, float | None]]) -> dict[str, Any]:
    """What ``bits.measure`` measures, with what the unit of the model cannot say left out and named on stderr."""
    import math

    from amauta.base.messages import say
    from amauta.bits import measure
    from amauta.metrics import console

    documents = _documents(model.tokenizer, [text for text, _ in texts])
    sizes = [len(text.encode()) for text, _ in texts]
    exact = [value for _, value in texts]
    found = measure(model.score_many, list(zip(documents, sizes, exact, strict=True)))
    found["log10_prob"] = -found["bits_per_token"] * found["tokens"] * math.log10(2)
    found["counted"] = say("ngram.what-counts")
    unknown = getattr(model.tokenizer, "unknown", None)
    if unknown is None and getattr(model.tokenizer, "unit", None) != "word":
        return found
    number = 0 if unknown is None else sum(ids.count(unknown) for ids in documents)
    if unknown is not None and number:
        found |= {"unknown_tokens": number, "perplexity_without_unknown": _known_perplexity(model, documents, unknown)}
        reason = say("ngram.unknown-loses-text", count=number)
    elif model.tokenizer.unit == "word":
        reason = say("ngram.words-lose-spaces")
    else:
        return {**found, "unknown_tokens": 0}
    for name in ("bits_per_byte", "entropy_bits_per_byte", "excess", "bytes"):
        found.pop(name, None)
    console.print(say("ngram.exact-text-lost", reason=reason), markup=False)
    return {"unknown_tokens": number, **found}


def _known_perplexity(model: Any, documents: list[list[int]], unknown: int) -> float:
    """Perplexity over the predicted tokens that the vocabulary knows; the others still stand in histories."""
    import numpy as np

    values = np.concatenate([model.score(ids)[np.asarray(ids[1:]) != unknown] for ids in documents])
    return float(np.exp(-values.mean()))


def _columns(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first of them the heads."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
