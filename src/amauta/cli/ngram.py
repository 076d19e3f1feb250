"""Train an n-gram language model, score with it, sample from it, and look inside."""

from typing import Any

from amauta.cli._door import Group
from amauta.models.ngram_settings import GenerateNgram, ScoreNgram, ShowNgram, TrainNgram

app = Group("ngram")


@app.command("train", TrainNgram)
def train(settings: TrainNgram) -> dict[str, Any]:
    """Train an n-gram model on text, and measure it on held-out text.

    The perplexity counts the end of a document and not its beginning. Words are what stands between ASCII white space.

    Examples:
      amauta ngram train corpus.txt --order 3 --out words
      amauta ngram train corpus.txt --order 5 --smoothing modified-kneser-ney --prune 0,0,1 --arpa corpus.arpa
      amauta ngram train 'corpus/*.jsonl' --tokenizer tokenizer --order 4 --heldout heldout.jsonl --out ngram --json
    """
    from amauta.base.messages import say
    from amauta.evaluate.ngram import measured, note_empty, texts_of
    from amauta.metrics import console
    from amauta.train.ngram import check_targets, train_ngram

    check_targets(settings.out, settings.arpa)
    done = train_ngram(settings)
    model, trie = done.model, done.model.trie
    if done.skipped:
        console.print(say("ngram.skipped", count=done.skipped), markup=False)
    if done.marks:
        console.print(say("ngram.marks-skipped", count=done.marks), markup=False)
    note_empty(done.empty, settings.empty)
    if model.fallbacks:
        orders = ", ".join(map(str, model.fallbacks))
        discounts = _spelt(model.tables[model.fallbacks[0] - 1].discounts)
        console.print(say("ngram.fallback", orders=orders, discounts=discounts), markup=False)
    found: dict[str, Any] = {"documents": done.documents, "tokens": done.tokens, "order": model.order}
    found |= {"ngrams": trie.types, "nodes": trie.nodes, "parameters": sum(trie.types)}
    found |= {"bytes_per_ngram": model.bytes / max(1, sum(trie.nodes))}
    found |= {"discounts": [list(table.discounts) for table in model.tables], "fallbacks": model.fallbacks}
    found |= {"deterministic": model.deterministic}
    if settings.heldout:
        by_line = settings.document == "line" or (settings.document == "auto" and settings.tokenizer is None)
        texts = texts_of(settings.heldout, by_line=by_line, empty=settings.empty, may_skip=settings.may_skip)
        found |= measured(model, texts)
    if settings.arpa is not None:
        from amauta.models.ngram.arpa_write import write_arpa

        write_arpa(model, settings.arpa)
        found["arpa"] = str(settings.arpa)
    if settings.out is not None:
        model.save(settings.out)
        found["out"] = str(settings.out)
    return found


@app.command("score", ScoreNgram)
def score(settings: ScoreNgram) -> dict[str, Any]:
    """Score one text, or files, with an n-gram model or an ARPA file.

    The perplexity counts the end of a document and not its beginning. The lines of a text file are documents of their
    own for a model on words or characters.

    Examples:
      amauta ngram score words --text "a a b a"
      amauta ngram score corpus.arpa --file heldout.txt
      amauta ngram score ngram --file heldout.jsonl --json
    """
    from amauta.base.errors import ConfigError
    from amauta.evaluate.ngram import measured, open_ngram, texts_of
    from amauta.models.ngram.vocabulary import Vocabulary

    if settings.text is None and not settings.file:
        raise ConfigError("ngram.no-text")
    if settings.text is not None and settings.file:
        raise ConfigError("ngram.both-texts")
    model = open_ngram(settings.model, settings.tokenizer, settings.unit)
    if settings.text is not None:
        return measured(model, [(settings.text, None)])
    by_line = settings.document == "line" or (settings.document == "auto" and isinstance(model.tokenizer, Vocabulary))
    texts = texts_of(settings.file, by_line=by_line, empty=settings.empty, may_skip=settings.may_skip)
    return measured(model, texts)


@app.command("generate", GenerateNgram)
def generate(settings: GenerateNgram) -> dict[str, Any]:
    """Sample a text from an n-gram model; the same seed gives the same text.

    Examples:
      amauta ngram generate words --prompt "a a" --max-tokens 20 --seed 7
      amauta ngram generate ngram --temperature 0.7 --json
    """
    import numpy as np

    from amauta.evaluate.ngram import open_ngram

    model = open_ngram(settings.model, settings.tokenizer, settings.unit)
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
        figures = _spelt(row["discounts"]), f"{row['left_below']:.6f}"
        orders.append([str(row["order"]), history, _number(row["count"]), str(row["successors"]), *figures])
    depth = len(result["orders"]) + 1
    nexts = [[say("ngram.token"), say("ngram.count"), *(f"p{order}" for order in range(depth))]]
    for row in result["next"]:
        nexts.append([repr(row["token"]), _number(row["count"]), *(f"{p:.6f}" for p in row["p"])])
    return "\n\n".join(
        [f"{say('ngram.table-orders')}\n{_columns(orders)}", f"{say('ngram.table-next')}\n{_columns(nexts)}"]
    )


@app.command("show", ShowNgram, show=_show_tables)
def show(settings: ShowNgram) -> dict[str, Any]:
    """Show the counts and the probabilities after a history, order by order.

    p1 is the probability by the unigrams alone, p2 the one by the last word of the history, and so on; p0 is uniform.
    "left below" is the mass that an order gives to the one below it. An ARPA file has no counts to show.

    Examples:
      amauta ngram show words --history "a a"
      amauta ngram show ngram --history "The llama" --start --top 5
    """
    import numpy as np

    from amauta.evaluate.ngram import open_ngram

    model = open_ngram(settings.model, settings.tokenizer, settings.unit)
    tokenizer = model.tokenizer
    prefix = [tokenizer.begin] * settings.start + list(tokenizer.encode(settings.history))
    by_order = model.by_order(prefix)
    counted: Any = None
    orders: list[dict[str, Any]] = []
    for level, node in enumerate(model.histories(prefix)):
        row: dict[str, Any] = {"order": level + 1, "history": tokenizer.pieces(prefix[len(prefix) - level :])}
        among = model.trie.successors(level, node) if node >= 0 else slice(0, 0)
        counted = None if model.trie.counts is None else model.successor_counts(level, node)
        row["count"] = None if counted is None else int(counted.sum())
        row["successors"] = among.stop - among.start if counted is None else int(np.count_nonzero(counted))
        left = model.tables[level].log_gamma[node] if node >= 0 else model.estimator.log_unseen
        orders.append({**row, "discounts": list(model.tables[level].discounts), "left_below": float(np.exp(left))})
    best = np.argsort(-by_order[-1], kind="stable")[: settings.top]
    nexts = [
        {
            "token": tokenizer.pieces([token])[0],
            "count": None if counted is None else int(counted[token]),
            "p": [float(np.exp(values[token])) for values in by_order],
        }
        for token in best.tolist()
    ]
    return {
        "history": tokenizer.pieces(prefix), "orders": orders, "next": nexts,
        "probabilities": model.estimator.normal, "deterministic": model.deterministic,
    }  # fmt: skip


def _spelt(discounts: Any) -> str:
    return " ".join(f"{value:.4f}" for value in discounts) or "-"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _columns(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first of them the heads."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
