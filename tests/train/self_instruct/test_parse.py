"""What is read out of answers, by hand."""

import pytest

from amauta.train.self_instruct.parse import instances, instructions, is_classification, refusal
from amauta.train.self_instruct.wording import wording

EN, ES = wording("en"), wording("es")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (" write a poem\nTask 10: Explain   rain\nto me.\n\nTask 11: ¿Why?",
         ["Write a poem", "Explain rain to me.", "¿Why?"]),
        ("One.\n10. Two.\n11) Three.\n Task 12 : Four", ["One.", "Two.", "Three.", "Four"]),
        (" Translate iPhone names\n\nHere is my answer: x", ["Translate iPhone names"]),
        ("Add 2 and 3.5\nTask 10: Say 10: loudly", ["Add 2 and 3.5", "Say 10: loudly"]),
        ("", [""]),
        ("\nTask 9: A\nTask 10:", ["", "A", ""]),
    ],
)  # fmt: skip
def test_instructions(answer: str, found: list[str]):
    assert instructions(answer, EN) == found


def test_instructions_in_spanish():
    assert instructions(" escribe algo\nTarea 10: ñandú", ES) == ["Escribe algo", "Ñandú"]


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("", "empty"), ("!?", "empty"), ("Write a poem", "short"), ("Write a short poem", None),
        ("w " * 20, None), ("w " * 21, "long"), ("Describe the picture to me", "barred"),
        ("Describe the Picture, to me", "barred"), ("Describe the picturesque view now", None),
        ("Go on with filed papers", None), ("- write a short poem", "start"), ("“Write a short poem”", "start"),
        ("¿How far is the sea?", None), ("3 words about the sea", None), ("Über den Tag schreiben", None),
    ],
)  # fmt: skip
def test_refusals(instruction: str, reason: str | None):
    assert refusal(instruction, EN, 4, 20) == reason


def test_refusals_of_spanish():
    assert refusal("Dibuja un mapa del pueblo", ES, 4, 20) == "barred"
    assert refusal("Describe la imagen para mí", ES, 4, 20) == "barred"
    assert refusal("Describe the picture to me", ES, 4, 20) is None


@pytest.mark.parametrize(
    ("answer", "found"), [(" Yes", True), ("yes, it is", True), (" NO.", False), ("maybe", None), ("", None)]
)
def test_yes_or_no(answer: str, found: bool | None):
    assert is_classification(answer, EN) is found


def test_yes_or_no_in_spanish():
    assert [is_classification(one, ES) for one in (" Sí", "sí.", "No", "Si")] == [True, True, False, None]


def read(answer: str, *, whole: bool = True, most: int = 5):  # type: ignore[no-untyped-def]
    found = instances(answer, EN, classification=False, whole=whole, most=most)
    return found.instances, found.dropped


def test_examples():
    two = "\nExample 1\nInput: a\nb\nOutput: c\nExample 2.\nOutput: d"
    assert read(two) == ([("a\nb", "c"), ("", "d")], {})
    assert read(two, whole=False) == ([("a\nb", "c")], {"cut": 1})
    assert read(" Output: only\nthis") == ([("", "only\nthis")], {})
    assert read("Input: a\nOutput: b\nInput: c") == ([("a", "b")], {})
    assert read("It says Output: twice\nOutput: b") == ([("It says Output: twice", "b")], {})
    assert read("nothing named") == ([], {"unread": 1})
    assert read("Output: half a", whole=False) == ([], {"cut": 1})


def test_unsound_instances():
    def several(*pairs: tuple[str, str]) -> str:
        return "".join(f"\nExample {n}\nInput: {a}\nOutput: {b}" for n, (a, b) in enumerate(pairs, start=1))

    assert read(several(("a", "b"), ("c", ""), ("d", "d"), ("e", "f:"), ("g:", "h"), ("a", "b"))) == (
        [("a", "b")], {"no-output": 1, "same": 1, "unfinished": 2, "duplicate": 1})  # fmt: skip
    assert read(several(("a", "b"), ("x", "y"), ("a", "c"))) == ([], {"contradiction": 3})
    assert read(several(*((str(n), "b") for n in range(7))), most=5)[1] == {"many": 2}
    # several outputs without an input are no contradiction: a task may have more than one answer
    assert read("\nExample 1\nOutput: a\nExample 2\nOutput: b") == ([("", "a"), ("", "b")], {})


def test_labels_first():
    answer = "Class label: good\nInput: a\nb\nClass label: bad\nc\nClass label: none"
    found = instances(answer, EN, classification=True, whole=True, most=5)
    assert found.instances == [("a\nb", "good"), ("c", "bad"), ("", "none")]
    assert instances("good, without a name", EN, classification=True, whole=True, most=5).dropped == {"unread": 1}
    cut = instances(answer, EN, classification=True, whole=False, most=1)
    assert cut.instances == [("a\nb", "good")] and cut.dropped == {"cut": 1, "many": 1}
    spanish = instances("Etiqueta: sí\nEntrada: a", ES, classification=True, whole=True, most=5)
    assert spanish.instances == [("a", "sí")]
