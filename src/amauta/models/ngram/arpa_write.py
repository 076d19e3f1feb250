r"""An n-gram model as an ARPA file, which kenlm, SRILM and others read.

    \data\
    ngram 1=<number of 1-grams>          one line an order; then, for each order:
    \1-grams:
    <log10 p> TAB <words> [TAB <log10 gamma>]
    \end\

Numbers are the shortest that give the same f32, as lmplz writes them: read again, a score differs by less than 1e-6,
and a distribution sums to 1 within 1e-6. ``<s>``, which is never predicted, has log10 p 0; log10 0 is -99. ``<unk>``
is there if the model has one; the words of a model with a tokenizer are its tokens as tokenizer.json spells them.
"""

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from amauta.base.errors import ModelError
from amauta.models.ngram.framed import arpa_names
from amauta.models.ngram.model import NGram
from amauta.models.ngram.trie import path
from amauta.runs import write_stream

LEAST = -99.0  # log10 of 0
LINES = 1 << 16  # lines made at a time
THREADS = 2  # Arrow's functions run beside each other, and beside the writing


def write_arpa(model: NGram, file: Path) -> None:
    """Write the model, whole or not at all; packed where the name ends in ``.gz``.

    Raises ModelError for a model that the format cannot hold: order 0, and add-k, which falls back to the uniform
    distribution at every order.
    """
    if not model.order or (not model.estimator.chain and model.order > 1) or not model.estimator.normal:
        raise ModelError("ngram.not-for-arpa", smoothing=model.estimator.smoothing, order=model.order)
    names = arpa_names(model.tokenizer, model.size, model.begin)

    def write(stream: IO[bytes]) -> None:
        packed = gzip.GzipFile("", "wb", 6, stream, mtime=0) if file.suffix == ".gz" else None
        into = cast(IO[bytes], packed or stream)
        header = "".join(f"ngram {level + 1}={nodes}\n" for level, nodes in enumerate(model.trie.nodes))
        into.write(f"\\data\\\n{header}".encode())
        with ThreadPoolExecutor(THREADS) as pool:
            for level in range(model.order):
                into.write(f"\n\\{level + 1}-grams:\n".encode())
                for lines in _ahead(pool, model, names, level):
                    into.write(lines)
        into.write(b"\n\\end\\\n")
        if packed:
            packed.close()

    write_stream(file, write)


def _ahead(pool: ThreadPoolExecutor, model: NGram, names: list[str], level: int) -> Iterator[Any]:
    """The lines of a level, block by block, a few blocks made before they are asked for."""
    import pyarrow

    words = pyarrow.array(names)
    nodes = len(model.trie.tokens[level])
    coming: list[Any] = []
    for start in range(0, nodes, LINES):
        coming.append(pool.submit(_lines, model, words, level, slice(start, min(start + LINES, nodes))))
        if len(coming) > 2 * THREADS:
            yield coming.pop(0).result()
    yield from (one.result() for one in coming)


def _lines(model: NGram, words: Any, level: int, nodes: slice) -> memoryview:
    """The lines of a run of nodes."""
    import pyarrow
    import pyarrow.compute as compute

    log_p = model.tables[level].log_p[nodes]
    if level == 0 and nodes.start <= model.begin < nodes.stop:
        log_p = log_p.copy()
        log_p[model.begin - nodes.start] = 0.0
    columns = [words.take(pyarrow.array(ids)) for ids in path(model.trie, level, nodes)]
    grams = compute.binary_join_element_wise(*columns, " ") if level else columns[0]
    parts = [_numbers(np.minimum(log_p, 0.0)), grams]  # rounding may leave a probability a hair above 1
    if level + 1 < model.order:
        parts.append(_numbers(model.tables[level + 1].log_gamma[nodes]))
    parts[-1] = compute.binary_join_element_wise(parts[-1], "", "\n")
    made = compute.binary_join_element_wise(*parts, "\t")
    offsets = np.frombuffer(made.buffers()[1], np.int32)[made.offset : made.offset + len(made) + 1]
    return memoryview(made.buffers()[2])[offsets[0] : offsets[-1]]


def _numbers(nats: Any) -> Any:
    """log10 values as text."""
    import pyarrow

    values = np.maximum(nats / np.log(10), LEAST).astype(np.float32) + np.float32(0)  # + 0: no "-0"
    return pyarrow.array(values).cast(pyarrow.string())
