"""N-grams: a 5-gram modified Kneser-Ney model of 10 MB of text, from the text to an ARPA file, against lmplz and nltk;
scoring that text, tokenizing included, against the kenlm library and nltk; memory an n-gram.

The text is the prose under AMAUTA_DATA, or drawn at random where that is not there. lmplz is sought on the PATH or
where AMAUTA_LMPLZ says; a peer that is missing has no ratio. nltk counts a tenth of the text (it only counts while it
is fitted, and computes when asked) and scores a few sentences: its time is proportional to the text, and long.
``share_of_goal``: of the ratio that was to be reached; 1 or more is reached.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from amauta.models.ngram import NGram
from amauta.models.ngram.arpa_write import write_arpa
from amauta.models.ngram_settings import Estimator, TrainNgram
from amauta.train.ngram import train_ngram

ORDER, ROUNDS = 5, 3
GOALS = {"estimate_lmplz": 1 / 3, "estimate_nltk": 20.0, "score_kenlm": 0.3, "score_nltk": 1000.0}
PROSE = ("gutenberg/*.txt", "tinyshakespeare.txt", "tinystories_sample.txt", "wikitext2.valid.txt")
NLTK_SHARE, NLTK_SENTENCES = 10, 5  # of the text for nltk: one in so many bytes, and so many sentences to score


Peer = tuple[Any, float] | None


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_bytes(prose())
        tenth = folder / "tenth.txt"
        raw = text.read_bytes()[: text.stat().st_size // NLTK_SHARE]
        tenth.write_bytes(raw[: raw.rindex(b"\n") + 1])
        model, peer = trained(text), fitted(tenth)
        facts, ratios = estimation(text, tenth, folder, peer)
        more, others = scoring(model, text, folder, peer)
    ratios |= others
    goals = {name: ratios[name] / goal for name, goal in GOALS.items() if name in ratios}
    return {**facts, **more, "ratios": ratios, "share_of_goal": goals, "share_of_limit": None}


def prose() -> bytes:
    data = os.environ.get("AMAUTA_DATA")
    if data:
        files = [file for pattern in PROSE for file in sorted((Path(data) / "corpora").glob(pattern))]
        return b"".join(file.read_bytes() for file in files)
    generator = np.random.default_rng(0)
    words = generator.zipf(1.2, 1_800_000) % 200_000
    lines = np.split(words, np.flatnonzero(generator.random(len(words)) < 0.1))
    return "".join(" ".join(f"w{word}" for word in line) + "\n" for line in lines).encode()


def estimation(text: Path, tenth: Path, folder: Path, peer: Peer) -> tuple[dict[str, Any], dict[str, float]]:
    lmplz = os.environ.get("AMAUTA_LMPLZ") or shutil.which("lmplz")
    seconds: dict[str, list[float]] = {"model": [], "arpa": [], "lmplz": []}
    model: NGram | None = None
    for _ in range(ROUNDS):
        model, took = timed(lambda: trained(text))
        seconds["model"].append(took)
        seconds["arpa"].append(timed(lambda model=model: write_arpa(model, folder / "ours.arpa"))[1])
        if lmplz:
            flags = ["-o", str(ORDER), "-S", "1G", "--skip_symbols", "-T", str(folder / "sort"), "--text", str(text)]
            command = [lmplz, *flags, "--arpa", str(folder / "theirs.arpa")]
            seconds["lmplz"].append(timed(lambda: subprocess.run(command, check=True, capture_output=True))[1])  # noqa: B023
    assert model is not None
    best = {name: min(values) for name, values in seconds.items() if values}
    ratios: dict[str, float] = {}
    if lmplz:
        pairs = zip(seconds["lmplz"], seconds["model"], seconds["arpa"], strict=True)
        ratios["estimate_lmplz"] = sorted(theirs / (ours + arpa) for theirs, ours, arpa in pairs)[ROUNDS // 2]
    if peer is not None:
        best["nltk_tenth"], best["model_tenth"] = peer[1], min(timed(lambda: trained(tenth))[1] for _ in range(ROUNDS))
        ratios["estimate_nltk_tenth"] = best["nltk_tenth"] / best["model_tenth"]
        ratios["estimate_nltk"] = best["nltk_tenth"] * NLTK_SHARE / best["model"]
    return {
        "megabytes": text.stat().st_size / 1e6, "ngrams": model.trie.nodes, "seconds": best,
        "bytes_per_ngram": model.bytes / sum(model.trie.nodes),
    }, ratios  # fmt: skip


def scoring(model: NGram, text: Path, folder: Path, peer: Peer) -> tuple[dict[str, Any], dict[str, float]]:
    vocabulary = model.tokenizer
    lines = text.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    raw = text.read_bytes()
    sums: dict[str, float] = {}

    def ours() -> int:
        stream = vocabulary.stream(raw.replace(b"\0", b" ").replace(b"\n", b"\0"))
        values = model.score_stream(stream)
        events = stream != model.begin
        sums["ours"] = float(values[events].sum()) / np.log(10)
        return int(events.sum())

    _, with_table = timed(ours)
    speed: dict[str, list[float]] = {"ours": [], "kenlm": []}
    theirs = kenlm_model(folder / "ours.arpa")
    for _ in range(ROUNDS):
        tokens, took = timed(ours)
        speed["ours"].append(tokens / took)
        if theirs is not None:
            total, took = timed(lambda: sum(theirs.score(line) for line in lines))
            sums["kenlm"] = total
            speed["kenlm"].append(tokens / took)
    found = {name: max(values) for name, values in speed.items() if values}
    ratios: dict[str, float] = {}
    if theirs is not None:
        ratios["score_kenlm"] = sorted(a / b for a, b in zip(speed["ours"], speed["kenlm"], strict=True))[ROUNDS // 2]
    if peer is not None:
        sentences = [line.split() for line in lines if len(line.split()) > 5][:NLTK_SENTENCES]

        def nltk_scores() -> int:
            rows = [["<s>"] * (ORDER - 1) + words + ["</s>"] for words in sentences]
            ends = [(row, i) for row in rows for i in range(ORDER - 1, len(row))]
            for row, i in ends:
                peer[0].logscore(row[i], row[i - ORDER + 1 : i])
            return len(ends)

        count, took = timed(nltk_scores)
        found["nltk_tenth"] = count / took
        ratios["score_nltk"] = found["ours"] / found["nltk_tenth"]
    return {
        "tokens_per_second": found, "first_pass_seconds": with_table, "log10_prob": sums,
        "bytes_per_ngram_with_table": model.bytes / sum(model.trie.nodes),
    }, ratios  # fmt: skip


def trained(text: Path) -> NGram:
    estimator = Estimator(smoothing="modified-kneser-ney")
    settings = TrainNgram(text=(text,), arpa=text, order=ORDER, marks="skip", estimator=estimator)
    return train_ngram(settings).model


def fitted(text: Path) -> Peer:
    """nltk's Kneser-Ney model of a text, and the seconds that it took; None without nltk."""
    try:
        from nltk.lm import KneserNeyInterpolated
        from nltk.lm.preprocessing import padded_everygram_pipeline
    except ImportError:
        return None
    model = KneserNeyInterpolated(ORDER)

    def fit() -> None:
        lines = [line.split() for line in text.read_text(encoding="utf-8").split("\n")]
        model.fit(*padded_everygram_pipeline(ORDER, lines))

    return model, timed(fit)[1]


def kenlm_model(arpa: Path) -> Any:
    try:
        import kenlm
    except ImportError:
        return None
    return kenlm.Model(str(arpa))


def timed(work: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began
