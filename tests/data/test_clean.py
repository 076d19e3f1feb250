"""Curation: each step by hand, cutting and splitting by their properties, and the report by its arithmetic."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amauta.base.errors import DataError
from amauta.config import build
from amauta.data import clean
from amauta.data.clean import Curate, curate, cut, identity, is_held_out, steps

STEPS = {
    "lines": ("a\r\nb\rc\x0cd\u2028e\n", "a\nb\nc\nd\ne\n"),
    "controls": ("\ufeffa\x00\tb\x7f\x9b\nc\u200d", "a\tb\nc\u200d"),
    "nfc": ("an\u0303o", "año"),
    "trailing-spaces": ("  a \t\nb\u00a0\n \nc", "  a\nb\n\nc"),
    "blank-lines": ("\n\n  a\n\n\n\nb\n\nc\n", "  a\n\nb\n\nc"),
    "empty": ("", None),
    "short": ("123", None),
}


def wanted(tmp_path: Path, **more: Any) -> Curate:
    return build(Curate, {"text": [str(tmp_path / "in*")], "out": tmp_path / "out", "heldout": 0} | more)


def put(path: Path, *records: dict[str, Any] | str) -> None:
    rows = ({"text": record} if isinstance(record, str) else record for record in records)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def out(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", STEPS)
def test_each_step(tmp_path: Path, name: str) -> None:
    before, after = STEPS[name]
    doing = steps(wanted(tmp_path, minimum_characters=4))
    assert list(doing) == list(STEPS)
    assert doing[name](before) == after
    assert doing["short"]("1234") == "1234" and doing["empty"]("a") == "a"


@given(st.text(alphabet=st.sampled_from("ab \t\r\n\x00\u0301\ufeffñ\u2029.e\u00a0"), max_size=40))
@settings(max_examples=300, deadline=None)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    doing = steps(Curate(text=("x",), out=Path("x")))

    def cleaned(text: str | None) -> str | None:
        for step in doing.values():
            text = None if text is None else step(text)
        return text

    once = cleaned(text)
    assert cleaned(once) == once
    if once is not None:
        assert unicodedata.is_normalized("NFC", once)
        assert not any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in once)


@given(st.text(alphabet=st.sampled_from("abc .\n\n!?\"'á "), max_size=200), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_pieces_fit_and_joined_give_the_text(text: str, limit: int) -> None:
    pieces = cut(text, limit)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces) or text == ""
    assert all(len(piece) >= (limit + 1) // 2 for piece in pieces[:-1])


def test_cuts_prefer_paragraphs_then_sentences_then_spaces() -> None:
    assert cut("Uno dos. Tres.\n\nCuatro cinco seis siete.", 24) == ["Uno dos. Tres.\n\n", "Cuatro cinco seis siete."]
    assert cut("Uno dos tres.\n\nCuatro. Cinco seis", 26) == ["Uno dos tres.\n\n", "Cuatro. Cinco seis"]
    assert cut("Uno dos tres. Cuatro cinco seis", 24) == ["Uno dos tres. ", "Cuatro cinco seis"]
    assert cut('Dijo: "Sí, claro." Luego se fue', 24) == ['Dijo: "Sí, claro." ', "Luego se fue"]
    assert cut("uno dos tres cuatro", 14) == ["uno dos tres ", "cuatro"]
    assert cut("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert cut("a\n\nbcdefghijkl mn", 12) == ["a\n\nbcdefghij", "kl mn"]  # the blank line is too early to be used
    assert cut("corto", 5) == ["corto"] and cut("", 5) == [""]


def test_the_report_counts_every_rule(tmp_path: Path) -> None:
    put(
        tmp_path / "in_a.jsonl",
        "Uno.",
        "  ",
        "Uno.",
        "uno.\u00a0",
        "Dos\r\n\r\n\r\nmás",
        "x",
        {"text": "Tres.", "id": 5},
    )
    put(tmp_path / "in_b.jsonl", "an\u0303o", "Uno.", "da\ufffdo y da\ufffdado")
    report = curate(wanted(tmp_path, minimum_characters=3))
    assert report["dropped"] == {"empty": 1, "short": 1, "duplicate": 3}
    assert report["changed"] == {"lines": 1, "controls": 0, "nfc": 1, "trailing-spaces": 2, "blank-lines": 1}
    kept = ["Uno.", "Dos\n\nmás", "Tres.", "año", "da\ufffdo y da\ufffdado"]
    assert [record["text"] for record in out(tmp_path, "train")] == kept
    assert out(tmp_path, "train")[2] == {"text": "Tres.", "id": 5}
    assert out(tmp_path, "heldout") == []
    characters, size = sum(map(len, kept)), sum(len(text.encode()) for text in kept)
    assert report["train"] == {"documents": 5, "records": 5, "characters": characters, "bytes": size}
    assert report["documents"] == 10 == report["train"]["documents"] + sum(report["dropped"].values())
    assert report["files"][str(tmp_path / "in_a.jsonl")] == {
        "documents": 7, "bytes": 4 + 2 + 4 + 6 + 13 + 1 + 5, "kept": 3, "kept_bytes": 4 + 9 + 5,
    }  # fmt: skip
    assert report["files"][str(tmp_path / "in_b.jsonl")]["kept"] == 2
    assert report["replacement_characters"] == 2 and report["replacement_share"] == pytest.approx(2 / characters)
    assert any("U+FFFD" in note for note in report["notes"])
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report


def test_duplicates_are_kept_when_told(tmp_path: Path) -> None:
    put(tmp_path / "in.jsonl", "Uno.", "Uno.")
    assert curate(wanted(tmp_path, duplicates="keep"))["train"]["documents"] == 2


def test_a_changed_text_loses_its_probability(tmp_path: Path) -> None:
    long = "Una frase. " * 20
    put(
        tmp_path / "in.jsonl", {"text": "Igual.", "logprob": -3.5, "language": "es"},
        {"text": "Cambiada. ", "logprob": -4.0, "language": "es"}, {"text": long.strip(), "logprob": -9.0, "id": "n"},
        {"text": "Cambiada sin nada. "},
    )  # fmt: skip
    report = curate(wanted(tmp_path, document_characters=100))
    records = out(tmp_path, "train")
    assert records[0] == {"text": "Igual.", "logprob": -3.5, "language": "es"}
    assert records[1] == {"text": "Cambiada.", "language": "es"}
    pieces = records[2:-1]
    assert "".join(record.pop("text") for record in pieces) == long.strip()
    assert pieces == [{"id": "n", "piece": 0}, {"id": "n", "piece": 1}, {"id": "n", "piece": 2}]
    assert report["logprob_lost"] == 2 and report["cut"] == 1
    assert (report["train"]["documents"], report["train"]["records"]) == (4, 6)
    assert any("2" in note and "logprob" in note for note in report["notes"])


def test_the_split_belongs_to_seed_and_text(tmp_path: Path) -> None:
    texts = [f"Documento número {n}." for n in range(2000)]
    put(tmp_path / "in_a.jsonl", *texts[:1000])
    report = curate(wanted(tmp_path, heldout=0.1))
    first = {record["text"] for record in out(tmp_path, "heldout")}
    assert report["heldout"]["documents"] == len(first)
    assert abs(len(first) - 100) < 4 * (1000 * 0.1 * 0.9) ** 0.5  # four standard deviations of a fair draw
    assert first == {text for text in texts[:1000] if is_held_out(text, 0.1, 0)}
    assert first.isdisjoint(record["text"] for record in out(tmp_path, "train"))
    put(tmp_path / "in_0.jsonl", *texts[1000:])
    curate(wanted(tmp_path, heldout=0.1))
    again = {record["text"] for record in out(tmp_path, "heldout")}
    assert again & set(texts[:1000]) == first and len(again) > len(first)
    curate(wanted(tmp_path, heldout=0.1, seed=1))
    assert {record["text"] for record in out(tmp_path, "heldout")} != again
    small = {text for text in texts if is_held_out(text, 0.05, 0)}
    assert small < again  # a larger share holds out the same and more


def test_equal_texts_fall_on_one_side() -> None:
    assert identity("El  Cóndor\n pasa") == identity("el co\u0301ndor pasa") != identity("el condor pasa")
    for n in range(50):
        assert is_held_out(f"El {n}", 0.5, 3) == is_held_out(f"EL\t{n} ", 0.5, 3)


def test_a_long_document_stays_on_one_side(tmp_path: Path) -> None:
    texts = [" ".join(f"Frase {n} de {m}." for m in range(40)) for n in range(60)]
    put(tmp_path / "in.jsonl", *({"text": text, "n": n} for n, text in enumerate(texts)))
    report = curate(wanted(tmp_path, heldout=0.3, document_characters=120))
    sides = [{record["n"] for record in out(tmp_path, side)} for side in ("train", "heldout")]
    assert sides[0] | sides[1] == set(range(60)) and not sides[0] & sides[1] and sides[1]
    assert report["cut"] == 60
    joined = dict.fromkeys(range(60), "")
    for record in out(tmp_path, "train") + out(tmp_path, "heldout"):
        assert len(record["text"]) <= 120
        joined[record["n"]] += record["text"]
    assert list(joined.values()) == texts


def test_tail_holds_out_the_end_of_long_documents(tmp_path: Path) -> None:
    paragraphs = [f"Párrafo {n} con algo de texto." for n in range(500)]
    (tmp_path / "in.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    report = curate(wanted(tmp_path, heldout=0.1, split="tail", document_characters=1000))
    train, held = ("".join(record["text"] for record in out(tmp_path, side)) for side in ("train", "heldout"))
    assert train + held == "\n\n".join(paragraphs)
    assert held.startswith("Párrafo ") and 0.1 <= len(held) / len(train + held) < 0.11
    assert report["split"] == "tail"
    numbers = [record["piece"] for side in ("train", "heldout") for record in out(tmp_path, side)]
    assert numbers == list(range(len(numbers)))


def test_an_empty_side_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "in.jsonl", "Uno.", "Dos.")
    with pytest.raises(DataError, match="tail") as caught:
        curate(wanted(tmp_path, heldout=1e-9))
    assert caught.value.key == "data.nothing-held-out"
    with pytest.raises(DataError) as caught:
        curate(wanted(tmp_path, minimum_characters=50))
    assert caught.value.key == "data.nothing-left" and caught.value.fields["dropped"] == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_held_out_files_are_kept_out_of_training(tmp_path: Path) -> None:
    put(tmp_path / "in_a.jsonl", "Uno.", "Dos.", "Tres.")
    put(tmp_path / "in_z.jsonl", "dos.", "Cuatro.")
    report = curate(wanted(tmp_path, heldout=0.5, heldout_text=[str(tmp_path / "in_z.jsonl")]))
    assert [record["text"] for record in out(tmp_path, "heldout")] == ["dos.", "Cuatro."]
    assert [record["text"] for record in out(tmp_path, "train")] == ["Uno.", "Tres."]
    assert report["dropped"]["duplicate"] == 1 and report["split"] == "files"


def test_bad_records_are_counted_and_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "Uno."}\n{"texto": "Dos."}\n{\n')
    report = curate(wanted(tmp_path, may_skip=2))
    assert (
        report["skipped"] == 2 and "texto" in report["skipped_reasons"][0] and "line 3" in report["skipped_reasons"][1]
    )
    assert any("2 bad records" in note for note in report["notes"])
    with pytest.raises(DataError, match="line 2"):
        curate(wanted(tmp_path))
    assert [record["text"] for record in out(tmp_path, "train")] == ["Uno."]  # the earlier output stands
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["heldout.jsonl", "report.json", "train.jsonl"]


def test_an_output_is_never_read_as_input(tmp_path: Path) -> None:
    put(tmp_path / "in.jsonl", "Uno.")
    curate(wanted(tmp_path))
    with pytest.raises(DataError) as caught:
        curate(wanted(tmp_path, text=[f"{tmp_path}/**/*.jsonl"]))
    assert caught.value.key == "data.output-is-input" and "train.jsonl" in str(caught.value)


def test_fields_of_parquet_pass_or_are_named(tmp_path: Path) -> None:
    day = pa.array([19_000], pa.date32())
    pq.write_table(pa.table({"text": ["Uno."], "day": day, "score": [0.5]}), tmp_path / "in.parquet")
    curate(wanted(tmp_path))
    assert out(tmp_path, "train") == [{"text": "Uno.", "day": "2022-01-08", "score": 0.5}]
    pq.write_table(pa.table({"text": ["Uno."], "raw": [b"\x00"]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match="field raw") as caught:
        curate(wanted(tmp_path))
    assert caught.value.key == "data.cannot-write-field"


def test_real_text(amauta_data: Path, tmp_path: Path) -> None:
    text = [str(amauta_data / "corpora/gutenberg/es_*.txt"), str(amauta_data / "corpora/libreoffice_guide.es.jsonl")]
    report = curate(wanted(tmp_path, text=text, heldout=0.05, split="tail"))
    share = report["heldout"]["characters"] / (report["heldout"]["characters"] + report["train"]["characters"])
    assert 0.04 < share < 0.06
    assert report["documents"] == 5 + 371 and report["cut"] >= 5
    for name, count in report["files"].items():
        assert count["kept_bytes"] > 0.97 * count["bytes"], name
    assert clean.read(tmp_path / "out" / "train.jsonl").files
