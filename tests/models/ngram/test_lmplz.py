"""Side by side with lmplz itself, on real text: the same counts, the same probabilities.

Needs lmplz (on the PATH, or where AMAUTA_LMPLZ says) and the folder AMAUTA_DATA.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from amauta.models.ngram.arpa_write import write_arpa
from amauta.models.ngram_settings import Estimator, TrainNgram
from amauta.train.ngram import train_ngram

LMPLZ = os.environ.get("AMAUTA_LMPLZ") or shutil.which("lmplz")
CORPORA = Path(os.environ.get("AMAUTA_DATA", "")) / "corpora"

pytestmark = [
    pytest.mark.skipif(not LMPLZ, reason="lmplz is not on the PATH, and AMAUTA_LMPLZ does not say where it is"),
    pytest.mark.skipif("AMAUTA_DATA" not in os.environ, reason="AMAUTA_DATA names no folder"),
]


def entries(file: Path) -> dict[str, list[float]]:
    lines = file.read_text(encoding="utf-8").split("\n")
    fields = [line.split("\t") for line in lines if "\t" in line]
    return {row[1]: [float(row[0]), *map(float, row[2:])] for row in fields}


@pytest.mark.parametrize(
    ("name", "order", "prune"),
    [
        ("tinystories_sample.txt", 5, (0,)),
        ("gutenberg/es_marianela.txt", 3, (0, 0, 1)),
        ("gutenberg/es_cuentos_quiroga.txt", 4, (0, 1, 1, 2)),
        ("wikitext2.valid.txt", 2, (0,)),
    ],
)
def test_counts_and_probabilities_are_those_of_lmplz(tmp_path: Path, name: str, order: int, prune) -> None:
    assert LMPLZ is not None
    text, theirs, ours = CORPORA / name, tmp_path / "theirs.arpa", tmp_path / "ours.arpa"
    flags = ["-o", str(order), "-S", "200M", "--skip_symbols", "--text", str(text), "--arpa", str(theirs), "--prune"]
    done = subprocess.run([LMPLZ, *flags, *map(str, prune)], capture_output=True, text=True, check=True)
    estimator = Estimator(smoothing="modified-kneser-ney", prune=prune)
    settings = TrainNgram(text=(text,), arpa=ours, order=order, marks="skip", estimator=estimator)
    model = train_ngram(settings).model
    write_arpa(model, ours)
    assert model.fallbacks == []
    if len(set(prune)) == 1:  # what it prints are the counts before pruning
        printed = [int(line.split()[1].split("/")[0]) for line in done.stderr.split("\n") if " D1=" in line]
        assert model.trie.nodes == printed
    mine, other = entries(ours), entries(theirs)
    assert mine.keys() == other.keys()
    for gram, numbers in other.items():
        assert mine[gram] == pytest.approx(numbers, abs=1e-5), gram
